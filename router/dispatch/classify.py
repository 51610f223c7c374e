"""What the head of an answer, or the loss of one, says of the endpoint that was asked."""

import re
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from http import HTTPStatus

from isochrone.router.errors import (
    BadRequest,
    IsochroneError,
    NoSpace,
    Quarantined,
    TooLarge,
    Unavailable,
    Unloadable,
    UnusableAnswer,
)
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Cause
from isochrone.router.wire.http import Headers, first
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import Problem

_OF_THE_ROUTER = frozenset({401, 407, 451})
"""From a server that is none of ours: it does not let the router in (clients' keys are not passed
on), or may not serve this. A client that got such a status would take it for the router's own."""
HOLD_BYTES = 1 << 20
"""Answers up to this length are held until they are whole."""
LONGEST_RETRY_S = 60.0
"""An endpoint that is full is asked again after this long at the latest, whatever it says."""

_SECONDS = re.compile(rb"[0-9]+(\.[0-9]*)?")
_LONGEST_DATE = 64

_OF_STATUS = {
    404: Outcome.UNABLE,  # it does not serve this model after all; another may
    421: Outcome.UNABLE,
    501: Outcome.UNABLE,  # its package is broken there
    507: Outcome.UNABLE,
    429: Outcome.BUSY,
    503: Outcome.BUSY,
    408: Outcome.LATE,  # the deadline that went with the request has passed, if it has
    504: Outcome.LATE,
}
OF_LOSS = {
    Cause.REFUSED: Outcome.REFUSED,
    Cause.LOCAL: Outcome.UNSENT,
    Cause.RESET: Outcome.CRASHED,
    Cause.MALFORMED: Outcome.FAILED,
    Cause.TIMEOUT: Outcome.LATE,
}
MAY_HAVE_RUN = frozenset({Outcome.FAILED, Outcome.CRASHED, Outcome.LATE})
"""Asking another after one of these may do the work twice."""
TURNED_AWAY = frozenset({Outcome.BUSY, Outcome.UNABLE, Outcome.QUARANTINED})
"""Nothing has run, as far as the endpoint can be believed."""
REFUSALS: Mapping[str, type[IsochroneError]] = {
    one.code: one for one in (NoSpace, Quarantined, Unavailable, Unloadable)
}
"""What an endpoint refuses for good is told to the client in its own words, by code."""
_OF_REFUSING_STATUS: Mapping[int, type[IsochroneError]] = {501: Unloadable, 507: NoSpace}
"""What these say without a code of ours."""
_REFUSAL_BYTES = 64 << 10


def of_answer(status: int, endpoint: Endpoint, *, reported: bool, again_s: float | None) -> Outcome:
    """What the head of an answer says of the endpoint that was asked.

    `reported`: a valid load report came with it; `again_s` is its Retry-After. An endpoint that
    reports puts a report on every answer, so something else has answered without one: that counts
    as a failure, unless the status alone says that nothing was done. (Of the cloud tier, the
    proxies before an ingress refuse requests in their own words.)
    """
    outcome = of_status(status)
    if status in _OF_THE_ROUTER and not endpoint.reports:
        return Outcome.UNABLE
    if endpoint.reports and not reported:
        by_a_proxy = endpoint.tier is Tier.CLOUD and status >= HTTPStatus.BAD_REQUEST
        return Outcome.FAILED if outcome is Outcome.ANSWERED and not by_a_proxy else outcome
    if status == HTTPStatus.INSUFFICIENT_STORAGE and again_s is not None:
        return Outcome.BUSY  # the model fits once others have gone
    if status == HTTPStatus.SERVICE_UNAVAILABLE and again_s is None and endpoint.reports:
        return Outcome.UNABLE  # an agent that may serve it later says when
    return outcome


def of_status(status: int) -> Outcome:
    """What a status says of the endpoint; a client's own mistake is an answer."""
    known = _OF_STATUS.get(status)
    if known is not None:
        return known
    if status >= 500 or 300 <= status < 400:  # we follow nobody elsewhere
        return Outcome.FAILED
    return Outcome.ANSWERED


def retry_after_s(headers: Headers, wall: Clock) -> float | None:
    """Seconds until the endpoint wants to be asked again, from either form of the field.

    A date (RFC 9110 §10.2.3) counts from the answer's own `Date`, else from `wall`. None where the
    field is absent, or neither a number nor a date.
    """
    value = first(headers, b"retry-after")
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return min(float(value), LONGEST_RETRY_S)
    until_s = _instant_s(value)
    if until_s is None:
        return None
    sent_s = _instant_s(first(headers, b"date"))
    left_s = until_s - (wall() if sent_s is None else sent_s)
    return min(max(0.0, left_s), LONGEST_RETRY_S)


def _instant_s(value: bytes | None) -> float | None:
    """An HTTP date in seconds since 1970."""
    if value is None or len(value) > _LONGEST_DATE:
        return None
    try:
        parts = parsedate_tz(value.decode("ascii"))
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError, IndexError):  # as many dates are garbage as there are texts
        return None


def explains(headers: Headers) -> bool:
    """A short JSON body follows the head of a refusal."""
    length = first(headers, b"content-length")
    if length is None or not 0 < int(length) <= _REFUSAL_BYTES:
        return False
    return b"json" in (first(headers, b"content-type") or b"").lower()


def explained(body: bytes) -> Problem | None:
    """What an endpoint says of its refusal; None where the body has no `error`."""
    try:
        return read_json(body, Problem, "refusal")
    except (BadRequest, TooLarge):
        return None


def refusal_for_good(
    status: int, problem: Problem | None, *, reports: bool
) -> IsochroneError | None:
    """What a client is told of an endpoint that cannot serve the model (`Outcome.UNABLE`).

    None: it may before long, as the next report of an endpoint that reports will tell.
    """
    text = f"the endpoint answered {status}" if problem is None else problem.error
    kind = REFUSALS.get(problem.code) if problem is not None else None
    kind = kind or _OF_REFUSING_STATUS.get(status)
    if kind is not None:
        return kind(text, reasons=None if problem is None else problem.reasons)
    return None if reports else UnusableAnswer("no endpoint gave a usable answer")


def may_be_held(headers: Headers) -> bool:
    length = first(headers, b"content-length")
    return length is not None and int(length) <= HOLD_BYTES
