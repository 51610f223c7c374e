"""One attempt at one endpoint: send a request, receive the events of its answer.

HTTP/1.1 over kept connections is the first kind of upstream; no caller depends on the kind.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Protocol

from isochrone.router.http.descriptors import is_local
from isochrone.router.http.names import Addresses, Resolve
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Cause, Lost, OnEvents
from isochrone.router.upstream.http_call import (
    MOST_RESEND_S,
    RESEND_S,
    HttpCall,
    UpstreamConnection,
    encode_head,
)
from isochrone.router.wire.http import Request
from isochrone.router.wire.url import parse_url

RESOLVE_S = 5.0
"""The addresses of a host are resolved again, beside the requests, when they are this old."""


class Call(Protocol):
    """One request in progress; after `cancel` and after End or Lost no event comes."""

    def cancel(self) -> None:
        """Drop the request and its answer."""
        ...

    def pause(self) -> None:
        """Stop reading the answer; events that have been read may still come."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Upstream(Protocol):
    """The way to one endpoint."""

    def send(
        self,
        request: Request,
        on_events: OnEvents,
        *,
        once: bool = False,
        again: Callable[[], bool] = lambda: True,
    ) -> Call:
        """Send a request; its events come later, never before this returns.

        `once`: it must not arrive twice. `again` permits to send it a second time where the first
        may have arrived.
        """
        ...

    @property
    def empty(self) -> bool:
        """Nothing is open any more."""
        ...

    def retire(self) -> None:
        """Take no more requests; those in progress may end."""
        ...

    async def close(self) -> None:
        """Close every connection; requests in progress are lost."""
        ...


LOCAL_PAUSE_S = 0.1
"""A local shortage is reported after this delay, so that it causes no storm of attempts."""


