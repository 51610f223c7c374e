"""Asking endpoints how they are, waking cold ones, and testing what may have recovered.

All of it is beside the requests: a probe asks for a report, a sample has a model run its own
warm-up input. So nobody's request is spent on finding out how slow or how broken an endpoint is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from isochrone.router.config import ProbeConfig
from isochrone.router.fleet.holding import Holding
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.site import Site
from isochrone.router.fleet.timetable import LATE_FACTOR
from isochrone.router.law.permit import Permit
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Answer, Cause, Chunk, End, Head, Lost
from isochrone.router.upstream.upstream import Call, Upstream
from isochrone.router.wire.http import Request, first
from isochrone.router.wire.report import (
    LOAD_HEADER,
    WIRE_HEADER,
    WIRE_VERSION,
    decode_call_report,
    decode_endpoint_report,
    decode_waking,
)

_REPORT_BYTES = 1 << 20
_JSON = [(b"content-type", b"application/json")]
_READS = [(WIRE_HEADER, b"%d" % WIRE_VERSION)]
_NO_SAMPLES = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
_NOT_NOW = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, 503})
_BURST = 8.0
PATIENCE_S = 4.0
"""No probe is waited for any longer, unless it was so configured."""
_DOUBLINGS = 4
STALLED_S = 0.2
"""Sweeps are some hundredths of a second apart; more than this is a pause of the process."""


@dataclass(frozen=True, slots=True)
class Probing:
    """How much is asked beside the requests.

    Every endpoint in use that was not heard of for `interval_s` is asked (the others less often),
    and given up after `timeout_s`. One good probe or answer is news for `fresh_s`: beyond that, the
    best candidates are asked as well, up to `per_request` probes for each request, the former
    included. What failed is sampled every `sample_s`, and so is, after `explore_s` without a
    request, what would be the best if only it were as quick as who is (infinite: never).
    """

    interval_s: float = 1.0
    timeout_s: float = 0.45
    fresh_s: float = 0.25
    per_request: float = 0.25
    sample_s: float = 1.0
    sample_timeout_s: float = 10.0
    explore_s: float = 10.0

    @classmethod
    def of(cls, config: ProbeConfig) -> "Probing":
        """As configured."""
        return cls(
            interval_s=config.interval_s,
            timeout_s=config.timeout_s,
            fresh_s=config.fresh_s,
            per_request=config.per_request,
            explore_s=config.explore_s or math.inf,
        )


class Prober:
    """Probes whoever is due, at most one probe per endpoint at a time.

    `condemned` is told when nobody should wait at an endpoint any more, and why; `heard` when one
    has said how it is, or what failed there was tested.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        upstream: Callable[[Endpoint], Upstream],
        condemned: Callable[[str, str], None],
        heard: Callable[[Site], None],
        clock: Clock,
        probing: Probing,
    ) -> None:
        self._ledger = ledger
        self._upstream = upstream
        self._condemned = condemned
        self._heard = heard
        self._clock = clock
        self._probing = probing
        self._under_way: dict[_ControlCall, None] = {}
        self._swept_s = clock()
        self._sent = 0
        self._tokens = 0.0

    def sweep(self, now_s: float) -> None:
        """Give up on what is late, then ask whoever is due.

        Of time in which this process itself did not run, no answer could have made use.
        """
        stalled_s = now_s - self._swept_s
        self._swept_s = now_s
        if stalled_s > STALLED_S:
            for call in self._under_way:
                call.due_s += stalled_s
        for call in [c for c in self._under_way if now_s > c.due_s]:
            call.give_up()
        for site in self._ledger.due(now_s, self._probing.interval_s):
            self._borrow()
            self._probe(site, now_s)
        self._earn()
        most = int(self._tokens)
        if most > 0:
            for site in self._ledger.rivals(now_s, self._probing.fresh_s, most):
                self._tokens -= 1
                self._probe(site, now_s)
        for holding in self._ledger.suspects(now_s, self._probing.sample_s):
            self._sample(holding, now_s)

    def explore(self, now_s: float) -> None:
        """Sample who has not been used for long and may be better than it is thought to be.

        One at a time, and on credit: of what requests have paid for `sweep` leaves nothing.
        """
        for holding in self._ledger.unused(now_s, self._probing.explore_s)[:1]:
            self._borrow()
            self._sample(holding, now_s)

    def wake(self, permit: Permit, model: str, version: str) -> None:
        """Ask a cold endpoint to load a model; it says how long that should take."""
        self._ledger.woken(permit.endpoint, model, version, self._clock())
        body = msgspec.json.encode({"model": model, "version": version})
        settle = self._wake_ended(permit.endpoint, model, version)
        self._ask(permit.endpoint, Request("POST", "/isochrone/wake", _JSON, body), settle)

    def _borrow(self) -> None:
        """What cannot wait for requests to pay for it, up to a limit that is soon paid back."""
        self._tokens = max(self._tokens - 1, -_BURST)

    def _earn(self) -> None:
        """Requests pay for probes."""
        sent = self._ledger.sequence
        self._tokens += self._probing.per_request * (sent - self._sent)
        self._tokens = min(self._tokens, _BURST)
        self._sent = sent

    def _probe(self, site: Site, now_s: float) -> None:
        self._ledger.probe_sent(site, now_s)
        path = "/isochrone/report" if site.endpoint.reports else "/v2/health/ready"
        request = Request("GET", path, _READS)
        self._ask(site.endpoint, request, self._probe_ended(site), self._patience_s(site))

    def _patience_s(self, site: Site) -> float:
        """How long a probe of it may take: by its round trip, longer once it is out.

        So a way that has become longer than any probe waited for is not taken for dead for ever.
        """
        patience_s = max(self._probing.timeout_s, site.probe_rtt_most_s)
        factor = 1 << min(max(0, site.health.missed - 1), _DOUBLINGS)
        return max(self._probing.timeout_s, min(factor * patience_s, PATIENCE_S))

    def _sample(self, holding: Holding, now_s: float) -> None:
        holding.sampled_s = now_s
        holding.sampling = True
        body = msgspec.json.encode({"model": holding.model, "version": holding.version})
        request = Request("POST", "/isochrone/sample", _JSON, body)
        timeout_s = max(self._probing.sample_timeout_s, LATE_FACTOR * holding.service.mean_s)
        self._ask(holding.endpoint, request, self._sample_ended(holding), timeout_s)

    def _ask(
        self,
        endpoint: Endpoint,
        request: Request,
        settle: "_Settle",
        timeout_s: float | None = None,
    ) -> None:
        due_s = self._clock() + (timeout_s or self._probing.timeout_s)
        call = _ControlCall(self._clock, self._under_way, settle, due_s)
        self._under_way[call] = None
        call.send(self._upstream(endpoint), request)

    def _probe_ended(self, site: Site) -> "_Settle":
        def settle(head: Head | None, body: bytes | None, rtt_s: float) -> None:
            if head is UNSENT:
                self._ledger.probe_unsent(site)
                return
            good = head is not None and head.status == HTTPStatus.OK and body is not None
            if good and not site.endpoint.reports:
                self._ledger.probe_ready(site, rtt_s, self._clock())
                self._heard(site)
                return
            report = decode_endpoint_report(body) if good and body is not None else None
            if report is not None:
                self._ledger.probe_answered(site, report, rtt_s, self._clock())
                self._heard(site)
                return
            if self._ledger.probe_missed(site, self._clock(), silent=head is SILENT):
                self._condemned(site.endpoint.name, site.out or "")

        return settle

    def _wake_ended(self, endpoint: Endpoint, model: str, version: str) -> "_Settle":
        def settle(head: Head | None, body: bytes | None, rtt_s: float) -> None:
            del rtt_s
            taken = head is not None and head.status == HTTPStatus.ACCEPTED
            waking = decode_waking(body) if taken and body is not None else None
            if waking is not None:
                self._ledger.waking(endpoint, model, version, waking, self._clock())

        return settle

    def _sample_ended(self, holding: Holding) -> "_Settle":
        def settle(head: Head | None, body: bytes | None, rtt_s: float) -> None:
            del rtt_s
            holding.sampling = False
            if head is UNSENT:
                return
            if head is SILENT and not holding.breaker.open:
                return  # it was we who gave up: who has not failed so far may only be slow
            if head is not None and head.status in _NO_SAMPLES:
                holding.samples = False
                return
            if head is not None and head.status in _NOT_NOW:
                return
            good = head is not None and head.status == HTTPStatus.OK and body is not None
            value = first(head.headers, LOAD_HEADER) if good and head is not None else None
            report = decode_call_report(value) if value is not None else None
            self._ledger.sampled(holding, report, self._clock())
            self._heard(holding.site)

        return settle


