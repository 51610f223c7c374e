"""What the reading half of a connection gives to the answering half."""

from dataclasses import dataclass

from isochrone.router.wire.http import Request


@dataclass(slots=True)
class Received:
    """A whole request, and what its sender can take."""

    request: Request
    keep_alive: bool
    chunks: bool
