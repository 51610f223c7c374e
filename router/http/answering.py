"""The answer to one request: its framing, and the check that there is exactly one."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from isochrone.router.http.answer import CONTINUE, LAST_CHUNK, encode_end, encode_head
from isochrone.router.wire.http import Headers, Request, first


class Carrier(Protocol):
    """The connection that an answer goes out on."""

    @property
    def date(self) -> bytes:
        """The Date line of this second."""
        ...

    @property
    def stays(self) -> bool:
        """The connection accepts more requests."""
        ...

    @property
    def stalled(self) -> bool:
        """The write buffer is full: the client reads too slowly."""
        ...

    def round_trip_s(self) -> float | None:
        """The kernel's round trip to the peer."""
        ...

    def send(self, head: bytes, body: bytes = b"", tail: bytes = b"") -> None:
        """Write these to the client, in one write unless the body is large."""
        ...

    def ended(self, *, keep: bool) -> None:
        """The exchange is over; keep the connection for the next request, or close it."""
        ...

    def cut(self) -> None:
        """The exchange is over: drop the connection at once."""
        ...


class _State(Enum):
    OPEN = auto()
    STREAMING = auto()
    ENDED = auto()
    GONE = auto()


class HttpExchange:
    """One request of one connection and its answer: an `exchange.Exchange`."""

    __slots__ = (
        "_carrier",
        "_chunked",
        "_gone",
        "_keep",
        "_left",
        "_pause",
        "_resume",
        "_silent",
        "_state",
        "request",
    )

    def __init__(self, carrier: Carrier, request: Request) -> None:
        self._carrier = carrier
        self.request = request
        self._state = _State.OPEN
        self._keep = False
        self._silent = False
        self._chunked = False
        self._left: int | None = None
        self._gone: Callable[[], object] | None = None
        self._pause: Callable[[], None] | None = None
        self._resume: Callable[[], None] | None = None

    @property
    def gone(self) -> bool:
        """The client has left, or the answer was aborted."""
        return self._state is _State.GONE

    @property
    def ends_with_connection(self) -> bool:
        """To the client, what has been sent looks complete if the connection ends now."""
        return not (self._chunked or self.unanswered)

    @property
    def unanswered(self) -> bool:
        """Nothing has been sent."""
        return self._state is _State.OPEN

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        if self._state is not _State.OPEN:
            self._check_gone()
            return
        request, carrier = self.request, self._carrier
        bodiless = status in _BODILESS
        silent = bodiless or request.method == "HEAD"
        length = first(headers, b"content-length") if silent else None
        if length is None and not bodiless:
            length = b"%d" % len(body)
        keep = request.keep_alive and carrier.stays
        head = self._head(status, headers, keep, length)
        self._end(_State.ENDED)
        carrier.send(head, b"" if silent else body)
        carrier.ended(keep=keep)

    def send_interim(self) -> bool:
        """Send 100 (Continue) if no answer has begun and the client knows it (RFC 9110 §15.2).

        A client discards it; a client that has gone answers with a reset.
        """
        may = self.unanswered and self.request.version != "1.0"
        if may:
            self._carrier.send(CONTINUE)
        return may

    def start(self, status: int, headers: Headers) -> None:
        """The head of a streamed answer."""
        if self._state is not _State.OPEN:
            self._check_gone()
            return
        request = self.request
        self._silent = status in _BODILESS or request.method == "HEAD"
        length = first(headers, b"content-length")
        self._left = None if length is None else int(length)
        self._chunked = length is None and request.version != "1.0" and not self._silent
        framed = self._chunked or self._silent or length is not None
        self._keep = request.keep_alive and self._carrier.stays and framed
        head = self._head(status, headers, self._keep, length)
        self._state = _State.STREAMING
        self._carrier.send(head)

    def write(self, chunk: bytes) -> None:
        """A part of a streamed answer; more than announced aborts the connection."""
        if self._state is not _State.STREAMING:
            self._check_gone()
            return
        if self._silent or not chunk:
            return
        if self._chunked:  # RFC 9112 §7.1
            self._carrier.send(b"%x\r\n" % len(chunk), chunk, b"\r\n")
            return
        if self._left is not None:
            if len(chunk) > self._left:
                self.abort()
                return
            self._left -= len(chunk)
        self._carrier.send(chunk)

    def finish(self, code: str = "") -> None:
        """The end of a streamed answer; less than announced aborts the connection.

        `code` goes into a trailer of a chunked answer.
        """
        if self._state is not _State.STREAMING:
            self._check_gone()
            return
        if self._left and not self._silent:
            self.abort()
            return
        self._end(_State.ENDED)
        if self._chunked:
            self._carrier.send(encode_end(code) if code else LAST_CHUNK)
        self._carrier.ended(keep=self._keep)

    def abort(self) -> None:
        """Close the connection without ending the answer."""
        if self._state in (_State.OPEN, _State.STREAMING):
            self._end(_State.GONE)
            self._carrier.cut()

    def round_trip_s(self) -> float | None:
        """The kernel's smoothed round trip to the peer, in seconds; None: no new value."""
        return None if self.gone else self._carrier.round_trip_s()

    def watch(
        self,
        *,
        gone: Callable[[], object],
        pause: Callable[[], None] | None = None,
        resume: Callable[[], None] | None = None,
    ) -> None:
        """Set the callbacks for a client that leaves early, and for one that reads too slowly."""
        if self._state not in (_State.OPEN, _State.STREAMING):
            return
        self._gone, self._pause, self._resume = gone, pause, resume
        if pause is not None and self._carrier.stalled:
            pause()

    def leave(self) -> None:
        """The client has left."""
        if self._state in (_State.OPEN, _State.STREAMING):
            gone = self._gone
            self._end(_State.GONE)
            if gone is not None:
                gone()

    def stall(self, *, stalled: bool) -> None:
        """The client has begun, or stopped, to read too slowly."""
        callback = self._pause if stalled else self._resume
        if callback is not None and self._state in (_State.OPEN, _State.STREAMING):
            callback()

    def _end(self, state: _State) -> None:
        """Enter a final state and release the callbacks."""
        self._state = state
        self._gone = self._pause = self._resume = None

    def _check_gone(self) -> None:
        """Ignore a call after the client has left; any other call out of order is a bug."""
        if self._state is not _State.GONE:
            raise RuntimeError("an exchange is answered once, in order")

    def _head(self, status: int, headers: Headers, keep: bool, length: bytes | None) -> bytes:
        framing = _CHUNKED if self._chunked else b""
        if length is not None:
            framing = b"content-length: %b\r\n" % length
        connection = b""
        if not keep:
            connection = b"connection: close\r\n"
        elif self.request.version == "1.0":  # there, close is the default
            connection = b"connection: keep-alive\r\n"
        return encode_head(status, headers, framing, self._carrier.date, connection)


_BODILESS = frozenset({*range(200), 204, 304})
"""Answers of these statuses have no body (RFC 9110 §6.4.1)."""
_CHUNKED = b"transfer-encoding: chunked\r\n"
