"""The router's waiting room: one capacity, a fair line for each lane, and no I/O.

A lane is whatever tells apart requests that could start in different places, such as (model,
version, required regions): nobody waits behind a request for another model. The server and the
simulator use the same gate.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from router.admission.queue import AGE_S, Line, Outcome, Room, Ticket
from router.admission.ticket import T

L = TypeVar("L", bound=Hashable)


class Gate(Generic[L, T]):
    """Those who wait until an endpoint can take them. Instants are monotonic seconds.

    gate: Gate[tuple[str, str], Run] = Gate(capacity=1000, weights=law.weights)

    Nothing is free (or others wait in this lane already, `gate.queued(lane)`: do not overtake):

        if gate.would_miss(lane, tenant=t, priority=p, now_s=now, deadline_s=d,
                           slots=slots_that_serve_the_lane, needs_s=predicted):
            refuse(503, retry_after_s=gate.wait_s(lane, tenant=t, priority=p, slots=slots))
        ticket = gate.offer(lane, tenant=t, priority=p, now_s=now, deadline_s=d,
                            cost_s=service_s, item=run, settled=run.waited)
        if ticket is None:
            refuse(503, retry_after_s=gate.wait_s(...))

    Something has changed (an answer came, a report, an endpoint joined):

        for lane in gate.lanes(now):
            while (ticket := gate.peek(lane, now)) and there_is_a_slot_for(ticket.item):
                gate.start(lane, now)            # run.waited(Outcome.STARTED): it is sent

    Every tick `gate.expire(now)` (EXPIRED: 504). The client has gone: `gate.leave(ticket)`
    (WITHDRAWN). Pushed out by somebody more urgent: SHED (503). When a started request has been
    served, and took another device time than was guessed: `gate.correct(ticket, infer_s)`.
    """

    def __init__(
        self, capacity: int, *, weights: Mapping[str, float] | None = None, age_s: float = AGE_S
    ) -> None:
        """At most `capacity` wait, in all lanes together; `weights` are tenants' shares (1).

        Waiting lifts a request by one priority band per `age_s`.
        """
        self._room: Room[T] = Room(capacity, age_s)
        self._weights = weights or {}
        self._open: dict[L, _Lane[L, T]] = {}

    @property
    def capacity(self) -> int:
        """How many may wait."""
        return self._room.capacity

    @property
    def waiting(self) -> int:
        """How many do, in all lanes."""
        return self._room.waiting

    def queued(self, lane: L) -> int:
        """How many wait in one lane."""
        line = self._open.get(lane)
        return 0 if line is None else len(line)

    def offer(
        self,
        lane: L,
        *,
        tenant: str,
        priority: int,
        now_s: float,
        deadline_s: float,
        cost_s: float,
        item: T,
        settled: Callable[[Outcome], None],
    ) -> Ticket[T] | None:
        """A place in a lane; None where all are taken by requests of the same class or a higher.

        `cost_s` is the device time that it is believed to take. `settled` is told the outcome,
        once, and never before this returns.
        """
        self._room.advance(now_s)  # first: who hears of it may open or close this lane
        line = self._open.get(lane)
        if line is None:
            line = _Lane(lane, self._open, self._room, self._weights)
        return line.join(
            tenant=tenant,
            priority=priority,
            now_s=now_s,
            deadline_s=deadline_s,
            cost_s=cost_s,
            item=item,
            settled=settled,
        )

    def lanes(self, now_s: float) -> list[L]:
        """The lanes in which somebody waits: by the band of who is first, then by turns."""
        self._room.advance(now_s)
        return sorted(self._open, key=lambda lane: self._open[lane].band)

    def peek(self, lane: L, now_s: float) -> Ticket[T] | None:
        """Whose turn it is in a lane."""
        line = self._open.get(lane)
        return None if line is None else line.peek(now_s)

    def start(self, lane: L, now_s: float) -> Ticket[T] | None:
        """The one whose turn it is in a lane, started; the lane's own turn is then over."""
        line = self._open.get(lane)
        if line is None or line.peek(now_s) is None:
            return None
        self._open[lane] = self._open.pop(lane)
        return line.start(now_s)

    def expire(self, now_s: float) -> None:
        """End the waiting of all whose deadline has passed."""
        self._room.advance(now_s)

    def leave(self, ticket: Ticket[T]) -> None:
        """End the waiting of one who no longer wants to; nothing where it has ended."""
        self._room.end(ticket, Outcome.WITHDRAWN)

    def correct(self, ticket: Ticket[T], cost_s: float) -> None:
        """A ticket that was started has taken this much device time: its tenant's share is of that.

        Nothing where the ticket was never started, or nobody of its band waits any more.
        """
        line = ticket.holder
        assert isinstance(line, Line)
        line.correct(ticket, cost_s)

    def ahead_s(self, lane: L, *, tenant: str, priority: int) -> float:
        """Seconds of device time that would start before a newcomer, as things stand."""
        line = self._open.get(lane)
        return 0.0 if line is None else line.ahead_s(tenant, priority)

    def wait_s(self, lane: L, *, tenant: str, priority: int, slots: float) -> float:
        """How long a newcomer would wait, with so many slots at work for this lane.

        Without any slot it would wait for ever: infinite.
        """
        ahead_s = self.ahead_s(lane, tenant=tenant, priority=priority)
        return ahead_s / slots if slots > 0 else float("inf")

    def would_miss(
        self,
        lane: L,
        *,
        tenant: str,
        priority: int,
        now_s: float,
        deadline_s: float,
        slots: float,
        needs_s: float,
    ) -> bool:
        """Whether a newcomer that needs `needs_s` once it is sent would be too late.

        Who comes later and is more urgent is not foreseen.
        """
        wait_s = self.wait_s(lane, tenant=tenant, priority=priority, slots=slots)
        return now_s + wait_s + needs_s > deadline_s


class _Lane(Line[T], Generic[L, T]):
    """A line that is known to its gate while somebody waits in it."""

    def __init__(
        self,
        lane: L,
        known: dict[L, "_Lane[L, T]"],
        room: Room[T],
        weights: Mapping[str, float],
    ) -> None:
        super().__init__(room, weights)
        self._lane = lane
        self._known = known

    def put(self, ticket: Ticket[T]) -> None:
        super().put(ticket)
        self._known[self._lane] = self

    def remove(self, ticket: Ticket[T]) -> None:
        super().remove(ticket)
        if not self:
            del self._known[self._lane]