class HttpUpstream:
    """Kept HTTP/1.1 connections to one address, as many as are needed at once.

    `connect_s` bounds how long opening a connection takes, `idle_s` how long one is kept unused,
    `max_idle` how many are kept. A connection older than `max_age_s`, or to an address that the
    host's name has lost, carries no further request. `short` is called where a connection cannot
    be opened because this machine lacks descriptors, ports or memory.
    """

    def __init__(
        self,
        url: str,
        *,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        connect_s: float = 1.0,
        idle_s: float = 60.0,
        max_idle: int = 256,
        max_age_s: float = 60.0,
        resolve: Resolve | None = None,
        short: Callable[[], None] = lambda: None,
    ) -> None:
        """Open nothing yet.

        Raises:
            BadRequest: `url` is not `http://HOST:PORT`.
        """
        self._address = parse_url(url)
        self._addresses = Addresses(self._address, resolve)
        self._looked_s = math.inf if self._address.is_literal else -math.inf
        self._max_age_s = max_age_s
        self._host = self._address.url.removeprefix("http://").encode("ascii")
        self._tasks = tasks
        self._clock = clock
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._short = short
        self._idle: list[tuple[UpstreamConnection, float]] = []
        self._connections: set[UpstreamConnection] = set()
        self._opening: dict[HttpCall, asyncio.Task[None]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        self._closed = False

    def send(
        self,
        request: Request,
        on_events: OnEvents,
        *,
        once: bool = False,
        again: Callable[[], bool] = lambda: True,
    ) -> Call:
        """Send on a kept connection, or on a new one, which costs a task.

        A kept connection may be closing; the request is then sent again if `again` permits. Not if
        it goes only `once`, and not where the connection is lost so late that the endpoint must
        have had it.

        Raises:
            ValueError: a header field or the query would end its line.
        """
        head = encode_head(request, self._host)
        call = HttpCall(self, head, request.body, request.method, on_events, again)
        now_s = self._clock()
        if now_s - self._looked_s >= RESOLVE_S:
            self._looked_s = now_s
            self._tasks.create_task(self._resolve())
        while self._idle and not once:
            # the connection that was used last: the others may grow old and be closed
            connection, until_s = self._idle.pop()
            if now_s < until_s and connection.carry(call, fresh=False):
                return call
            connection.close()
        self.open_for(call)
        return call

    def open_for(self, call: HttpCall) -> None:
        """Send on a new connection."""
        if self._closed:
            _tell_soon(call, "it has left")
            return
        self._opening[call] = self._tasks.create_task(self._open(call))

    def stop_opening(self, call: HttpCall) -> None:
        """The connection that is being opened for a call is not needed."""
        opening = self._opening.get(call)
        if opening is not None:
            opening.cancel()

    def keep(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose answer is complete."""
        now_s = self._clock()
        full = self._closed or len(self._idle) >= self._max_idle
        if full or now_s >= connection.expires_s:
            connection.close()
            return
        self._idle.append((connection, min(now_s + self._idle_s, connection.expires_s)))
        if self._sweeping is None:
            self._schedule_sweep()

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self._idle = [kept for kept in self._idle if kept[0] is not connection]
        if not self._connections:
            self._emptied.set()

    def drop_idle(self) -> None:
        """Close every unused connection."""
        for connection, _ in list(self._idle):
            connection.close()

    @property
    def empty(self) -> bool:
        """No connection is left."""
        return not self._connections and not self._opening

    def retire(self) -> None:
        """Take no more requests; those in progress may end."""
        self._closed = True
        self._looked_s = math.inf
        self.drop_idle()

    async def close(self) -> None:
        """Close every connection; requests in progress are lost."""
        self._closed = True
        self._looked_s = math.inf
        if self._sweeping is not None:
            self._sweeping.cancel()
        for call, opening in list(self._opening.items()):
            opening.cancel()
            _tell_soon(call, "it has left")
        for connection in list(self._connections):
            connection.close()
        while self._connections:
            self._emptied.clear()
            await self._emptied.wait()

    async def _resolve(self) -> None:
        with contextlib.suppress(OSError):  # the calls that need a new connection report it
            await self._look_up()

    async def _look_up(self) -> list[str]:
        """Resolve the host's name; no request is sent to an address that it has lost.

        Raises:
            OSError: no address is known.
        """
        found = await self._addresses.now(self._connect_s / 2)
        left = {c for c in self._connections if self._addresses.has_left(c.address)}
        for connection in left:
            connection.expires_s = -math.inf
        for connection, _ in self._idle:
            if connection in left:
                connection.close()  # `carry` refuses it until it has left the list
        return found

    async def _open(self, call: HttpCall) -> None:
        try:
            async with asyncio.timeout(self._connect_s):
                connection = await self._connect()
        except TimeoutError:
            _tell_soon(call, f"no connection within {self._connect_s:g} s")
        except OSError as error:
            if is_local(error):
                self._short()
                await asyncio.sleep(LOCAL_PAUSE_S)
                _tell_soon(call, "no connection to spare", Cause.LOCAL)
            else:
                _tell_soon(call, _why(error))
        else:
            self._connections.add(connection)
            connection.carry(call, fresh=True)
        finally:
            self._opening.pop(call, None)

    async def _connect(self) -> UpstreamConnection:
        """Connect to the first of the host's addresses that accepts.

        Raises:
            OSError: none accepts, or none is known.
        """
        loop = asyncio.get_running_loop()
        refused: OSError | None = None
        for host in await self._look_up():
            began_s = self._clock()
            try:
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, self._clock), host, self._address.port
                )
            except OSError as error:
                refused = error
            else:
                # opening it took a round trip; a close takes no longer to arrive
                trips_s = 2 * (self._clock() - began_s)
                connection.resend_s = min(max(RESEND_S, trips_s), MOST_RESEND_S)
                connection.expires_s, connection.address = began_s + self._max_age_s, host
                return connection
        try:
            raise refused or OSError("no address")
        finally:
            refused = None  # its traceback refers to this frame: break the cycle

    def _schedule_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(self._idle_s / 2, self._sweep)

    def _sweep(self) -> None:
        """Close the connections that have been idle for too long, or are too old."""
        self._sweeping = None
        now_s = self._clock()
        for connection, until_s in self._idle:
            if until_s <= now_s:
                connection.close()
        self._idle = [kept for kept in self._idle if kept[1] > now_s]
        if self._idle:
            self._schedule_sweep()


def _tell_soon(call: HttpCall, why: str, cause: Cause = Cause.REFUSED) -> None:
    """Report from the loop itself: a receiver that fails does not end the task group.

    Where a connection with the request on it was lost before, this is not only a refusal: that
    request may be why nothing listens there any more.
    """
    lost = Lost(Cause.RESET if call.sent_before else cause, why)
    asyncio.get_running_loop().call_soon(call.end, (lost,))


def _why(error: Exception) -> str:
    """How it failed, without an address: clients read this."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return "cannot be reached"
