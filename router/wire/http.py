"""The HTTP message as the core sees it: no framework, header names in lower case."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields in the order of the message, names in lower case."""

Body = bytes | AsyncIterator[bytes]
"""A whole body, or its chunks as they come."""


def first(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header field; `name` is in lower case."""
    for key, value in headers:
        if key == name:
            return value
    return None


@dataclass(slots=True)
class Request:
    """One HTTP request, its body complete.

    `path` is percent-decoded and without the query; `peer` is the address of the TCP peer, which
    is not the client where a proxy stands between; `received_s` is the monotonic instant at which
    the head had arrived.
    """

    method: str
    path: str
    headers: Headers
    body: bytes = b""
    query: str = ""
    peer: str = ""
    received_s: float = 0.0

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header field; `name` is in lower case."""
        return first(self.headers, name)


@dataclass(slots=True)
class Response:
    """One HTTP answer; framing headers (length, connection) are the listener's."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: Body = b""
