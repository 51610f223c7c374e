"""The answering half of an exchange: framing, and the promise of exactly one answer."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from isochrone.router.http.answer import CONTINUE, LAST_CHUNK, encode_chunk, encode_end, encode_head
from isochrone.router.http.received import Received
from isochrone.router.wire.http import Headers, first


class Carrier(Protocol):
    """The connection that an answer goes out on."""

    @property
    def date(self) -> bytes:
        """The Date line of this second."""
        ...

    @property
    def stays(self) -> bool:
        """More requests will be taken on this connection."""
        ...

    @property
    def stalled(self) -> bool:
        """The client reads too slowly just now."""
        ...

    def round_trip_s(self) -> float | None:
        """The kernel's round trip to the peer."""
        ...

    def send(self, data: bytes | memoryview) -> None:
        """Write to the client."""
        ...

    def ended(self, *, keep: bool) -> None:
        """The present exchange is over; the connection is kept for the next, or closed."""
        ...

    def cut(self) -> None:
        """The present exchange is over, and the connection with it, at once."""
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
        "_received",
        "_resume",
        "_silent",
        "_state",
        "request",
    )

    def __init__(self, carrier: Carrier, received: Received) -> None:
        self._carrier = carrier
        self._received = received
        self.request = received.request
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
        """The client has left, or the answer was given up."""
        return self._state is _State.GONE

    @property
    def ends_with_connection(self) -> bool:
        """What has been sent looks whole to the client if the connection ends now."""
        return not (self._chunked or self.unanswered)

    @property
    def unanswered(self) -> bool:
        """Nothing has left for the client yet."""
        return self._state is _State.OPEN

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer; a short one in one write."""
        if not self._may(_State.OPEN):
            return
        bare = _is_bare(status)
        silent = bare or self.request.method == "HEAD"
        length = first(headers, b"content-length") if silent else None
        if length is None and not bare:
            length = b"%d" % len(body)
        keep = self._received.keep_alive and self._carrier.stays
        head = self._head(status, headers, keep, _length_line(length))
        self._ends(_State.ENDED)
        if len(body) <= _JOINED_BYTES or silent:
            self._carrier.send(head if silent else head + body)
        else:
            self._carrier.send(head)
            self._carrier.send(memoryview(body))  # what is left of it is copied once
        self._carrier.ended(keep=keep)

    def send_interim(self) -> bool:
        """Send 100 (Continue) if no answer has begun; False where that may not be (RFC 9110 §15.2).

        A client discards it; one that has gone answers it with a reset.
        """
        may = self.unanswered and self._received.chunks
        if may:
            self._carrier.send(CONTINUE)
        return may

    def start(self, status: int, headers: Headers) -> None:
        """The head of a streamed answer."""
        if not self._may(_State.OPEN):
            return
        self._silent = _is_bare(status) or self.request.method == "HEAD"
        length = first(headers, b"content-length")
        self._left = None if length is None else int(length)
        self._chunked = length is None and self._received.chunks and not self._silent
        framed = self._chunked or self._silent or length is not None
        self._keep = self._received.keep_alive and self._carrier.stays and framed
        framing = _CHUNKED if self._chunked else _length_line(length)
        head = self._head(status, headers, self._keep, framing)
        self._state = _State.STREAMING
        self._carrier.send(head)

    def write(self, chunk: bytes) -> None:
        """A part of a streamed answer; more than was announced cuts the connection."""
        if not self._may(_State.STREAMING) or self._silent or not chunk:
            return
        if self._chunked:
            self._carrier.send(encode_chunk(chunk))
            return
        if self._left is not None:
            if len(chunk) > self._left:
                self.abort()
                return
            self._left -= len(chunk)
        self._carrier.send(chunk)

    def finish(self, code: str = "") -> None:
        """The end of a streamed answer; less than was announced cuts the connection.

        `code` goes into a trailer, where there are chunks.
        """
        if not self._may(_State.STREAMING):
            return
        if self._left and not self._silent:
            self.abort()
            return
        self._ends(_State.ENDED)
        if self._chunked:
            self._carrier.send(encode_end(code) if code else LAST_CHUNK)
        self._carrier.ended(keep=self._keep)

    def abort(self) -> None:
        """Close the connection without ending the answer."""
        if self._state in (_State.OPEN, _State.STREAMING):
            self._ends(_State.GONE)
            self._carrier.cut()

    def round_trip_s(self) -> float | None:
        """The kernel's smoothed round trip to the peer, in seconds; None where there is no news."""
        return None if self.gone else self._carrier.round_trip_s()

    def watch(
        self,
        *,
        gone: Callable[[], object],
        pause: Callable[[], None] | None = None,
        resume: Callable[[], None] | None = None,
    ) -> None:
        """Be told once when the client leaves early, and when it reads too slowly."""
        if self._state not in (_State.OPEN, _State.STREAMING):
            return
        self._gone, self._pause, self._resume = gone, pause, resume
        if pause is not None and self._carrier.stalled:
            pause()

    def leave(self) -> None:
        """The client has left."""
        if self._state in (_State.OPEN, _State.STREAMING):
            gone = self._gone
            self._ends(_State.GONE)
            if gone is not None:
                gone()

    def stall(self, *, stalled: bool) -> None:
        """The client has begun, or stopped, to read too slowly."""
        told = self._pause if stalled else self._resume
        if told is not None and self._state in (_State.OPEN, _State.STREAMING):
            told()

    def _ends(self, state: _State) -> None:
        """Whoever watched it is kept no longer."""
        self._state = state
        self._gone = self._pause = self._resume = None

    def _may(self, state: _State) -> bool:
        if self._state is _State.GONE:
            return False
        if self._state is not state:
            raise RuntimeError("an exchange is answered once, in order")
        return True

    def _head(self, status: int, headers: Headers, keep: bool, framing: bytes) -> bytes:
        connection = b""
        if not keep:
            connection = b"connection: close\r\n"
        elif not self._received.chunks:  # HTTP/1.0, where keeping must be said
            connection = b"connection: keep-alive\r\n"
        return encode_head(status, headers, framing, self._carrier.date, connection)


_JOINED_BYTES = 64 << 10
_CHUNKED = b"transfer-encoding: chunked\r\n"


def _is_bare(status: int) -> bool:
    """Answers of this status have no body (RFC 9110 §6.4.1)."""
    return status in (204, 304) or status < 200


def _length_line(length: bytes | None) -> bytes:
    return b"" if length is None else b"content-length: %b\r\n" % length
