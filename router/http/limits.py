"""Limits of a listener, and the memory that its requests may hold."""

from collections.abc import Callable
from typing import Annotated, Self

import msgspec

from isochrone.router.errors import Overloaded
from isochrone.router.process.settings import Settings

_ANSWER_SHARE = 4
_Seconds = Annotated[float, msgspec.Meta(ge=0.05, le=3600)]


class Limits(Settings, frozen=True):
    """Sizes and times of one HTTP listener.

    `in_flight_bytes` bounds what all requests hold together: bodies, what they are decoded to, and
    answers that clients have not read. One answer may take a quarter of it.
    `header_s` is the time from the first byte of a request (or the start of the connection) to the
    end of its head, `body_s` from there to the end of its body, `idle_s` between two requests and
    for a client that does not read its answer.
    """

    body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 32)] = 16 << 20
    in_flight_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] = 512 << 20
    header_bytes: Annotated[int, msgspec.Meta(ge=256, le=1 << 20)] = 32 << 10
    header_s: _Seconds = 10.0
    body_s: _Seconds = 30.0
    idle_s: _Seconds = 75.0
    connections: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4096
    write_buffer_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 26)] = 256 << 10

    def __post_init__(self) -> None:
        if self.in_flight_bytes < self.body_bytes:
            raise ValueError("in_flight_bytes must not be less than body_bytes")

    def held_bytes(self, memory_bytes: int) -> int:
        """What requests may hold together in a process of `memory_bytes`.

        At most a quarter, but room for two bodies: the process itself needs the rest.
        """
        return min(self.in_flight_bytes, max(2 * self.body_bytes, memory_bytes // 4))


class Room:
    """The memory that the requests of one process hold, at most `limit_bytes`.

    That is: bodies, from their first byte until they are answered; their unpacked and decoded
    forms; and answers that clients have not read.
    """

    __slots__ = ("held_bytes", "limit_bytes", "reclaim")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.reclaim: Callable[[int], None] = _nothing_to_reclaim
        """Tries to free so many bytes at once."""

    @property
    def answer_bytes(self) -> int:
        """Most that one answer may hold."""
        return self.limit_bytes // _ANSWER_SHARE

    def take(self, count_bytes: int) -> bool:
        """Hold so much more; False if there is no room."""
        over_bytes = self.held_bytes + count_bytes - self.limit_bytes
        if over_bytes > 0:
            self.reclaim(over_bytes)
            if self.held_bytes + count_bytes > self.limit_bytes:
                return False
        self.held_bytes += count_bytes
        return True

    def add(self, count_bytes: int) -> None:
        """Count memory that is already in use; a negative count releases."""
        self.held_bytes += count_bytes
        if count_bytes > 0 and self.held_bytes > self.limit_bytes:
            self.reclaim(self.held_bytes - self.limit_bytes)


def _nothing_to_reclaim(count_bytes: int) -> None:
    """The default: nothing can be freed."""


class Hold:
    """What one request holds of a room besides its body, until the end of a `with`."""

    __slots__ = ("_room", "_size_bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size_bytes = 0

    def resize(self, size_bytes: int) -> None:
        """Hold this much from here on.

        Raises:
            Overloaded: there is no room.
        """
        grown_bytes = size_bytes - self._size_bytes
        if grown_bytes > 0 and not self._room.take(grown_bytes):
            raise Overloaded(
                f"requests under way take all of the {self._room.limit_bytes} bytes that they may",
                retry_after_s=1.0,
            )
        if grown_bytes < 0:
            self._room.add(grown_bytes)
        self._size_bytes = size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.resize(0)
