"""Who waits for a place: a bounded line, most urgent first; what has expired never starts.

Within one priority it is first come, first served. A fair share by tenant is a choice among lines.
"""

from bisect import insort
from collections.abc import Callable
from enum import Enum
from operator import attrgetter


class Outcome(Enum):
    """How waiting ends; every ticket ends in exactly one of these."""

    STARTED = "started"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class Ticket:
    """One place in a line; `priority` 1 is the most urgent."""

    __slots__ = ("_settled", "deadline_s", "outcome", "priority")

    def __init__(
        self, deadline_s: float, priority: int, settled: Callable[[Outcome], None]
    ) -> None:
        self.deadline_s = deadline_s
        self.priority = priority
        self.outcome: Outcome | None = None
        self._settled = settled

    def settle(self, outcome: Outcome) -> None:
        """End the waiting, if it has not ended."""
        if self.outcome is None:
            self.outcome = outcome
            self._settled(outcome)


_urgency = attrgetter("priority")


class Line:
    """At most `capacity` tickets. Instants are monotonic seconds."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tickets: list[Ticket] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def join(
        self, now_s: float, deadline_s: float, priority: int, settled: Callable[[Outcome], None]
    ) -> Ticket | None:
        """A place behind all that are as urgent; None where the line is full.

        `settled` is told the outcome, once.
        """
        if len(self._tickets) >= self.capacity:
            self.expire(now_s)
        if len(self._tickets) >= self.capacity:
            return None
        ticket = Ticket(deadline_s, priority, settled)
        insort(self._tickets, ticket, key=_urgency)
        return ticket

    def start(self, now_s: float) -> Ticket | None:
        """The first ticket that still has time, started; None where there is none."""
        while self._tickets:
            ticket = self._tickets.pop(0)
            if ticket.deadline_s > now_s:
                ticket.settle(Outcome.STARTED)
                return ticket
            ticket.settle(Outcome.EXPIRED)
        return None

    def expire(self, now_s: float) -> None:
        """End the waiting of all whose deadline has passed."""
        late = [ticket for ticket in self._tickets if ticket.deadline_s <= now_s]
        for ticket in late:
            self._tickets.remove(ticket)
            ticket.settle(Outcome.EXPIRED)

    def leave(self, ticket: Ticket) -> None:
        """End the waiting of one who no longer wants to; nothing where it has ended."""
        if ticket.outcome is None:
            self._tickets.remove(ticket)
            ticket.settle(Outcome.WITHDRAWN)
