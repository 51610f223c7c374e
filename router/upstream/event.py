"""What can happen to one attempt on one endpoint."""

from dataclasses import dataclass
from enum import Enum

from isochrone.router.wire.http import Headers


@dataclass(frozen=True, slots=True)
class Head:
    """The endpoint has begun to answer."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the answer's body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The answer is whole; `code` is that of an error which its last chunk tells."""

    code: str = ""


class Cause(Enum):
    """Why a try was lost."""

    REFUSED = "refused"
    """No connection could be made: nothing of the request has left."""
    LOCAL = "local"
    """This machine lacks a descriptor, a port or memory for a connection: nothing has left."""
    RESET = "reset"
    """The connection ended before the answer was whole."""
    MALFORMED = "malformed"
    """What came is not HTTP."""
    TIMEOUT = "timeout"
    """Nothing came in the time that this try was given."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The try ended without a whole answer."""

    cause: Cause
    detail: str


Answer = Head | Chunk | End | Lost
"""The events of one try, in order: Head, Chunk..., End; or Lost at any point, and nothing after."""
