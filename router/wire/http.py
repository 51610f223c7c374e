"""The HTTP message as the core sees it: no framework, header names in lower case."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

T = TypeVar("T")

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
    the head had arrived. Its header fields do not change once one of them was asked for.
    """

    method: str
    path: str
    headers: Headers
    body: bytes = b""
    query: str = ""
    peer: str = ""
    received_s: float = 0.0
    _firsts: dict[bytes, bytes] | None = field(default=None, compare=False, repr=False)
    _read: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header field; `name` is in lower case."""
        firsts = self._firsts
        if firsts is None:
            firsts = self._firsts = dict(reversed(self.headers))
        return firsts.get(name)

    def of_head(self, read: Callable[[Headers], T]) -> T:
        """What `read` makes of the header fields; of equal heads that were recognised, once."""
        if read in self._read:
            return cast(T, self._read[read])
        found = self._read[read] = read(self.headers)
        return found

    def again(self, body: bytes, peer: str, received_s: float) -> "Request":
        """The same head with another body, come at another time."""
        self.header(b"")  # so that they share what is found there
        return Request(
            self.method,
            self.path,
            self.headers,
            body,
            self.query,
            peer,
            received_s,
            self._firsts,
            self._read,
        )


@dataclass(slots=True)
class Response:
    """One HTTP answer; framing headers (length, connection) are the listener's.

    `end_code`, asked after the last chunk of a streamed body, is the code of the error that ended
    it; empty: none did.
    """

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: Body = b""
    end_code: Callable[[], str] = str
