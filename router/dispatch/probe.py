"""Asking endpoints how they are, and waking cold ones: the control calls to an endpoint."""

from collections.abc import Callable
from http import HTTPStatus

import msgspec

from router.dispatch.event import Answer, Chunk, End, Head, Lost
from router.dispatch.upstream import Call, Upstream
from router.fleet.endpoint import Endpoint
from router.fleet.ledger import Ledger
from router.fleet.site import Site
from router.policy.law import Permit
from router.process.clock import Clock
from router.wire.http import Request
from router.wire.report import decode_endpoint_report

_REPORT_BYTES = 1 << 20


class Prober:
    """Probes whoever is due, at most one probe per endpoint at a time.

    `condemned` is told when nobody should wait at an endpoint any more, and why.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        upstream: Callable[[Endpoint], Upstream],
        condemned: Callable[[str, str], None],
        clock: Clock,
        interval_s: float,
        timeout_s: float,
    ) -> None:
        self._ledger = ledger
        self._upstream = upstream
        self._condemned = condemned
        self._clock = clock
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._under_way: set[_ControlCall] = set()

    def sweep(self, now_s: float) -> None:
        """Give up on what is late, then ask whoever is due."""
        for call in [c for c in self._under_way if now_s - c.sent_s > self._timeout_s]:
            call.give_up()
        for site in self._ledger.due(now_s, self._interval_s):
            self._ledger.probe_sent(site, now_s)
            path = "/isochrone/report" if site.endpoint.reports else "/v2/health/ready"
            self._ask(site.endpoint, Request("GET", path, []), self._settle_of(site))

    def wake(self, permit: Permit, model: str, version: str) -> None:
        """Ask a cold endpoint to load a model; whatever it answers, its next report tells more."""
        self._ledger.woken(permit.endpoint, model, version, self._clock())
        body = msgspec.json.encode({"model": model, "version": version})
        headers = [(b"content-type", b"application/json")]
        self._ask(permit.endpoint, Request("POST", "/isochrone/wake", headers, body), _ignore)

    def _ask(self, endpoint: Endpoint, request: Request, settle: "_Settle") -> None:
        call = _ControlCall(self._clock, self._under_way, settle)
        self._under_way.add(call)
        call.send(self._upstream(endpoint), request)

    def _settle_of(self, site: Site) -> "_Settle":
        def settle(body: bytes | None, rtt_s: float) -> None:
            if body is not None and not site.endpoint.reports:
                self._ledger.probe_ready(site, rtt_s, self._clock())
                return
            report = decode_endpoint_report(body) if body is not None else None
            if report is not None:
                self._ledger.probe_answered(site, report, rtt_s, self._clock())
                return
            if self._ledger.probe_missed(site):
                self._condemned(site.endpoint.name, site.out or "")

        return settle


_Settle = Callable[[bytes | None, float], None]
"""What to do with the body of a 200 (None: there was none) and the seconds until its first byte."""


class _ControlCall:
    """One control request under way; it settles exactly once."""

    __slots__ = (
        "_body",
        "_call",
        "_clock",
        "_rtt_s",
        "_settle",
        "_size",
        "_status",
        "_with",
        "sent_s",
    )

    def __init__(self, clock: Clock, under_way: "set[_ControlCall]", settle: _Settle) -> None:
        self._clock = clock
        self._with = under_way
        self._settle = settle
        self._call: Call | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._status = 0
        self._rtt_s = 0.0
        self.sent_s = clock()

    def send(self, upstream: Upstream, request: Request) -> None:
        self._call = upstream.send(request, self._heard)

    def give_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._end(None)

    def _heard(self, event: Answer) -> None:
        match event:
            case Head(status):
                self._status = status
                self._rtt_s = self._clock() - self.sent_s
            case Chunk(data):
                self._size += len(data)
                if self._size <= _REPORT_BYTES:
                    self._body.append(data)
            case End():
                whole = self._status == HTTPStatus.OK and self._size <= _REPORT_BYTES
                self._end(b"".join(self._body) if whole else None)
            case Lost():
                self._end(None)

    def _end(self, body: bytes | None) -> None:
        if self in self._with:
            self._with.discard(self)
            self._settle(body, self._rtt_s)


def _ignore(body: bytes | None, rtt_s: float) -> None:
    del body, rtt_s
