"""What the head of an answer, or the loss of one, says of the endpoint that was asked."""

from router.dispatch.event import Cause
from router.fleet.outcome import Outcome
from router.wire.http import Headers, first

HOLD_BYTES = 1 << 20
"""Answers up to this length are held until they are whole."""
LONGEST_RETRY_S = 60.0
"""An endpoint that is full is asked again after this long at the latest, whatever it says."""

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
TURNED_AWAY = frozenset({Outcome.BUSY, Outcome.UNABLE})
"""Nothing has run, as far as the endpoint can be believed."""


def of_status(status: int) -> Outcome:
    """What a status says of the endpoint; a client's own mistake is an answer."""
    known = _OF_STATUS.get(status)
    if known is not None:
        return known
    if status >= 500 or 300 <= status < 400:  # we follow nobody elsewhere
        return Outcome.FAILED
    return Outcome.ANSWERED


def retry_after_s(headers: Headers) -> float | None:
    """Seconds; the other form of the field, a date, is not understood (RFC 9110 §10.2.3)."""
    value = first(headers, b"retry-after")
    if value is None or not value.isdigit():
        return None
    return min(float(value), LONGEST_RETRY_S)


def may_be_held(headers: Headers) -> bool:
    length = first(headers, b"content-length")
    return length is not None and int(length) <= HOLD_BYTES
