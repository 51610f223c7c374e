"""A request on a connection of ours to an endpoint, and the connection itself."""

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from typing import Protocol, cast
from urllib.parse import quote

from isochrone.router.http.sockets import reset_at_close
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Answer, End, Lost, OnEvents
from isochrone.router.upstream.response_reader import ResponseReader
from isochrone.router.wire.headers import HOP_BY_HOP
from isochrone.router.wire.http import Request

RESEND_S, MOST_RESEND_S = 0.1, 0.5
"""Who loses a kept connection so soon after writing to it has met one that was being closed.

Of a far endpoint the news takes longer, but a call that ran so long may have done its harm."""

_OURS = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_PATH_SAFE = "/:@!$&'()*+,;=-._~"
_QUERY = re.compile(r"[!-~]*")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Pool(Protocol):
    """Where connections come from and go back to."""

    def open_for(self, call: "HttpCall") -> None:
        """Send a call on a new connection."""
        ...

    def stop_opening(self, call: "HttpCall") -> None:
        """The connection that is being made for a call is not needed."""
        ...

    def keep(self, connection: "UpstreamConnection") -> None:
        """Take back a connection whose answer is whole."""
        ...

    def forget(self, connection: "UpstreamConnection") -> None:
        """A connection has ended."""
        ...


class HttpCall:
    """One request under way: an `upstream.Call`.

    `was_there` says that it has been sent once already, on a kept connection that then was lost:
    the endpoint may have had it. `again` gives leave to send it once more then.
    """

    __slots__ = (
        "_on_events",
        "_pool",
        "again",
        "connection",
        "message",
        "method",
        "paused",
        "was_there",
    )

    def __init__(
        self,
        pool: Pool,
        message: bytes,
        method: str,
        on_events: OnEvents,
        again: Callable[[], bool] = lambda: True,
    ) -> None:
        self._pool = pool
        self.again = again
        self._on_events: OnEvents | None = on_events
        """None once the last event is delivered or the call is cancelled: frees the receiver."""
        self.message = message
        self.method = method
        self.paused = False
        self.was_there = False
        self.connection: UpstreamConnection | None = None

    @property
    def done(self) -> bool:
        """Its last event has been told, or nobody wants it."""
        return self._on_events is None

    def cancel(self) -> None:
        """Nobody wants the answer any more; its connection cannot be used again."""
        if self.done:
            return
        self._on_events = None
        if self.connection is not None:
            self.connection.reset()
        else:
            self._pool.stop_opening(self)

    def pause(self) -> None:
        """Read no more of the answer for now."""
        self.paused = True
        if not self.done and self.connection is not None:
            self.connection.hold()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        if not self.done and self.connection is not None:
            self.connection.flow()

    def deliver(self, events: Sequence[Answer]) -> None:
        """Pass events on, unless the last one was delivered or the call is cancelled."""
        on_events = self._on_events
        if on_events is None:
            return
        if isinstance(events[-1], End | Lost):
            self._on_events = None
        on_events(events)


class UpstreamConnection(asyncio.Protocol):
    """One connection to an endpoint; it carries one call at a time.

    `resend_s`: who loses it later than this after sending on it has lost the request as well.
    `made_s` and `address` say when it was made, and where to.
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
        "made_s",
        "resend_s",
    )

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self.resend_s = RESEND_S
        self.made_s = 0.0
        self.address = ""
        self._reader = ResponseReader()
        self._transport: asyncio.Transport
        self._call: HttpCall | None = None
        self._repeat_until_s = -math.inf
        self._eof = False

    @property
    def usable(self) -> bool:
        """It is open, as far as we know."""
        return not (self._eof or self._transport.is_closing())

    def carry(self, call: HttpCall, *, fresh: bool) -> None:
        """Send a call's request. On a connection that is not `fresh`, the endpoint may just be
        closing it: then the call is repeated on one that is (RFC 9112 §9.3.1)."""
        self._call = call
        self._repeat_until_s = -math.inf if fresh else self._clock() + self.resend_s
        self._reader.begin(call.method)
        call.connection = self
        if call.paused:
            self.hold()
        self._transport.write(call.message)

    def hold(self) -> None:
        """Read nothing."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def flow(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Drop the connection now; a call on it is lost."""
        self._transport.abort()

    def reset(self) -> None:
        """Drop it so that the endpoint sees that nothing is read any more, and ends its work."""
        reset_at_close(self._transport)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A part of the answer has come, or something that nobody asked for."""
        call = self._call
        if call is None or call.done:
            self.close()
            return
        self._repeat_until_s = -math.inf
        events = self._reader.feed(data)
        if not events:
            return
        if isinstance(events[-1], End | Lost):
            self._release(call)
        call.deliver(events)

    def eof_received(self) -> None:
        """The endpoint has said that nothing more comes; the transport closes itself then."""
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._pool.forget(self)
        end = self._reader.close(clean=self._eof and exc is None)
        call, self._call = self._call, None
        if call is None or call.done:
            return
        call.connection = None
        if self._clock() <= self._repeat_until_s and call.again():
            call.was_there = True
            self._pool.open_for(call)
        else:
            call.deliver((end,))

    def _release(self, call: HttpCall) -> None:
        """The answer has ended: the connection is for the next, if it may and all was sent."""
        self._call = None
        call.connection = None
        if self._reader.reusable and self.usable and not self._transport.get_write_buffer_size():
            if call.paused:
                self.flow()
            self._pool.keep(self)
        else:
            self.close()


def encode_request(request: Request, host: bytes) -> bytes:
    """A request as bytes, with the framing and the Host of this hop.

    Raises:
        ValueError: a field or the target would end its line.
    """
    target = quote(request.path, safe=_PATH_SAFE)
    if request.query:
        target = f"{target}?{request.query}"
    if not _QUERY.fullmatch(target):
        raise ValueError("the target is not visible ASCII")
    parts = [f"{request.method} {target} HTTP/1.1\r\n".encode("ascii"), b"host: ", host, b"\r\n"]
    lines = 3
    for name, value in request.headers:
        if name not in _OURS:
            parts += (name, b": ", value, b"\r\n")
            lines += 1
    if request.body or request.method in _WITH_BODY:
        parts.append(b"content-length: %d\r\n" % len(request.body))
        lines += 1
    parts.append(b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise ValueError("a header field has a line end in it")
    return head + request.body
