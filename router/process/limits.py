"""How much a listener takes from anybody before it refuses."""

from typing import Annotated

import msgspec

from router.process.settings import Settings

_Seconds = Annotated[float, msgspec.Meta(ge=0.05, le=3600)]


class Limits(Settings, frozen=True):
    """Sizes and times of one HTTP listener.

    `in_flight_bytes` bounds the bodies of all its requests together, from their first byte until
    they are answered.
    `header_s` counts from the first byte of a request (and from the connection's start) until its
    head is whole, `body_s` from there until its body is, `idle_s` between two requests and for a
    client that reads nothing of its answer.
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


class Room:
    """The bytes of bodies that one listener holds."""

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        self.held_bytes = 0
