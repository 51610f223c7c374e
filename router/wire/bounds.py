"""How much memory a body may become: multiples of its length on the wire, and the limit of bodies.

A request must not cost more than a hundred times itself: while its tensors are read, what it was
unpacked to, the tensors, and the objects of one step of reading are in memory together.
"""

import sys
from typing import NamedTuple

from isochrone.router.errors import TooLarge

_UNPACKED_TIMES = 12
_UNPACKED_LEAST = 64 << 10
"""A body so short may be packed as well as it can be."""
_DECODED_TIMES = 32
_DECODED_LEAST = 4 * _UNPACKED_LEAST
"""JSON spells an INT64 in two characters at least."""
PARAMETERS_BYTES = 64 << 10
"""Most of the JSON of one object of parameters, and of the list of wanted outputs."""

ID_CHARACTERS = 1024
"""Most of a request's id, which stands in every part of its answer."""


class Bound(NamedTuple):
    """A number of bytes, and where it comes from."""

    size_bytes: int
    source: str

    def check(self, size_bytes: int, what: str) -> None:
        """Pass what takes no more; `what` begins the sentence of the refusal.

        Raises:
            TooLarge: it takes more.
        """
        if size_bytes > self.size_bytes:
            raise TooLarge(
                f"{what} {size_bytes} bytes of memory;"
                f" {self.size_bytes} are possible: {self.source}"
            )


UNBOUNDED = Bound(sys.maxsize, "")


def unpacked_bound(wire_bytes: int, body_bytes: int) -> Bound:
    """For what a packed body of `wire_bytes` unpacks to, where bodies may have `body_bytes`."""
    most = max(_UNPACKED_LEAST, _UNPACKED_TIMES * wire_bytes)
    if most < body_bytes:
        return Bound(most, f"{_UNPACKED_TIMES} times the packed body; send it unpacked")
    return Bound(body_bytes, "body_bytes")


def decoded_bound(wire_bytes: int, body_bytes: int) -> Bound:
    """For the tensors in a body of `wire_bytes`, as it came, where bodies may have `body_bytes`."""
    most = max(_DECODED_LEAST, _DECODED_TIMES * wire_bytes)
    if most < body_bytes:
        return Bound(most, f"{_DECODED_TIMES} times the body as it was sent")
    return Bound(body_bytes, "body_bytes")
