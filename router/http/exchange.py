"""One request and its answer: what a service sees of an HTTP connection."""

from collections.abc import Callable
from typing import Protocol

from isochrone.router.wire.http import Headers, Request


class Exchange(Protocol):
    """One request on one connection, answered exactly once. No method blocks.

    A service calls either `respond`, or `start`, any number of `write`s and `finish`. `abort`
    closes the connection instead, so that the client can tell a cut answer from a whole one. After
    the client has left, every method is a no-op.
    """

    @property
    def request(self) -> Request:
        """The request, complete."""
        ...

    @property
    def gone(self) -> bool:
        """The client has left."""
        ...

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer; the listener adds content-length, date and connection."""
        ...

    def start(self, status: int, headers: Headers) -> None:
        """The head of a streamed answer; chunked, unless it is given a content-length."""
        ...

    def write(self, chunk: bytes) -> None:
        """One chunk of a streamed answer, sent at once."""
        ...

    def finish(self, code: str = "") -> None:
        """The end of a streamed answer; `code` names the error that its last chunk reports."""
        ...

    def abort(self) -> None:
        """Close the connection without ending the answer."""
        ...

    def round_trip_s(self) -> float | None:
        """The kernel's smoothed round trip to the peer, in seconds; None: no new value."""
        ...

    def watch(
        self,
        *,
        gone: Callable[[], object],
        pause: Callable[[], None] | None = None,
        resume: Callable[[], None] | None = None,
    ) -> None:
        """Set the callbacks for a client that leaves early, and for one that reads too slowly."""
        ...


Service = Callable[[Exchange], None]
"""What a listener calls with every complete request, in a protocol callback; it must not block."""
