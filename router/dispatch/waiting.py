"""Into the line and out of it: who has to wait, whether that pays, and what becomes of it.

Who comes later does not overtake those of its class who wait for the same model.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice

from msgspec import structs

from isochrone.router.admission.gate import Gate
from isochrone.router.admission.ticket import Outcome
from isochrone.router.dispatch.outlook import Lane, Outlook, Prospect, least_s, too_late
from isochrone.router.dispatch.request import CLIENT_GONE, RoutedRequest
from isochrone.router.errors import DeadlineExceeded, IsochroneError, Overloaded
from isochrone.router.policy.query import Query
from isochrone.router.process.clock import Clock

LANES_COUNT = 16
"""In how many lanes of its model what waits is counted for who comes."""


class Waiting:
    """Puts requests into a gate; `ended` is told of those who end there without being started.

    Its error is what the client is to be told; None: the client has gone.
    """

    def __init__(
        self,
        gate: Gate[RoutedRequest],
        outlook: Outlook,
        clock: Clock,
        ended: Callable[[RoutedRequest, IsochroneError | None], None],
    ) -> None:
        self._gate = gate
        self._outlook = outlook
        self._clock = clock
        self._ended = ended

    def must(self, query: Query, now_s: float) -> bool:
        """Somebody of the same class or a higher one waits for the same model."""
        if not self._gate.waiting:
            return False
        return self._gate.line(query.model, now_s).band <= query.priority

    def join(
        self, request: RoutedRequest, prospect: Prospect, now_s: float
    ) -> IsochroneError | None:
        """Let it wait for those who could serve it; or say why it may not, or need not."""
        query, lane = request.query, request.lane
        came_back = request.ticket is not None  # and will find its place as it was
        wait_s = 0.0 if came_back else self._wait_s(request, prospect, now_s)
        needs = prospect.seconds(structs.replace(query, now_s=now_s))
        left_s = query.deadline_s - now_s
        opens_s = prospect.opens_s(now_s) - now_s
        if least_s(needs) <= left_s < opens_s + least_s(needs):
            text = f"every endpoint that may serve this is full for another {opens_s:.1f} s"
            return Overloaded(text, retry_after_s=opens_s)
        if wait_s + needs.total > left_s:
            return too_late(wait_s + needs.total, least_s(needs), left_s)
        request.exchange.watch(gone=partial(self._left, request))
        request.waits_from_s = now_s
        request.ticket = self._gate.line(query.model, now_s).join(
            tenant=query.tenant,
            priority=query.priority,
            now_s=now_s,
            deadline_s=query.deadline_s,
            cost_s=prospect.cost_s,
            item=request,
            settled=partial(self._settled, request, prospect),
            lane=lane,
            again=request.ticket,
        )
        if request.ticket is not None:
            return None
        full = "too many wait for the endpoints that may serve this"
        return Overloaded(full, retry_after_s=max(wait_s, prospect.cost_s))

    def ended(self, request: RoutedRequest) -> None:
        """A request has ended, in line or out of it: what that says of those who wait."""
        ticket, request.ticket = request.ticket, None  # each knows the other
        if ticket is None:
            return
        infer_s = sum(t.report.infer_s for t in request.attempts if t.report is not None)
        if infer_s > 0:
            self._gate.correct(ticket, infer_s)
        if request.code == CLIENT_GONE and not request.sent:
            self._gate.leave(ticket)

    def _left(self, request: RoutedRequest) -> None:
        request.client_left()
        if request.ticket is not None:
            self._gate.leave(request.ticket)

    def _settled(self, request: RoutedRequest, prospect: Prospect, outcome: Outcome) -> None:
        """Waiting has ended; whoever was started is seen to by who started it."""
        now_s = self._clock()
        request.waited_s += now_s - request.waits_from_s
        match outcome:
            case Outcome.STARTED:
                pass
            case Outcome.EXPIRED:
                late = "the deadline passed before there was room"
                self._ended(request, DeadlineExceeded(late))
            case Outcome.SHED:
                shed = "a more urgent request has taken the place in line"
                wait_s = self._wait_s(request, prospect, now_s)
                self._ended(request, Overloaded(shed, retry_after_s=wait_s))
            case Outcome.WITHDRAWN:
                self._ended(request, None)

    def _wait_s(self, request: RoutedRequest, prospect: Prospect, now_s: float) -> float:
        """In how long there should be room for it, behind what waits for the same slots."""
        query = request.query
        line = self._gate.line(query.model, now_s)
        ahead_s = 0.0
        for lane in {request.lane, *islice(line.lanes, LANES_COUNT)}:
            assert isinstance(lane, Lane)
            theirs = self._of(query, lane, now_s)
            share = theirs.shared_with(prospect)
            ahead_s += share * line.ahead_s(query.tenant, query.priority, lane)
        return ahead_s / max(1, prospect.slots)

    def _of(self, query: Query, lane: Lane, now_s: float) -> Prospect:
        """What those who could serve another lane of the same model can do."""
        version, regions, _ = lane
        asks = structs.replace(query, version=version, required_regions=regions)
        return self._outlook.of(asks, lane, now_s)
