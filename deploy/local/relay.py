"""A TCP relay that adds distance: every byte arrives `delay_s` later, in both directions.

It keeps order and half-closes, bounds what it holds, and notes which requests passed, so that where
a request was sent can be counted without asking the router. For tests it can also fail on purpose.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Self, cast

import msgspec

from isochrone.router.errors import ConfigError
from isochrone.router.process.settings import Settings
from isochrone.router.wire.report import Name, Seconds

HIGH_WATER_BYTES = 1 << 20
"""What one direction of one connection may hold before its source is paused."""
_REQUEST_ID = re.compile(rb"\r\nx-request-id:[ \t]*([A-Za-z0-9._-]{1,64})[ \t]*\r\n", re.IGNORECASE)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_TAIL_BYTES = 96
"""Longer than the longest header field that `_REQUEST_ID` finds."""


class Fault(Enum):
    """How a relay fails on purpose."""

    NONE = "none"
    REFUSE = "refuse"
    """No new connection is accepted; those that stand are reset."""
    FREEZE = "freeze"
    """Connections are accepted and stand, but nothing travels."""
    CUT = "cut"
    """The next answers end in their middle."""
    GARBAGE = "garbage"
    """The next answers are not HTTP."""


class RelaySpec(Settings, frozen=True):
    """One relay: from `listen` to `target` (both HOST:PORT), `delay_s` each way."""

    name: Name
    listen: str
    target: str
    delay_s: Seconds = 0.0


class Passage(msgspec.Struct, frozen=True):
    """One line of the log: this request passed through this relay on its way to the endpoint."""

    relay: str
    request_id: str


class Relay:
    """One listening relay, open as long as its `async with` block runs."""

    def __init__(self, spec: RelaySpec, seen: Callable[[Passage], None] | None = None) -> None:
        self.spec = spec
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._seen = seen
        self._fault = Fault.NONE
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._dialling = asyncio.TaskGroup()

    @property
    def fault(self) -> Fault:
        """How it fails at this moment."""
        return self._fault

    async def __aenter__(self) -> Self:
        await self._dialling.__aenter__()
        try:
            await self._listen()
        except OSError as error:
            await self._dialling.__aexit__(None, None, None)
            raise ConfigError(
                f"relay {self.spec.name}: cannot listen on {self.spec.listen}: {error.strerror}"
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()
        await self._dialling.__aexit__(None, None, None)

    async def fail(self, fault: Fault) -> None:
        """Fail in this way from now on; `Fault.NONE` heals it."""
        self._fault = fault
        if fault is Fault.REFUSE:
            await self._close()
        elif self._server is None:
            await self._listen()
        for link in self._links:
            link.wake()

    def passed(self, request_id: str) -> None:
        """Note a request on its way to the endpoint."""
        if self._seen is not None:
            self._seen(Passage(self.spec.name, request_id))

    async def _listen(self) -> None:
        host, port = split_address(self.spec.listen)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, host, port)

    def _accept(self) -> asyncio.Protocol:
        self.connections += 1
        link = _Link(self)
        self._links.add(link)
        link.dialling = self._dialling.create_task(link.dial())
        return link.client

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._links):
            link.reset()

    def forget(self, link: "_Link") -> None:
        """That connection is over."""
        self._links.discard(link)


class _Link:
    """One client connection and its connection to the target."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.up = _Lane(self, relay.spec.delay_s)
        self.down = _Lane(self, relay.spec.delay_s)
        self.client = _Side(self, leaving=self.up, arriving=self.down)
        self.target = _Side(self, leaving=self.down, arriving=self.up)
        self.dialling: asyncio.Task[None] | None = None
        self._tail = b""

    async def dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: self.target, *split_address(self.relay.spec.target)
            )
        except OSError:
            self.reset()

    def wake(self) -> None:
        self.up.plan()
        self.down.plan()

    def note(self, lane: "_Lane", chunk: bytes) -> bytes | None:
        """Count a chunk that arrives, and say what really arrives of it; None: and then the end."""
        if lane is self.up:
            self.relay.bytes_up += len(chunk)
            self._scan(chunk)
            return chunk
        self.relay.bytes_down += len(chunk)
        return self._spoilt(chunk)

    def _spoilt(self, chunk: bytes) -> bytes | None:
        match self.relay.fault:
            case Fault.CUT:
                self.down.last(chunk[: len(chunk) // 2])
            case Fault.GARBAGE:
                self.down.last(b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n")
            case _:
                return chunk
        return None

    def _scan(self, chunk: bytes) -> None:
        text = self._tail + chunk
        end = 0
        for found in _REQUEST_ID.finditer(text):
            self.relay.passed(found[1].decode())
            end = found.end()
        self._tail = text[max(end, len(text) - _TAIL_BYTES) :]

    def ended(self) -> None:
        """One direction is over; the connections close when both are."""
        if self.up.ended and self.down.ended:
            self.client.close()
            self.target.close()
            self.relay.forget(self)

    def reset(self) -> None:
        """Both connections are cut at once."""
        if self.dialling is not None:
            self.dialling.cancel()
        self.up.clear()
        self.down.clear()
        self.client.abort()
        self.target.abort()
        self.relay.forget(self)


class _End(Enum):
    """How a direction ends."""

    EOF = "eof"
    RESET = "reset"


class _Lane:
    """One direction of one connection: chunks stay in it until they have travelled."""

    def __init__(self, link: _Link, delay_s: float) -> None:
        self.ended = False
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.blocked = False
        self._link = link
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._travelling: deque[tuple[float, bytes | _End]] = deque()
        self._held_bytes = 0
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    def depart(self, item: bytes | _End) -> None:
        """A chunk, or the end, leaves its source now."""
        self._travelling.append((self._loop.time() + self._delay_s, item))
        if isinstance(item, bytes):
            self._held_bytes += len(item)
        if self._held_bytes > HIGH_WATER_BYTES and not self._paused and self.source is not None:
            self._paused = True
            self.source.pause_reading()
        self.plan()

    def plan(self) -> None:
        """Set the timer for the next arrival, where one can arrive."""
        if self._timer is None and self._travelling and self._passable():
            self._timer = self._loop.call_at(self._travelling[0][0], self._arrive)

    def last(self, chunk: bytes) -> None:
        """This chunk arrives, then nothing more, in either direction."""
        if self.sink is not None:
            self.sink.write(chunk)
            self.sink.close()
        self._link.reset()

    def clear(self) -> None:
        """Lose what is on its way."""
        self.ended = True
        self._travelling.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _passable(self) -> bool:
        return (
            self.sink is not None
            and not self.blocked
            and self._link.relay.fault is not Fault.FREEZE
        )

    def _arrive(self) -> None:
        self._timer = None
        now = self._loop.time() + 0.0005  # half of what an event loop's timer can tell apart
        while self._travelling and self._travelling[0][0] <= now and self._passable():
            self._hand_over(self._travelling.popleft()[1])
        if self._paused and self._held_bytes < HIGH_WATER_BYTES // 2 and self.source is not None:
            self._paused = False
            self.source.resume_reading()
        self.plan()

    def _hand_over(self, item: bytes | _End) -> None:
        sink = cast(asyncio.Transport, self.sink)
        if item is _End.RESET:
            self._link.reset()
        elif item is _End.EOF:
            self.ended = True
            with contextlib.suppress(OSError):  # the other side has gone: nobody is left to tell
                sink.write_eof()
            self._link.ended()
        else:
            self._held_bytes -= len(item)
            arriving = self._link.note(self, item)
            if arriving is not None:
                sink.write(arriving)


class _Side(asyncio.Protocol):
    """One of a link's two connections."""

    def __init__(self, link: _Link, leaving: _Lane, arriving: _Lane) -> None:
        self._link = link
        self._leaving = leaving
        self._arriving = arriving
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._leaving.source = self._arriving.sink = self._transport
        self._arriving.plan()

    def data_received(self, data: bytes) -> None:
        self._leaving.depart(data)

    def eof_received(self) -> bool:
        self._leaving.depart(_End.EOF)
        return True  # the other direction stays open

    def pause_writing(self) -> None:
        self._arriving.blocked = True

    def resume_writing(self) -> None:
        self._arriving.blocked = False
        self._arriving.plan()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:  # we closed it ourselves
            return
        if self._leaving.ended:
            self._link.reset()
        else:
            self._leaving.depart(_End.RESET)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT in its two parts.

    Raises:
        ConfigError: it has no such form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{address!r} must be HOST:PORT, for example 127.0.0.1:8080")
    return host.strip("[]"), int(port)
