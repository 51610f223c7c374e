"""HTTP answers as bytes: heads, and the refusals that the listener itself sends."""

from functools import lru_cache
from http import HTTPStatus

import msgspec

from isochrone.router.http.request_head import Refusal
from isochrone.router.wire.headers import END, REQUEST_ID
from isochrone.router.wire.http import Headers
from isochrone.router.wire.problem import Problem

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_LISTENERS = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"}
)
"""Only the listener writes these fields."""


def encode_head(status: int, headers: Headers, *own: bytes) -> bytes:
    """The head of an answer; `own` holds the listener's fields, each a whole line or empty.

    Raises:
        ValueError: a field contains a line end.
    """
    parts = [_status_line(status)]
    lines = 2
    for name, value in headers:
        if name not in _LISTENERS:
            parts += (name, b": ", value, b"\r\n")
            lines += 1
    for line in own:
        if line:
            parts.append(line)
            lines += 1
    parts.append(b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise ValueError("a header field has a line end in it")
    return head


def encode_end(code: str) -> bytes:
    """The last chunk, with the code of the error that ended the body (RFC 9112 §7.1.2)."""
    return b"0\r\n%b: %b\r\n\r\n" % (END, code.encode("ascii"))


def encode_refusal(refusal: Refusal, request_id: bytes, more: Headers = ()) -> bytes:
    """A whole answer with `connection: close` and `more` fields."""
    body = msgspec.json.encode(Problem(refusal.message, refusal.code))
    fields = [(b"content-type", b"application/json"), (REQUEST_ID, request_id), *more]
    if refusal.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % refusal.retry_after_s))
    head = encode_head(
        refusal.status,
        fields,
        b"content-length: %d\r\n" % len(body),
        b"connection: close\r\n",
    )
    return head + body


@lru_cache(maxsize=1024)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # an unregistered status of an endpoint
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")
