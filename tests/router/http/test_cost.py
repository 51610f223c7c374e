"""What one request costs the server: Python calls, and copies of bodies."""

import asyncio
import sys
from types import FrameType

import pytest

from isochrone.router.http.connection import Connection
from isochrone.router.http.exchange import Exchange, Service
from isochrone.router.http.limits import Limits
from isochrone.router.http.listener import Listener

MOST_CALLS = 17
"""From `data_received` to the last `write`, with the call of the service."""
HEAD = b"POST /a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer k\r\ncontent-length: %d\r\n\r\n"
FIELDS = [(b"content-type", b"application/json")]


class Written(asyncio.Transport):
    """A transport whose client reads everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.parts.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low


def connected(service: Service) -> tuple[Connection, list[bytes | bytearray | memoryview]]:
    transport = Written()
    connection = Connection(Listener(service, Limits(), lambda: 0.0))
    connection.connection_made(transport)
    return connection, transport.parts


@pytest.mark.parametrize("size_bytes", [0, 1000])
def test_an_ordinary_request_makes_few_python_calls(size_bytes):
    seen: list[Exchange] = []
    connection, _ = connected(seen.append)
    data = HEAD % size_bytes + bytes(size_bytes)

    def ask() -> None:
        connection.data_received(data)
        seen.pop().respond(200, FIELDS, b"x" * 1000)

    ask()  # the head is parsed once
    made: list[str] = []

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals["__name__"].startswith("isochrone."):
            made.append(frame.f_code.co_qualname)

    sys.setprofile(count)
    try:
        ask()
    finally:
        sys.setprofile(None)
    assert len(made) <= MOST_CALLS, made


def test_large_bodies_are_passed_by_reference():
    seen: list[Exchange] = []
    connection, parts = connected(seen.append)
    sent, answer = bytes(1 << 20), bytes(1 << 20)
    connection.data_received(HEAD % len(sent) + sent)
    seen[0].respond(200, FIELDS, answer)
    connection.data_received(HEAD % len(sent))  # known from here on
    connection.data_received(sent)
    assert seen[1].request.body is sent
    bodies = [part.obj for part in parts if isinstance(part, memoryview)]
    assert len(bodies) == 1
    assert bodies[0] is answer


def test_a_large_chunk_is_passed_by_reference():
    seen: list[Exchange] = []
    connection, parts = connected(seen.append)
    connection.data_received(HEAD % 0)
    chunk = bytes(1 << 20)
    seen[0].start(200, FIELDS)
    seen[0].write(chunk)
    seen[0].finish()
    assert b"".join(parts[1:]) == b"100000\r\n" + chunk + b"\r\n0\r\n\r\n"
    assert [part.obj for part in parts if isinstance(part, memoryview)] == [chunk]
