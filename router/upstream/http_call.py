"""One request on a connection to an endpoint, and the connection itself."""

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from typing import Protocol, cast
from urllib.parse import quote

from isochrone.router.http.sockets import reset_at_close
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Answer, OnEvents
from isochrone.router.upstream.response_reader import ResponseReader
from isochrone.router.wire.headers import HOP_BY_HOP
from isochrone.router.wire.http import Request

RESEND_S, MOST_RESEND_S = 0.1, 0.5
"""A kept connection that is lost within this time after a write was already being closed.

The close of a distant endpoint takes longer to arrive; a longer call may have had its effect."""
JOINED_BYTES = 32 << 10
"""A body up to this size is joined to the head: one write costs less than the copy."""

_OURS = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_PATH_SAFE = "/:@!$&'()*+,;=-._~"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/:@!$&'()*+,;=\-._~]*")
"""Paths that `quote` would leave as they are."""
_VISIBLE = re.compile(r"[!-~]*")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Pool(Protocol):
    """The connections of one endpoint."""

    def open_for(self, call: "HttpCall") -> None:
        """Send a call on a new connection."""
        ...

    def stop_opening(self, call: "HttpCall") -> None:
        """The connection that is being opened for a call is not needed."""
        ...

    def keep(self, connection: "UpstreamConnection") -> None:
        """Take back a connection whose answer is complete."""
        ...

    def forget(self, connection: "UpstreamConnection") -> None:
        """A connection has ended."""
        ...


class HttpCall:
    """One request in progress: an `upstream.Call`.

    `on_events` is None once the last event is delivered or the call is cancelled, so that it does
    not keep the receiver alive. `sent_before`: the request was sent on a kept connection that was
    lost, so the endpoint may have had it; `again` permits to send it once more then.
    """

    __slots__ = (
        "_pool",
        "again",
        "body",
        "connection",
        "head",
        "method",
        "on_events",
        "paused",
        "sent_before",
    )

    def __init__(
        self,
        pool: Pool,
        head: bytes,
        body: bytes,
        method: str,
        on_events: OnEvents,
        again: Callable[[], bool] = lambda: True,
    ) -> None:
        self._pool = pool
        self.head = head
        self.body = body
        self.method = method
        self.on_events: OnEvents | None = on_events
        self.again = again
        self.paused = False
        self.sent_before = False
        self.connection: UpstreamConnection | None = None

    def cancel(self) -> None:
        """Drop the call; its connection cannot be used again."""
        if self.on_events is None:
            return
        self.on_events = None
        if self.connection is not None:
            self.connection.reset()
        else:
            self._pool.stop_opening(self)

    def pause(self) -> None:
        """Read no more of the answer for now."""
        self.paused = True
        if self.on_events is not None and self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        if self.on_events is not None and self.connection is not None:
            self.connection.resume_reading()

    def end(self, events: Sequence[Answer]) -> None:
        """Deliver the last events, unless the call has ended already."""
        on_events, self.on_events = self.on_events, None
        if on_events is not None:
            on_events(events)


class UpstreamConnection(asyncio.Protocol):
    """One connection to an endpoint; it carries one call at a time.

    `resend_s`: a loss later than this after a write is a loss of the request as well. The pool
    lets it carry no further request from `expires_s` on.
    """

    __slots__ = (
        "_call",
        "_clock",
        "_eof",
        "_pool",
        "_reader",
        "_repeat_until_s",
        "_transport",
        "address",
        "expires_s",
        "resend_s",
    )

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self.resend_s = RESEND_S
        self.expires_s = math.inf
        self.address = ""
        self._reader = ResponseReader()
        self._transport: asyncio.Transport
        self._call: HttpCall | None = None
        self._repeat_until_s = -math.inf
        self._eof = False

    def carry(self, call: HttpCall, *, fresh: bool) -> bool:
        """Send the request of a call; False where a kept connection is known to be closed.

        The endpoint may just be closing a connection that is not `fresh`: the call is then
        repeated on a fresh one (RFC 9112 §9.3.1).
        """
        transport = self._transport
        if fresh:
            self._repeat_until_s = -math.inf
        elif self._eof or transport.is_closing():
            return False
        else:
            self._repeat_until_s = self._clock() + self.resend_s
        self._call = call
        call.connection = self
        self._reader.begin(call.method)
        if call.paused:
            self.pause_reading()
        if len(call.body) <= JOINED_BYTES:
            transport.write(call.head + call.body)
        else:
            transport.write(call.head)
            transport.write(call.body)
        return True

    def pause_reading(self) -> None:
        """Read nothing."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Drop the connection now; a call on it is lost."""
        self._transport.abort()

    def reset(self) -> None:
        """Drop the connection with a TCP reset, so that the endpoint stops its work."""
        reset_at_close(self._transport)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Deliver what a part of the answer means; close on bytes outside any answer."""
        call = self._call
        if call is None or (on_events := call.on_events) is None:
            self.close()
            return
        self._repeat_until_s = -math.inf
        reader = self._reader
        events = reader.feed(data)
        if not events:
            return
        if reader.ended:
            # before delivery: the receiver may send the next request from inside it
            self._release(call)
        on_events(events)

    def eof_received(self) -> None:
        """The endpoint sends nothing more; the transport closes itself then."""
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended: repeat the call on a new one, or end it."""
        self._pool.forget(self)
        end = self._reader.close(clean=self._eof and exc is None)
        call, self._call = self._call, None
        if call is None or call.on_events is None:
            return
        call.connection = None
        if self._clock() <= self._repeat_until_s and call.again():
            call.sent_before = True
            self._pool.open_for(call)
        else:
            call.end((end,))

    def _release(self, call: HttpCall) -> None:
        """End the call; keep the connection where the request is sent and the answer allows it."""
        self._call = call.connection = call.on_events = None
        transport = self._transport
        closed = self._eof or transport.is_closing()
        if closed or not self._reader.reusable or transport.get_write_buffer_size():
            self.close()
            return
        if call.paused:
            self.resume_reading()
        self._pool.keep(self)


def encode_head(request: Request, host: bytes) -> bytes:
    """The head of a request, with the framing and the Host of this hop.

    Raises:
        ValueError: a field or the target would end its line.
    """
    target = request.path
    if not _PLAIN_PATH.fullmatch(target):
        target = quote(target, safe=_PATH_SAFE)
    if request.query:
        target = f"{target}?{request.query}"
        if not _VISIBLE.fullmatch(target):
            raise ValueError("the target is not visible ASCII")
    lines = [f"{request.method} {target} HTTP/1.1".encode("ascii"), b"host: " + host]
    for field in request.headers:
        if field[0] not in _OURS:
            lines.append(b": ".join(field))  # noqa: PERF401 - a comprehension is one call more
    if request.body or request.method in _WITH_BODY:
        lines.append(b"content-length: %d" % len(request.body))
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
        raise ValueError("a header field has a line end in it")
    return head
