"""The router's waiting room: one capacity, a fair line for each model, and no I/O.

Within a model, a lane is whatever tells apart requests that could start in different places, such
as (version, required regions): nobody waits behind a request that cannot start where it could, but
tenants' shares, priorities and ageing are the model's. The server and the simulator use the same
gate.
"""

from collections.abc import Collection, Hashable, Mapping

from isochrone.router.admission.queue import AGE_S, Line, Room, Ticket
from isochrone.router.admission.ticket import T


class Gate(Room[T]):
    """A room with one line per model. Instants are monotonic seconds.

    gate: Gate[Run] = Gate(capacity=1000, weights=law.weights)

    Nothing is free, or somebody as urgent waits for this model (`line.band`: do not overtake):

        line = gate.line(model, now)
        ahead_s = line.ahead_s(tenant, priority, lane)
        ticket = line.join(tenant=t, priority=p, now_s=now, deadline_s=d, cost_s=service_s,
                           item=run, settled=run.waited, lane=lane)
        if ticket is None:
            refuse(503, retry_after_s=ahead_s / slots)

    Something has changed (an answer came, a report, an endpoint joined):

        for model in gate.models(now):
            line, blocked = gate.line(model, now), set()
            while ticket := line.peek(now, blocked):
                if there_is_a_slot_for(ticket.item):
                    line.start(now, blocked)  # run.waited(Outcome.STARTED): it is sent
                else:
                    blocked.add(ticket.lane)

    Every tick `gate.expire(now)` (EXPIRED: 504). The client has gone: `gate.leave(ticket)`
    (WITHDRAWN). Pushed out by somebody more urgent: SHED (503). When a started request has been
    served, and took another device time than was guessed: `gate.correct(ticket, infer_s)`; when it
    found nobody after all: `line.join(..., again=ticket)`.
    """

    def __init__(
        self, capacity: int, *, weights: Mapping[str, float] | None = None, age_s: float = AGE_S
    ) -> None:
        """At most `capacity` wait, for all models together; `weights` are tenants' shares (1).

        Waiting lifts a request by one priority band per `age_s`.
        """
        super().__init__(capacity, age_s)
        self._weights = weights or {}
        self._open: dict[str, _ModelLine[T]] = {}

    def line(self, model: str, now_s: float) -> Line[T]:
        """Those who wait for a model. To be asked for anew at each instant."""
        self.advance(now_s)  # first: its callbacks may open or close this line
        line = self._open.get(model)
        return _ModelLine(model, self._open, self, self._weights) if line is None else line

    def models(self, now_s: float) -> list[str]:
        """The models for which somebody waits: by the band of who is first, then by turns."""
        self.advance(now_s)
        return sorted(self._open, key=lambda model: self._open[model].band)

    def expire(self, now_s: float) -> None:
        """End the waiting of all whose deadline has passed."""
        self.advance(now_s)

    def leave(self, ticket: Ticket[T]) -> None:
        """Its client has hung up: see `Line.leave`."""
        _line_of(ticket).leave(ticket)

    def correct(self, ticket: Ticket[T], cost_s: float) -> None:
        """A ticket that was started has taken this much device time: its tenant's share is of that.

        Nothing where the ticket was never started, or nobody of its band waits any more.
        """
        _line_of(ticket).correct(ticket, cost_s)


class _ModelLine(Line[T]):
    """A line that is known to its gate while somebody waits in it; who started one is last."""

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

    def start(self, now_s: float, blocked: Collection[Hashable] = ()) -> Ticket[T] | None:
        if self.peek(now_s, blocked) is not None:
            self._known[self._model] = self._known.pop(self._model)
        return super().start(now_s, blocked)

    def put(self, ticket: Ticket[T]) -> None:
        super().put(ticket)
        self._known[self._model] = self

    def remove(self, ticket: Ticket[T]) -> None:
        super().remove(ticket)
        if not self:
            del self._known[self._model]


def _line_of(ticket: Ticket[T]) -> Line[T]:
    assert isinstance(ticket.holder, Line)
    return ticket.holder
