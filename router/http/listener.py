"""The hardened HTTP/1.1 listener: it calls one service with every whole request.

llhttp (through httptools) parses the framing; this package adds the checks that llhttp leaves to
its user, limits, deadlines, the order of answers and the drain. A proxy in front adds TLS, HTTP/2
and compression.
"""

import asyncio
import socket
from collections.abc import Callable
from email.utils import formatdate
from random import Random

from isochrone.router.http.connection import Connection
from isochrone.router.http.exchange import Service
from isochrone.router.http.known_heads import KnownHeads
from isochrone.router.http.limits import Limits, Room
from isochrone.router.process.clock import Clock
from isochrone.router.wire.http import Headers

__all__ = ["Limits", "Listener"]

_SWEEPS = 8
"""Sweeps per shortest time limit: a request overruns a limit by at most an eighth."""


class Listener:
    """Serves HTTP/1.1 on its listening sockets, until it is drained.

    `in_flight` counts the requests that the service has not answered yet. `refusal_fields` are
    added to the listener's own refusals.
    """

    def __init__(
        self,
        service: Service,
        limits: Limits,
        clock: Clock,
        room: Room | None = None,
        rng: Random | None = None,
        refusal_fields: Callable[[], Headers] = tuple,
    ) -> None:
        """`room` is given if the service holds memory of it too.

        `rng` makes the ids of refused requests without one.
        """
        self._rng = rng or Random()
        self.refusal_fields = refusal_fields
        self.service = service
        self.limits = limits
        self.room = room or Room(limits.in_flight_bytes)
        self.room.reclaim = self._reclaim
        self.heads = KnownHeads()
        self.clock = clock
        self.date = b""
        self.draining = False
        self.in_flight = 0
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        shortest_s = min(limits.header_s, limits.body_s, limits.idle_s)
        self._sweep_s = min(0.5, shortest_s / _SWEEPS)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def start(self, *sockets: socket.socket) -> None:
        """Serve the clients of bound, listening sockets; the listener closes them."""
        loop = asyncio.get_running_loop()
        self._sweep(loop)
        for sock in sockets:
            server = await loop.create_server(lambda: Connection(self), sock=sock, backlog=1024)
            self._servers.append(server)

    def new_id(self) -> bytes:
        """An id for a refused request without one."""
        return b"%016x" % self._rng.getrandbits(64)

    async def drain(self, grace_s: float) -> int:
        """Accept no new clients and finish open requests; returns how many had to be cut.

        The last answer to each client has `connection: close`. The drain ends when all connections
        are closed, or after `grace_s` seconds.
        """
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._wait_empty()
        except TimeoutError:
            pass
        cut = sum(connection.busy for connection in self._connections)
        for connection in list(self._connections):
            connection.abort()
        await self._wait_empty()
        if self._sweeping is not None:
            self._sweeping.cancel()
        return cut

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, unless there are too many."""
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    def _reclaim(self, count_bytes: int) -> None:
        """Cut clients that do not read their answers, the longest stuck first."""
        stuck = [connection for connection in self._connections if connection.unsent_bytes]
        for connection in sorted(stuck, key=lambda one: one.stuck_s):
            if count_bytes <= 0:
                return
            count_bytes -= connection.unsent_bytes
            connection.abort()

    async def _wait_empty(self) -> None:
        while self._connections:
            self._emptied.clear()
            await self._emptied.wait()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        now_s = self.clock()
        for connection in list(self._connections):
            connection.sweep(now_s)
        self._sweeping = loop.call_later(self._sweep_s, self._sweep, loop)
