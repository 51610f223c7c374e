"""What an agent and the process of an isolated model say to each other: one question, one answer.

A frame is its kind, the length of the JSON at its beginning, its whole length, and its bytes, which
are those of the binary tensor extension where it carries tensors.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

import msgspec

_HEAD = struct.Struct("<BIQ")
_MOST_BYTES = 1 << 32
"""Nobody else writes to these sockets; a length beyond this is a fault, not a message."""


class Kind(IntEnum):
    """What a frame is."""

    START = 1
    STARTED = 2
    ASK = 3
    ANSWER = 4
    REFUSAL = 5


class Start(msgspec.Struct, frozen=True):
    """Which variant of which package is to be loaded, and on how many cores a call runs."""

    package: str
    variant: str
    threads: int


class Refusal(msgspec.Struct, frozen=True):
    """Why there is no answer: the code of an error, and its text."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; `head_bytes` of `body` are JSON."""

    kind: Kind
    body: bytes
    head_bytes: int = 0

    @classmethod
    def of(cls, kind: Kind, content: msgspec.Struct | None = None) -> "Frame":
        """A frame without tensors."""
        return cls(kind, msgspec.json.encode(content) if content is not None else b"")

    def encoded(self) -> bytes:
        """The bytes to send."""
        return _HEAD.pack(self.kind, self.head_bytes, len(self.body)) + self.body


def receive(connection: socket.socket) -> Frame:
    """The next frame; waits for it.

    Raises:
        EOFError: the other side is gone.
        OSError: likewise.
    """
    kind, head_bytes, size = _HEAD.unpack(_exactly(connection, _HEAD.size))
    return Frame(Kind(kind), _exactly(connection, _checked(size)), head_bytes)


async def read(reader: asyncio.StreamReader) -> Frame:
    """The same on an event loop.

    Raises:
        EOFError, OSError: the other side is gone.
    """
    kind, head_bytes, size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    return Frame(Kind(kind), await reader.readexactly(_checked(size)), head_bytes)


def _checked(size: int) -> int:
    if size > _MOST_BYTES:
        raise EOFError(f"a frame of {size} bytes")
    return size


def _exactly(connection: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError("the other side is gone")
        view = view[count:]
    return bytes(buffer)
