"""Ways for the product's router: its `Upstream`, `Call` and `Exchange`, in virtual time.

What travels is what travels in HTTP: paths, header fields, and reports as they are encoded.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from isochrone.router.simulate.arrivals import Request as Arrival
from isochrone.router.simulate.asked import Asked
from isochrone.router.simulate.endpoint import SimulatedEndpoint
from isochrone.router.simulate.hearing import events
from isochrone.router.simulate.visit import Visit
from isochrone.router.simulate.way import Way
from isochrone.router.upstream.event import Cause, Chunk, End, Head, Lost, OnEvents
from isochrone.router.wire.headers import REQUEST_ID, SEQUENCE
from isochrone.router.wire.http import Headers, Request, first

_SAMPLE = Arrival(
    number=-1,
    at_s=0.0,
    client=0,
    router=0,
    tenant=0,
    work=1.0,
    chance=0.5,
    trip_factor=1.0,
    body_bytes=0,
)
"""A model's own input: of ordinary size, and always the same."""
_SAMPLE_TIMEOUT_S = 30.0
_SAMPLE_PRIORITY = 5


class Case:
    """One request as the product's router has it: the exchange with its client."""

    __slots__ = ("asked", "request", "tries")

    def __init__(self, asked: Asked, path: str) -> None:
        self.asked = asked
        self.request = Request("POST", path, [], received_s=asked.call.asked_s)
        self.tries: dict[str, tuple[Visit, float]] = {}
        """By endpoint: a try that came to an end, and how long it took."""

    def round_trip_s(self) -> float | None:
        """Nobody has measured it."""
        return None

    @property
    def gone(self) -> bool:
        """Clients stay until their deadline."""
        return False

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The record of the request tells how it ended."""

    def start(self, status: int, headers: Headers) -> None:
        """As `respond`."""

    def write(self, chunk: bytes) -> None:
        """As `respond`."""

    def finish(self, code: str = "") -> None:
        """As `respond`."""

    def abort(self) -> None:
        """As `respond`."""

    def watch(
        self,
        *,
        gone: Callable[[], object],
        pause: Callable[[], None] | None = None,
        resume: Callable[[], None] | None = None,
    ) -> None:
        """Nothing of this happens."""


class UnderWay:
    """One request on its way. Satisfies `Call`."""

    __slots__ = ("_cancel",)

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self._cancel()

    def pause(self) -> None:
        """Answers are short."""

    def resume(self) -> None:
        """Answers are short."""


class Line:
    """One router's line to one endpoint. Satisfies `Upstream`.

    `case_of` finds a request by its id; `clock` is the engine's.
    """

    def __init__(
        self, way: Way, case_of: Callable[[bytes], Case], clock: Callable[[], float]
    ) -> None:
        self.probes = 0
        """How many control messages were sent."""
        self._way = way
        self._case_of = case_of
        self._clock = clock

    def send(
        self,
        request: Request,
        on_events: OnEvents,
        *,
        once: bool = False,
        again: Callable[[], bool] = bool,
    ) -> UnderWay:
        """Send a request; its events come later, and it never arrives twice."""
        del once, again
        control = _CONTROL.get(request.path)
        if control is not None:
            self.probes += 1
            return self._ask(control, on_events)
        if request.path == "/isochrone/sample":
            self.probes += 1
            return self._sample(on_events)
        return self._infer(request, on_events)

    @property
    def empty(self) -> bool:
        """There is nothing to close."""
        return True

    def retire(self) -> None:
        """There is nothing to close."""

    async def close(self) -> None:
        """There is nothing to close."""

    def _infer(self, request: Request, on_events: OnEvents) -> UnderWay:
        case = self._case_of(first(request.headers, REQUEST_ID) or b"")
        sender, _, number = (first(request.headers, SEQUENCE) or b"").decode().rpartition("=")
        visit = case.asked.visit(sender, int(number), partial(self._heard, case, on_events))
        case.asked.leaves(self._way)
        self._way.send(visit)
        return UnderWay(partial(self._way.cancel, visit))

    def _heard(self, case: Case, on_events: OnEvents, visit: Visit) -> None:
        case.tries[self._way.endpoint.name] = visit, self._clock() - visit.sent_s
        on_events(events(visit))

    def _sample(self, on_events: OnEvents) -> UnderWay:
        visit = Visit(
            _SAMPLE,
            sender="",
            sequence=0,
            deadline_s=self._clock() + _SAMPLE_TIMEOUT_S,
            priority=_SAMPLE_PRIORITY,
            heard=partial(_tell, on_events),
        )
        self._way.sample(visit)
        return UnderWay(partial(self._way.cancel, visit))

    def _ask(
        self, control: Callable[[SimulatedEndpoint], tuple[int, bytes]], on_events: OnEvents
    ) -> UnderWay:
        wanted = [on_events]

        def heard(answer: tuple[int, bytes] | None) -> None:
            for listener in wanted:
                _deliver(listener, answer)

        self._way.ask(partial(control, self._way.endpoint), heard)
        return UnderWay(wanted.clear)


def _report(endpoint: SimulatedEndpoint) -> tuple[int, bytes]:
    return 200, msgspec.json.encode(endpoint.telling.full())


def _wake(endpoint: SimulatedEndpoint) -> tuple[int, bytes]:
    return 202, msgspec.json.encode(endpoint.wake())


_CONTROL = {"/isochrone/report": _report, "/isochrone/wake": _wake}


def _deliver(on_events: OnEvents, answer: tuple[int, bytes] | None) -> None:
    if answer is None:
        on_events((Lost(Cause.REFUSED, ""),))
        return
    status, body = answer
    on_events((Head(status, []), Chunk(body), End()))


def _tell(on_events: OnEvents, visit: Visit) -> None:
    on_events(events(visit))
