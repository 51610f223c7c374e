"""Listening sockets, their addresses in configuration files, and options of connections."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
import sys
from typing import Annotated, Protocol

from msgspec import Meta

from isochrone.router.errors import ConfigError

BACKLOG = 1024
_ANY = "::"
_AT_ONCE = struct.pack("ii", 1, 0)
"""`struct linger`: on, for no time (socket(7))."""
_TCP_INFO_BYTES = 104
_RTT = slice(68, 72)
"""`tcpi_rtt` of `struct tcp_info`, smoothed, in microseconds (Linux: include/uapi/linux/tcp.h)."""


class Options(Protocol):
    """The part of a socket that `round_trip_s` needs."""

    def getsockopt(self, level: int, name: int, size_bytes: int, /) -> bytes:
        """The value of an option."""
        ...


Address = Annotated[
    str,
    Meta(
        pattern=r"^(\[[0-9a-fA-F:.]+\]|[^\s:/]+):[0-9]{1,5}$",
        description="HOST:PORT, or [IPv6]:PORT",
    ),
]
"""`HOST:PORT` or `[IPv6]:PORT`, as it stands in configuration files."""
Listen = Address | Annotated[tuple[Address, ...], Meta(min_length=1, max_length=16)]
"""Where to listen: one address or several. `[::]` includes IPv4."""


def bind(address: str) -> socket.socket:
    """A listening, non-blocking TCP socket on `HOST:PORT` (`[::1]:8080` too; port 0: a free one).

    Raises:
        ConfigError: the address cannot be bound; the text says what to do.
    """
    host, port = _split(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{address}: {error.strerror}; check the host of `listen`") from error
    try:
        _listen(listening, target)
    except OSError as error:
        listening.close()
        raise ConfigError(f"{address} {_remedy(error)}") from error
    return listening


def bind_all(addresses: Listen) -> list[socket.socket]:
    """A socket, as of `bind`, for each address.

    Raises:
        ConfigError: an address cannot be bound; then none stays bound.
    """
    bound: list[socket.socket] = []
    try:
        bound.extend(map(bind, listed(addresses)))
    except ConfigError:
        for one in bound:
            one.close()
        raise
    return bound


def listed(addresses: Listen) -> tuple[Address, ...]:
    """The addresses that a configuration file names, one or several."""
    return (addresses,) if isinstance(addresses, str) else addresses


def address_of(sock: socket.socket) -> str:
    """Where a socket is bound, as `HOST:PORT`."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reset_at_close(transport: asyncio.BaseTransport) -> None:
    """Make closing this connection send a reset, not an end."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def round_trip_s(connection: Options | None) -> float | None:
    """The kernel's smoothed round trip to the peer, in seconds; None if it has none."""
    if sys.platform != "linux" or connection is None:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:  # not TCP, or closed
        return None
    return int.from_bytes(info[_RTT], sys.byteorder) / 1e6 or None


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `HOST:PORT`; of names, only `localhost` is known."""
    host, _ = _split(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(listening: socket.socket, target: tuple[object, ...]) -> None:
    if os.name == "posix":  # elsewhere it would let two processes share the port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listening.family == socket.AF_INET6:
        only = target[0] != _ANY  # `::` includes IPv4
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted ones inherit it
    listening.setblocking(False)
    listening.bind(target)
    listening.listen(BACKLOG)


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{address!r}: write an IPv6 address in brackets, as [::1]:8080")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f"{address!r} is no address; write HOST:PORT, as 127.0.0.1:8080")
    return host, int(port)


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "is in use; choose another `listen` or stop the other process"
        case errno.EADDRNOTAVAIL:
            return "is no address of this machine; choose another `listen`"
        case errno.EACCES:
            return "needs a privilege; choose a port from 1024 upwards"
    return f"cannot be bound: {error.strerror}"
