"""The tries of one request, as endpoints and the ledger see them: sent, heard of, settled."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from isochrone.router.dispatch.asked import Asked
from isochrone.router.dispatch.command import Send, Settle
from isochrone.router.dispatch.record import Tried
from isochrone.router.errors import IsochroneError, Quarantined
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.fleet.site import Lease
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.policy.pick import Scored
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Cause, Head, Lost, OnEvents
from isochrone.router.upstream.rewrite import upstream_headers
from isochrone.router.upstream.upstream import Call, Upstream
from isochrone.router.wire.http import Headers, Request, first
from isochrone.router.wire.report import LOAD_HEADER, CallReport, ModelState, decode_call_report

_WORKING = frozenset({"infer", "generate", "generate_stream"})
"""Actions in which the model runs."""
_STILL_OF_USE = frozenset({Outcome.ANSWERED, Outcome.BUSY, Outcome.CANCELLED, Outcome.UNSENT})


@dataclass(frozen=True, slots=True)
class Reach:
    """How endpoints are reached: `sender` signs what is sent, `upstream` gives the way to one.

    `client_address` is the client's, by its peer and what listed proxies vouch for.
    """

    sender: bytes
    ledger: Ledger
    upstream: Callable[[Endpoint], Upstream]
    clock: Clock
    client_address: Callable[[str, Headers], str]


@dataclass(slots=True, eq=False)
class Try:
    """One try on one endpoint; `call` is there while it is under way."""

    scored: Scored
    cause: str
    lease: Lease | None
    call: Call | None = None
    report: CallReport | None = None
    first_byte_s: float | None = None
    status: int = 0
    succeeded: bool = False
    """The head says that the model has run, or runs."""
    empty: bool = True
    """No byte of a body has come."""
    cancelled: bool = False

    @property
    def worked(self) -> bool:
        """There is an answer that only the model can have given."""
        return self.succeeded and not self.empty

    def cancel(self) -> None:
        """Nobody wants its answer, or the rest of it."""
        self.cancelled = True
        if self.call is not None:
            self.call.cancel()


class Tries:
    """Those of one run, by number. Each ends in one line of the request's record."""

    __slots__ = ("_asked", "_reach", "base", "cause", "made")

    def __init__(self, reach: Reach, asked: Asked, cause: str) -> None:
        """`cause` is what sends the first one."""
        self._reach = reach
        self._asked = asked
        self.base = asked.record.tries_count
        self.cause = cause
        self.made: list[Try] = []

    def send(
        self,
        send: Send,
        scored: Scored,
        tell: OnEvents,
        again: Callable[[], bool],
    ) -> bool:
        """Send the request; False where the endpoint is not there any more, which `tell` hears."""
        reach, query = self._reach, self._asked.query
        endpoint, now_s = send.permit.endpoint, reach.clock()
        lease = reach.ledger.sent(
            endpoint, query.model, scored.candidate.version, now_s, query.body_bytes
        )
        made = Try(scored, "hedge" if send.hedge else self.cause, lease)
        self.made.append(made)
        if lease is None:
            tell((Lost(Cause.REFUSED, "it has left"),))
            return False
        request = self._request(self.base + send.number, lease, query.deadline_s - now_s)
        way = reach.upstream(endpoint)
        made.call = way.send(request, tell, once=not query.repeatable, again=again)
        return True

    def begun(self, head: Head, number: int) -> None:
        """Take in what the head of an answer says of its endpoint."""
        made = self.made[number]
        made.status = head.status
        value = first(head.headers, LOAD_HEADER)
        report = decode_call_report(value) if value is not None else None
        if report is not None and _is_of(report, made.scored.permit.endpoint):
            made.report = report
        made.succeeded = head.status < 300 and self._asked.query.action in _WORKING
        if made.lease is not None and made.lease.open:
            now_s = self._reach.clock()
            made.first_byte_s = now_s - made.lease.sent_s
            self._reach.ledger.answered(made.lease, made.report, now_s, worked=made.succeeded)

    def reported(self, number: int) -> bool:
        """A valid load report came with the head of its answer."""
        return self.made[number].report is not None

    def settle(self, settle: Settle) -> None:
        """One has ended."""
        now_s, asked = self._reach.clock(), self._asked
        made = self.made[settle.number]
        if made.lease is not None:
            self._close(made, made.lease, settle, now_s)
        if settle.outcome not in _STILL_OF_USE:
            asked.useless.add(made.scored.permit.endpoint.name)
        asked.crashed += settle.outcome is Outcome.CRASHED
        tried = Tried(
            scored=made.scored,
            why=made.cause,
            outcome=settle.why or settle.outcome.value,
            seconds=now_s - made.lease.sent_s if made.lease is not None else 0.0,
            first_byte_s=made.first_byte_s,
            report=made.report,
            answered=settle.outcome is Outcome.ANSWERED,
        )
        asked.record.add(tried)
        self.cause = f"fallback_{settle.outcome.value}"

    def refused(self, number: int, error: IsochroneError) -> None:
        """A try was refused for good, in these words."""
        lease = self.made[number].lease
        if lease is not None and not isinstance(error, Quarantined):
            why = error.reasons.get(lease.site.endpoint.name, "")
            self._reach.ledger.refused(lease, error, why)

    def _request(self, number: int, lease: Lease, remaining_s: float) -> Request:
        asked = self._asked.exchange.request
        headers = upstream_headers(
            asked.headers,
            self._asked.query,
            lease.site.endpoint.region,
            remaining_s=remaining_s,
            number=number,
            sequence=b"%s=%d" % (self._reach.sender, lease.sequence),
            client=self._reach.client_address(asked.peer, asked.headers),
        )
        method = "GET" if asked.method == "HEAD" else asked.method  # not every server takes HEAD
        return Request(method, asked.path, headers, asked.body, query=asked.query)

    def _close(self, made: Try, lease: Lease, settle: Settle, now_s: float) -> None:
        ledger = self._reach.ledger
        if made.worked and made.first_byte_s is not None and settle.outcome is Outcome.ANSWERED:
            ledger.timed(lease, made.first_byte_s, now_s)
        ledger.close(lease, settle.outcome, now_s, settle.retry_after_s)
        of_inputs = made.status == HTTPStatus.INSUFFICIENT_STORAGE and _is_known_warm(lease)
        infers = self._asked.query.action == "infer"
        if settle.outcome is Outcome.UNABLE and infers and not of_inputs:
            ledger.lacks(lease, now_s)


def _is_known_warm(lease: Lease) -> bool:
    """Its report says so: a refusal for want of room is then about the inputs, not the model."""
    holding = lease.holding
    return lease.site.endpoint.reports and holding is not None and holding.state is ModelState.WARM


def _is_of(report: CallReport, endpoint: Endpoint) -> bool:
    """It names no other endpoint and no other region."""
    name_fits = not report.name or report.name == endpoint.name
    return name_fits and (not report.region or report.region == endpoint.region)
