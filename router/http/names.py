"""The addresses of a host, and the last known ones while no resolver answers."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from isochrone.router.wire.url import HostPort


async def addresses(where: HostPort, within_s: float) -> list[str]:
    """Every address of a host, at least one.

    Raises:
        OSError: the name cannot be resolved in that time.
    """
    if where.is_literal:
        return [where.host]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_s):
            found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a name that no resolver takes
        raise OSError(f"{where.host!r} is no name") from error
    if not found:
        raise OSError(f"{where.host!r} has no address")
    return [str(address[0]) for *_, address in found]


Resolve = Callable[[HostPort, float], Awaitable[list[str]]]
"""Finds every address of a host within some seconds, like `addresses`."""


class Addresses:
    """The addresses of one host; the last known ones while its name cannot be resolved."""

    def __init__(self, where: HostPort, resolve: Resolve | None = None) -> None:
        """`resolve` None: the system's."""
        self._where = where
        self._resolve = resolve
        self._good: list[str] = []

    def has_left(self, address: str) -> bool:
        """The latest resolution no longer has this address."""
        return bool(self._good) and address not in self._good

    async def now(self, within_s: float) -> list[str]:
        """At least one address, within that time.

        Raises:
            OSError: none is known.
        """
        try:
            self._good = await (self._resolve or addresses)(self._where, within_s)
        except OSError:
            if not self._good:
                raise
        return self._good
