"""Who gives way when the queue is full: the newest of the tenant that has most waiting.

A fair order alone makes no fair shares: in a full queue, who asks most often takes most of the
places, and only who has a place has a turn. So a newcomer takes the place of the newest of that
tenant of its class whose waiting work, over its weight, is the longest, if it is longer than its
own. After the longest-queue push-out of Suter et al., "Buffer Management Schemes for Supporting
TCP in Gigabit Routers with Per-Flow Queueing" (JSAC 17(6), 1999).
"""

from collections.abc import Mapping

from edge_agent.runtime.gate import Entry
from router.admission.queue import Ticket

_Key = tuple[int, str]


class Backlogs:
    """Those who wait, by class and tenant."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` are tenants' shares; who is not named has 1."""
        self._weights = weights
        self._waiting: dict[_Key, dict[Ticket[Entry], None]] = {}
        self._seconds: dict[_Key, float] = {}

    def put(self, ticket: Ticket[Entry]) -> None:
        """It waits."""
        key = _key(ticket)
        self._waiting.setdefault(key, {})[ticket] = None
        self._seconds[key] = self._seconds.get(key, 0.0) + ticket.cost_s

    def gone(self, ticket: Ticket[Entry]) -> None:
        """It waits no more."""
        key = _key(ticket)
        tickets = self._waiting[key]
        del tickets[ticket]
        self._seconds[key] -= ticket.cost_s
        if not tickets:
            del self._waiting[key], self._seconds[key]

    def gives_way(self, tenant: str, priority: int, cost_s: float) -> Ticket[Entry] | None:
        """Who leaves for a newcomer that takes so long; None where that would not be fairer."""
        own_s = self._length_s((priority, tenant), cost_s)
        keys = [key for key in self._waiting if key[0] == priority]
        longest = max(keys, key=self._length_s, default=None)
        if longest is None or longest[1] == tenant or self._length_s(longest) <= own_s:
            return None
        return next(reversed(self._waiting[longest]))

    def _length_s(self, key: _Key, more_s: float = 0.0) -> float:
        return (self._seconds.get(key, 0.0) + more_s) / self._weights.get(key[1], 1.0)


def _key(ticket: Ticket[Entry]) -> _Key:
    return ticket.priority, ticket.tenant
