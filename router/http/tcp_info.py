"""What the kernel knows of a TCP connection: how long a round trip to its peer takes.

Source: `struct tcp_info` of Linux's include/uapi/linux/tcp.h; its fields never move.
"""

import socket
import sys
from typing import Protocol

_BYTES = 104
_RTT = slice(68, 72)
"""`tcpi_rtt`, smoothed, in microseconds."""


class Options(Protocol):
    """A socket, as far as it is asked here."""

    def getsockopt(self, level: int, name: int, size_bytes: int, /) -> bytes:
        """The value of an option."""
        ...


def round_trip_s(connection: Options | None) -> float | None:
    """The smoothed round trip to the peer, in seconds; None where the kernel does not tell."""
    if sys.platform != "linux" or connection is None:
        return None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES)
    except OSError:  # not TCP, or gone
        return None
    return int.from_bytes(told[_RTT], sys.byteorder) / 1e6 or None
