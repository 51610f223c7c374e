"""Header fields that are dropped and added on the way through; a body never changes."""

import msgspec

from isochrone.router.members.endpoint import Endpoint
from isochrone.router.policy.query import Query
from isochrone.router.upstream.event import Head
from isochrone.router.wire import headers as names
from isochrone.router.wire.http import Headers
from isochrone.router.wire.problem import Problem
from isochrone.router.wire.report import LOAD_HEADER, CallReport

_OURS = b"x-isochrone-"
_CONDITIONS = {
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"range",
}
"""They serve a client's cache; the router needs the complete answer."""
_CLAIMS = {b"forwarded", b"x-forwarded-for", b"x-real-ip"}
"""Claims about the client's address; the router writes the address that it verified."""
_NOT_UPSTREAM = (
    names.HOP_BY_HOP
    | _CONDITIONS
    | _CLAIMS
    | {
        b"host",
        b"content-length",
        b"expect",
        names.REQUEST_ID,
        names.TIMEOUT,
        names.AUTHORIZATION,  # a client's key is for the router alone
        names.API_KEY,
    }
)
_NOT_DOWNSTREAM = names.HOP_BY_HOP | {LOAD_HEADER, names.REQUEST_ID, names.SERVER_TIMING}
_USUAL_CONNECTION = {b"keep-alive", b"Keep-Alive", b"close"}
"""Connection fields that nominate nothing which is not dropped anyway."""
_JSON = (b"content-type", b"application/json")


def upstream_headers(
    headers: Headers,
    query: Query,
    region: str,
    *,
    remaining_s: float,
    number: int,
    sequence: bytes,
    client: str = "",
) -> list[tuple[bytes, bytes]]:
    """The fields of one attempt: the client's own, without those for this hop, and ours.

    `region` is the endpoint's: an endpoint of another region at the same address refuses. `client`
    is the client's address, empty where it is not known.
    """
    kept = _kept(headers, _NOT_UPSTREAM)
    kept += (
        (names.REQUEST_ID, query.request_id.encode()),
        (names.TIMEOUT, b"%.3f" % max(0.001, remaining_s)),
        (names.PRIORITY, b"%d" % query.priority),
        (names.TENANT, query.tenant.encode()),
        (names.REGION, region.encode()),
        (names.ATTEMPT, b"%d" % number),
        (names.SEQUENCE, sequence),
    )
    if client:
        kept.append((names.FORWARDED_FOR, client.encode("latin-1", "replace")))
    return kept


def downstream_headers(
    head: Head,
    request_id: str,
    endpoint: Endpoint,
    *,
    reason: str,
    tries: int,
    total_s: float,
    route_s: float,
    report: CallReport | None,
) -> list[tuple[bytes, bytes]]:
    """The fields of the answer: the endpoint's own, without those for us, its origin, and how the
    time was spent, in milliseconds (W3C Server Timing)."""
    kept = _kept(head.headers, _NOT_DOWNSTREAM)
    wait_s, infer_s = (report.wait_s, report.infer_s) if report is not None else (0.0, 0.0)
    net_s = max(0.0, total_s - route_s - wait_s - infer_s)
    timing = b"route;dur=%.3f, net;dur=%.3f, wait;dur=%.3f, infer;dur=%.3f" % (
        route_s * 1000,
        net_s * 1000,
        wait_s * 1000,
        infer_s * 1000,
    )
    kept += (
        (names.REQUEST_ID, request_id.encode()),
        (names.ENDPOINT, endpoint.name.encode()),
        (names.REGION, endpoint.region.encode()),
        (names.REASON, reason.encode()),
        (names.ATTEMPTS, b"%d" % tries),
        (names.SERVER_TIMING, timing),
    )
    return kept


def readable_refusal(head: Head, body: bytes) -> tuple[Head, bytes]:
    """An endpoint's refusal in the form of ours: JSON with `error`."""
    if head.status < 400 or _is_json(head.headers):
        return head, body
    problem = Problem(f"the endpoint refused the request ({head.status})", "refused")
    return Head(head.status, [_JSON]), msgspec.json.encode(problem)


def _kept(headers: Headers, dropped: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The fields that go on: not those of this hop, nor those that a Connection field nominates
    for it (RFC 9110 §7.6.1), nor any that only the router writes."""
    kept = []
    nominated: list[bytes] = []
    for field in headers:
        name, value = field
        if name not in dropped:
            if not name.startswith(_OURS):
                kept.append(field)
        elif name == b"connection" and value not in _USUAL_CONNECTION:
            nominated += value.lower().split(b",")
    if nominated:
        names_nominated = {part.strip() for part in nominated}
        kept = [field for field in kept if field[0] not in names_nominated]
    return kept


def _is_json(headers: Headers) -> bool:
    return any(n == b"content-type" and b"json" in v.lower() for n, v in headers)
