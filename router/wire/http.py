"""The HTTP message as the core sees it: no framework, header names in lower case."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

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


class Request(msgspec.Struct):
    """One HTTP request, its body complete.

    `path` is percent-decoded and without the query; `peer` is the address of the TCP peer, which
    is not the client where a proxy stands between; `received_s` is the monotonic instant at which
    the head had arrived. `version` is "1.1" or "1.0"; `keep_alive` says that the sender accepts
    another answer on the connection. `memo` keeps what was
    computed from the head alone: requests whose equal heads were recognised share it.
    """

    method: str
    path: str
    headers: Headers
    body: bytes = b""
    query: str = ""
    peer: str = ""
    received_s: float = 0.0
    version: str = "1.1"
    keep_alive: bool = True
    memo: dict[object, Any] = {}

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header field; `name` is in lower case."""
        firsts: dict[bytes, bytes] | None = self.memo.get(first)
        if firsts is None:
            firsts = self.memo[first] = dict(reversed(self.headers))
        return firsts.get(name)

    def of_head(self, read: Callable[[Headers], T]) -> T:
        """`read(headers)`, computed once and kept in `memo`."""
        memo = self.memo
        if read not in memo:
            memo[read] = read(self.headers)
        found: T = memo[read]
        return found


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
