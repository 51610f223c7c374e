"""The relay over real loopback sockets: distance, order, ends, and what it counts."""

import asyncio
import contextlib
import socket
import statistics
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from isochrone.deploy.local.ports import free_ports
from isochrone.deploy.local.relay import HIGH_WATER_BYTES, Fault, Passage, Relay, RelaySpec
from isochrone.router.errors import ConfigError
from isochrone.router.process.clock import monotonic

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what came, until the client ends."""
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def relayed(serve: Serve, delay_s: float = 0.0) -> AsyncIterator[tuple[Relay, list[Passage]]]:
    """A server and a relay before it."""
    listen, target = free_ports(2)
    serving: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        await closed(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", target)
    seen: list[Passage] = []
    spec = RelaySpec("near", f"127.0.0.1:{listen}", f"127.0.0.1:{target}", delay_s)
    async with asyncio.timeout(20):
        async with Relay(spec, seen.append) as relay:
            yield relay, seen
        server.close()
        await asyncio.gather(*(task for task in serving if task))


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def dial(relay: Relay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client's connection to a relay."""
    port = int(relay.spec.listen.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        await closed(writer)


async def trips(delay_s: float) -> list[float]:
    """Round trips through a relay, in seconds."""
    async with relayed(echo, delay_s) as (relay, _), dial(relay) as (reader, writer):
        taken = []
        for _ in range(20):
            start_s = monotonic()
            writer.write(b"ping")
            await reader.readexactly(4)
            taken.append(monotonic() - start_s)
    return taken


async def test_every_byte_takes_the_delay_each_way():
    without, delayed = await trips(0.0), await trips(0.02)
    assert min(delayed) >= 0.039
    assert statistics.median(delayed) < 0.048 + 4 * statistics.median(without)


async def test_what_is_sent_in_a_row_travels_together():
    """The delay is one of distance, not of rate: forty chunks need one delay, not forty."""
    async with relayed(echo, delay_s=0.05) as (relay, _), dial(relay) as (reader, writer):
        start_s = monotonic()
        sent = b""
        for number in range(40):
            chunk = b"%03d," % number
            writer.write(chunk)
            await writer.drain()
            sent += chunk
        assert await reader.readexactly(len(sent)) == sent
        assert monotonic() - start_s < 0.5


async def test_a_half_close_leaves_the_other_direction_open():
    async def after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = await reader.read()
        writer.write(whole[::-1])
        writer.close()

    async with (
        relayed(after_the_end, delay_s=0.005) as (relay, _),
        dial(relay) as (reader, writer),
    ):
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read() == b"cba"


async def test_a_slow_reader_stops_the_sender():
    finish = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await finish.wait()
        writer.write(b"%d" % len(await reader.read()))
        writer.close()

    sent_bytes = 32 * HIGH_WATER_BYTES
    async with relayed(deaf) as (relay, _), dial(relay) as (reader, writer):
        writer.write(bytes(sent_bytes))
        writer.write_eof()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        assert relay.bytes_up < sent_bytes
        finish.set()
        assert await reader.read() == b"%d" % sent_bytes


@pytest.mark.parametrize("size", [1, 7, 4096], ids=["byte by byte", "in sevens", "whole"])
async def test_requests_are_noted_by_id_however_they_are_cut(size):
    request = b"POST /v2 HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-%d\r\nContent-Length: 2\r\n\r\nhi"
    stream = request % 1 + request % 2
    async with relayed(echo) as (relay, seen), dial(relay) as (reader, writer):
        writer.transport.set_write_buffer_limits(0)
        for start in range(0, len(stream), size):
            writer.write(stream[start : start + size])
            await writer.drain()
        await reader.readexactly(len(stream))
        assert seen == [Passage("near", "r-1"), Passage("near", "r-2")]
        assert relay.connections == 1
        assert relay.bytes_up == relay.bytes_down == len(stream)


async def test_a_target_that_is_gone_resets_the_client():
    listen, nobody = free_ports(2)
    spec = RelaySpec("dead", f"127.0.0.1:{listen}", f"127.0.0.1:{nobody}")
    async with Relay(spec) as relay:
        with contextlib.suppress(ConnectionResetError):
            async with dial(relay) as (reader, _writer):
                assert await reader.read() == b""


async def test_a_target_that_dies_resets_the_client():
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()

    async with relayed(die, delay_s=0.005) as (relay, _), dial(relay) as (reader, writer):
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_refusing_closes_the_door_and_healing_opens_it():
    async with relayed(echo) as (relay, _):
        async with dial(relay) as (reader, writer):
            writer.write(b"x")
            await reader.readexactly(1)
            await relay.fail(Fault.REFUSE)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            async with dial(relay):
                pass
        await relay.fail(Fault.NONE)
        async with dial(relay) as (reader, writer):
            writer.write(b"y")
            assert await reader.readexactly(1) == b"y"


async def test_a_frozen_relay_delivers_what_it_held_once_it_thaws():
    async with relayed(echo) as (relay, _):
        await relay.fail(Fault.FREEZE)
        async with dial(relay) as (reader, writer):
            writer.write(b"late")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(4), 0.2)
            await relay.fail(Fault.NONE)
            assert await reader.readexactly(4) == b"late"


@pytest.mark.parametrize(
    ("fault", "expected"), [(Fault.CUT, b"half"), (Fault.GARBAGE, b"\x16\x03\x01")]
)
async def test_answers_can_be_spoilt(fault, expected):
    async with relayed(echo) as (relay, _):
        await relay.fail(fault)
        async with dial(relay) as (reader, writer):
            writer.write(b"halfhalf")
            assert (await reader.read()).startswith(expected)


async def test_an_address_in_use_is_a_clear_error():
    async with relayed(echo) as (relay, _):
        with pytest.raises(ConfigError, match=r"relay second: cannot listen on 127\.0\.0\.1:"):
            async with Relay(RelaySpec("second", relay.spec.listen, relay.spec.target)):
                pass