_Settle = Callable[[Head | None, bytes | None, float], None]
"""What to do with an answer's head (None: it was lost; `UNSENT`: nothing could be sent; `SILENT`:
it was given up), its body (None: it did not end well) and the seconds until its first byte.
"""
UNSENT, SILENT = Head(0, []), Head(0, [])


class _ControlCall:
    """One control request under way; it settles exactly once."""

    __slots__ = (
        "_body",
        "_call",
        "_clock",
        "_head",
        "_rtt_s",
        "_sent_s",
        "_settle",
        "_size",
        "_with",
        "due_s",
    )

    def __init__(
        self,
        clock: Clock,
        under_way: "dict[_ControlCall, None]",
        settle: _Settle,
        due_s: float,
    ) -> None:
        self._clock = clock
        self._with = under_way
        self._settle = settle
        self._call: Call | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._head: Head | None = None
        self._rtt_s = 0.0
        self._sent_s = clock()
        self.due_s = due_s

    def send(self, upstream: Upstream, request: Request) -> None:
        self._call = upstream.send(request, self._heard)

    def give_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._head = SILENT
        self._end(None)

    def _heard(self, events: Sequence[Answer]) -> None:
        for event in events:
            match event:
                case Head():
                    self._head = event
                    self._rtt_s = self._clock() - self._sent_s
                case Chunk(data):
                    self._size += len(data)
                    if self._size <= _REPORT_BYTES:
                        self._body.append(data)
                case End():
                    self._end(b"".join(self._body) if self._size <= _REPORT_BYTES else None)
                case Lost(cause):
                    if cause is Cause.LOCAL:
                        self._head = UNSENT
                    self._end(None)

    def _end(self, body: bytes | None) -> None:
        if self in self._with:
            del self._with[self]
            self._settle(self._head, body, self._rtt_s)
