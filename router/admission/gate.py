"""The router's waiting room: one capacity, a fair line for each model, and no I/O.

Within a model, a lane is whatever tells apart requests that could start in different places, such
as (version, required regions): nobody waits behind a request that cannot start where it could, but
tenants' shares, priorities and ageing are the model's. The server and the simulator use the same
gate.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

from router.admission.queue import AGE_S, Line, Outcome, Room, Ticket
from router.admission.ticket import T

L = TypeVar("L", bound=Hashable)


class Gate(Generic[L, T]):
    """Those who wait until an endpoint can take them. Instants are monotonic seconds.

    gate: Gate[Lane, Run] = Gate(capacity=1000, weights=law.weights)

    Nothing is free, or somebody as urgent waits for this model (`gate.peek`: do not overtake):

        wait_s = gate.wait_s(model, lane, tenant=t, priority=p, slots=slots_that_serve_the_lane)
        ticket = gate.offer(model, lane, tenant=t, priority=p, now_s=now, deadline_s=d,
                            cost_s=service_s, item=run, settled=run.waited)
        if ticket is None:
            refuse(503, retry_after_s=wait_s)

    Something has changed (an answer came, a report, an endpoint joined):

        for model in gate.models(now):
            blocked = set()
            while ticket := gate.peek(model, now, blocked):
                if there_is_a_slot_for(ticket.item):
                    gate.start(model, now, blocked)  # run.waited(Outcome.STARTED): it is sent
                else:
                    blocked.add(ticket.lane)

    Every tick `gate.expire(now)` (EXPIRED: 504). The client has gone: `gate.leave(ticket)`
    (WITHDRAWN). Pushed out by somebody more urgent: SHED (503). When a started request has been
    served, and took another device time than was guessed: `gate.correct(ticket, infer_s)`; when it
    found nobody after all: `gate.offer(..., again=ticket)`.
    """

    def __init__(
        self, capacity: int, *, weights: Mapping[str, float] | None = None, age_s: float = AGE_S
    ) -> None:
        """At most `capacity` wait, for all models together; `weights` are tenants' shares (1).

        Waiting lifts a request by one priority band per `age_s`.
        """
        self._room: Room[T] = Room(capacity, age_s)
        self._weights = weights or {}
        self._open: dict[str, _ModelLine[T]] = {}

    @property
    def waiting(self) -> int:
        """How many wait, for all models."""
        return self._room.waiting

    def queued(self, model: str, lane: L) -> int:
        """How many wait in one lane."""
        line = self._open.get(model)
        return 0 if line is None else line.queued(lane)

    def offer(
        self,
        model: str,
        lane: L,
        *,
        tenant: str,
        priority: int,
        now_s: float,
        deadline_s: float,
        cost_s: float,
        item: T,
        settled: Callable[[Outcome], None],
        again: Ticket[T] | None = None,
    ) -> Ticket[T] | None:
        """A place in line; None where all are taken by requests of the same class or a higher.

        `cost_s` is the device time that it is believed to take. `settled` is told the outcome,
        once, and never before this returns. `again`: see `Line.join`.
        """
        self._room.advance(now_s)  # first: who hears of it may open or close this line
        line = self._open.get(model)
        if line is None:
            line = _ModelLine(model, self._open, self._room, self._weights)
        return line.join(
            tenant=tenant,
            priority=priority,
            now_s=now_s,
            deadline_s=deadline_s,
            cost_s=cost_s,
            item=item,
            settled=settled,
            lane=lane,
            again=again,
        )

    def models(self, now_s: float) -> list[str]:
        """The models for which somebody waits: by the band of who is first, then by turns."""
        self._room.advance(now_s)
        return sorted(self._open, key=lambda model: self._open[model].band)

    def peek(self, model: str, now_s: float, blocked: Collection[L] = ()) -> Ticket[T] | None:
        """Whose turn it is at a model, passing over `blocked` lanes."""
        line = self._open.get(model)
        return None if line is None else line.peek(now_s, blocked)

    def start(self, model: str, now_s: float, blocked: Collection[L] = ()) -> Ticket[T] | None:
        """The one whose turn it is at a model, started; the model's own turn is then over."""
        line = self._open.get(model)
        if line is None or line.peek(now_s, blocked) is None:
            return None
        self._open[model] = self._open.pop(model)
        return line.start(now_s, blocked)

    def expire(self, now_s: float) -> None:
        """End the waiting of all whose deadline has passed."""
        self._room.advance(now_s)

    def leave(self, ticket: Ticket[T]) -> None:
        """End the waiting of one who no longer wants to; nothing where it has ended."""
        line = ticket.holder
        assert isinstance(line, Line)
        line.leave(ticket)

    def correct(self, ticket: Ticket[T], cost_s: float) -> None:
        """A ticket that was started has taken this much device time: its tenant's share is of that.

        Nothing where the ticket was never started, or nobody of its band waits any more.
        """
        line = ticket.holder
        assert isinstance(line, Line)
        line.correct(ticket, cost_s)

    def ahead_s(self, model: str, lane: L, *, tenant: str, priority: int) -> float:
        """Seconds of device time that would start in a lane before a newcomer, as things stand."""
        line = self._open.get(model)
        return 0.0 if line is None else line.ahead_s(tenant, priority, lane)

    def wait_s(self, model: str, lane: L, *, tenant: str, priority: int, slots: float) -> float:
        """How long a newcomer would wait, with so many slots at work for this lane.

        What waits in other lanes for the same slots is not foreseen, nor who comes later and is
        more urgent. Without any slot it would wait for ever: infinite.
        """
        ahead_s = self.ahead_s(model, lane, tenant=tenant, priority=priority)
        return ahead_s / slots if slots > 0 else float("inf")


class _ModelLine(Line[T]):
    """A line that is known to its gate while somebody waits in it."""

    def __init__(
        self,
        model: str,
        known: dict[str, "_ModelLine[T]"],
        room: Room[T],
        weights: Mapping[str, float],
    ) -> None:
        super().__init__(room, weights)
        self._model = model
        self._known = known

    def put(self, ticket: Ticket[T]) -> None:
        super().put(ticket)
        self._known[self._model] = self

    def remove(self, ticket: Ticket[T]) -> None:
        super().remove(ticket)
        if not self:
            del self._known[self._model]
