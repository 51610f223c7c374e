"""A listener on a free port, and a client that speaks bytes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from isochrone.router.http.exchange import Exchange, Service
from isochrone.router.http.listener import Limits, Listener
from isochrone.router.http.sockets import bind
from isochrone.router.process.clock import monotonic

Serve = Callable[..., Awaitable["Talker"]]


def pytest_asyncio_loop_factories(config, item):
    """What talks over sockets is tested on both event loops."""
    del config
    if "serve" in getattr(item, "fixturenames", ()):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, header fields, body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head[:-4].split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        status = int(line.split(" ")[1])
        return status, headers, await self._body(method, status, headers)

    async def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (100, 204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            return b"".join([chunk async for chunk in self.chunks()])
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        return await self.reader.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)

    async def rest(self) -> bytes:
        """Everything until the listener closes."""
        return await self.reader.read()

    def drop(self) -> None:
        """Go away at once."""
        self.writer.transport.abort()


class Talker:
    """A started listener and its clients."""

    def __init__(self, listener: Listener, port: int, stack: AsyncExitStack) -> None:
        self.listener = listener
        self.port = port
        self._stack = stack

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.close)
        return Client(reader, writer)

    async def ask(self, data: bytes) -> bytes:
        """Everything that comes back for these bytes until the listener closes."""
        client = await self.connect()
        client.send(data)
        return await client.rest()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a listener: `talker = await serve(service, header_s=0.2)`."""
    async with AsyncExitStack() as stack:

        async def start(service: Service, **limits: Any) -> Talker:
            sock = bind("127.0.0.1:0")
            port = sock.getsockname()[1]
            listener = Listener(service, Limits(**limits), monotonic)
            await listener.start(sock)
            stack.push_async_callback(listener.drain, 0)
            return Talker(listener, port, stack)

        async with asyncio.timeout(20):
            yield start


class Recorder:
    """A service that keeps what it is given, for the test to answer."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.gone: list[str] = []
        self._came = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.watch(gone=lambda: self.gone.append(exchange.request.path))
        self.seen.append(exchange)
        self._came.set()

    async def get(self, number: int) -> Exchange:
        """The request of this number, counted from 0, as soon as it is there."""
        while len(self.seen) <= number:
            self._came.clear()
            await self._came.wait()
        return self.seen[number]


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def echo() -> Service:
    """A service that tells what it was asked."""

    def service(exchange: Exchange) -> None:
        request = exchange.request
        shown = f"{request.method} {request.path} {request.query} ".encode() + request.body
        exchange.respond(200, [(b"content-type", b"text/plain")], shown)

    return service


@pytest.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait for what no event tells of."""

    async def wait(condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110  # a counter of the listener is looked at
            await asyncio.sleep(0.005)

    return wait
