"""The decisions of the last requests by request id, and the access line of a request."""

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs

from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.policy.explain import considered, not_considered

KEPT = 4096
KEPT_BYTES = 16 << 20
RECORD_BYTES, TRIED_BYTES = 2048, 1024
"""Upper bounds of an unexplained record's size: without its attempts, and for each of them."""


class RequestLine(msgspec.Struct, gc=False):
    """The line of a request in the access log: a struct, as it encodes faster than a dict."""

    time: float
    request_id: str
    tenant: str
    model: str
    status: int
    sent: int
    code: str | None
    endpoint: str | None
    why: str
    tries: int
    waited: float
    seconds: float


def access_line(request: RoutedRequest, wall_s: float) -> RequestLine:
    """The line of a request that ended at this wall-clock time."""
    query, code = request.query, request.code
    endpoint, why = None, code
    if request.attempts:
        last = request.attempts[-1]
        endpoint, why = last.endpoint, last.why
    return RequestLine(
        wall_s,
        query.request_id,
        query.tenant,
        query.model,
        request.status,
        request.sent,
        code or None,
        endpoint,
        why,
        request.attempts_count,
        round(request.waited_s, 6),
        round(request.seconds, 6),
    )


class Decisions:
    """The records of the last requests; the oldest are dropped beyond a count and a size.

    An explained decision is kept as JSON: a plan of many candidates is far smaller so. Every other
    record is kept as it is, and becomes JSON only if a client asks for it.
    """

    def __init__(self, policy_fingerprint: str, most_bytes: int = KEPT_BYTES) -> None:
        self._fingerprint = policy_fingerprint
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[RoutedRequest | bytes, float, int]] = OrderedDict()
        self.held_bytes = 0
        """Estimated, of a record by its number of attempts."""

    def keep(self, request: RoutedRequest, wall_s: float) -> None:
        """Keep the record of a request that ended at this wall-clock time."""
        if request.plan.busy:  # used only while the request may queue
            request.plan = structs.replace(request.plan, busy=())
        kept: RoutedRequest | bytes = request
        size = RECORD_BYTES + TRIED_BYTES * len(request.attempts)
        if request.explained is not None:
            kept = msgspec.json.encode(self._decision(request, wall_s))
            size = len(kept)
        request_id = request.query.request_id
        if request_id in self._kept:
            self.held_bytes -= self._kept.pop(request_id)[2]
        self._kept[request_id] = kept, wall_s, size
        self.held_bytes += size
        while len(self._kept) > KEPT or self.held_bytes > self._most_bytes:
            self.held_bytes -= self._kept.popitem(last=False)[1][2]

    def tell(self, request_id: str) -> dict[str, Any] | None:
        """One decision with every candidate and every attempt; None where it is not kept."""
        found = self._kept.get(request_id)
        if found is None:
            return None
        kept, wall_s, _ = found
        if not isinstance(kept, bytes):
            return self._decision(kept, wall_s)
        decision: dict[str, Any] = msgspec.json.decode(kept)
        return decision

    def _decision(self, request: RoutedRequest, wall_s: float) -> dict[str, Any]:
        query = request.query
        return {
            "schema": "isochrone.decision/1",
            "ok": 200 <= request.status < 400,
            "request_id": query.request_id,
            "time": datetime.fromtimestamp(wall_s, UTC).isoformat(),
            "tenant": query.tenant,
            "model": query.model,
            "version": query.version,
            "rule": query.rule,
            "requirement": query.requirement,
            "policy_fingerprint": self._fingerprint,
            "fleet_generation": request.fleet_generation,
            "vantage": "router",
            "why": request.told.why,
            **_candidates(request),
            "attempts": [
                {"endpoint": a.endpoint, "why": a.why, "outcome": a.outcome, "seconds": a.seconds}
                for a in request.attempts
            ],
            "waited": request.waited_s,
            "status": request.status,
            "sent": request.sent,
            "code": request.code or None,
            "seconds": request.seconds,
        }


def _candidates(request: RoutedRequest) -> dict[str, Any]:
    """Every candidate; only those that were tried where the decision was not explained."""
    plan = request.told
    listed = considered(plan)
    if request.explained is None and plan.unexplained:
        by_name = {a.endpoint: a.scored for a in request.attempts}
        attempts = structs.replace(plan, order=tuple(by_name.values()), rejected=())
        listed = considered(attempts) + considered(structs.replace(plan, order=()))
    return {"considered": listed, "not_considered": not_considered(plan)}
