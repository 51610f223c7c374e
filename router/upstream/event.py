"""What one attempt at an endpoint reports: the events of its answer."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from msgspec import Struct

from isochrone.router.wire.http import Headers


class Head(Struct, frozen=True):
    """The status and the header fields of the answer."""

    status: int
    headers: Headers


class Chunk(Struct, frozen=True):
    """A part of the answer's body."""

    data: bytes


class End(Struct, frozen=True):
    """The answer is complete; `code` is that of an error which its last chunk reports."""

    code: str = ""


class Cause(StrEnum):
    """Why an attempt was lost."""

    REFUSED = "refused"
    """No connection could be opened: nothing of the request was sent."""
    LOCAL = "local"
    """This machine lacks a descriptor, a port or memory for a connection: nothing was sent."""
    RESET = "reset"
    """The connection ended before the answer was complete."""
    MALFORMED = "malformed"
    """What arrived is not HTTP."""
    TIMEOUT = "timeout"
    """Nothing arrived within the time of this attempt."""


class Lost(Struct, frozen=True):
    """The attempt ended without a complete answer."""

    cause: Cause
    detail: str


Answer = Head | Chunk | End | Lost
"""The events of one attempt, in order: Head, Chunk..., End; or Lost at any point, then nothing."""

OnEvents = Callable[[Sequence[Answer]], None]
"""Takes all events of one read, at least one. A receiver that cancels the call while it works
through the events ignores the rest of them; the call delivers nothing after that."""
