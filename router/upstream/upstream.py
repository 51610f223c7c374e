"""One try on one endpoint: a way to send a request there and hear what comes back.

HTTP/1.1 over kept connections is the first kind of way; nothing outside knows which kind it uses.
"""

import asyncio
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
    encode_request,
)
from isochrone.router.wire.http import Request
from isochrone.router.wire.url import parse_url

RESOLVE_S = 5.0
"""How old what is known of a host's addresses may be where it is used."""


class Call(Protocol):
    """One request under way; after `cancel` and after End or Lost no event comes."""

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        ...

    def pause(self) -> None:
        """Let the answer wait: what has been read already may still come."""
        ...

    def resume(self) -> None:
        """Let it come again."""
        ...


class Upstream(Protocol):
    """A way to one endpoint."""

    def send(
        self,
        request: Request,
        on_events: OnEvents,
        *,
        once: bool = False,
        again: Callable[[], bool] = lambda: True,
    ) -> Call:
        """Send a request; its events come later, never before this returns.

        `once`: it must not arrive twice, whatever that costs. `again` gives leave to send it a
        second time where the first may have arrived.
        """
        ...

    @property
    def empty(self) -> bool:
        """Nothing is open any more."""
        ...

    def retire(self) -> None:
        """Take no more requests; what is under way may end."""
        ...

    async def close(self) -> None:
        """Close the way; what is under way is lost."""
        ...


LOCAL_PAUSE_S = 0.1
"""That this machine lacks what a connection needs is told so much later: no storm of tries."""


class HttpUpstream:
    """Kept HTTP/1.1 connections to one address, as many as are needed at once.

    `connect_s` bounds the making of a connection, `idle_s` how long one is kept unused, `max_idle`
    how many are; one older than `max_age_s` carries no further request, nor does one to an address
    that the host's name has lost. `short` is called where a connection cannot be made for want of
    descriptors.
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
        """Nothing is opened yet.

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

        A kept one may be closing, and then the request is sent again, with leave from `again`: not
        if it goes only `once`, and not where the connection is lost so late that the endpoint must
        have had it.

        Raises:
            ValueError: a header field or the query would end its line.
        """
        message = encode_request(request, self._host)
        call = HttpCall(self, message, request.method, on_events, again)
        if self._looked_s < math.inf:
            self._look_up()
        connection = None if once else self._kept()
        if connection is not None:
            connection.carry(call, fresh=False)
        else:
            self.open_for(call)
        return call

    def open_for(self, call: HttpCall) -> None:
        """Send on a new connection."""
        if self._closed:
            _tell_soon(call, "it has left")
            return
        self._opening[call] = self._tasks.create_task(self._open(call))

    def stop_opening(self, call: HttpCall) -> None:
        """The connection that is being made for a call is not needed."""
        opening = self._opening.get(call)
        if opening is not None:
            opening.cancel()

    def keep(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose answer is whole."""
        now_s = self._clock()
        if self._closed or len(self._idle) >= self._max_idle or self._is_spent(connection, now_s):
            connection.close()
            return
        self._idle.append((connection, now_s))
        if self._sweeping is None:
            self._schedule_sweep()

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self._idle = [kept for kept in self._idle if kept[0] is not connection]
        if not self._connections:
            self._emptied.set()

    def drop_idle(self) -> None:
        """Close what is kept unused."""
        for connection, _ in list(self._idle):
            connection.close()

    @property
    def empty(self) -> bool:
        """No connection is left."""
        return not self._connections and not self._opening

    def retire(self) -> None:
        """Take no more requests; what is under way may end."""
        self._closed = True
        self.drop_idle()

    async def close(self) -> None:
        """Close every connection; what is under way is lost."""
        self._closed = True
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

    def _kept(self) -> UpstreamConnection | None:
        """The connection that was used last: the others may grow old and go."""
        while self._idle:
            connection, since_s = self._idle.pop()
            now_s = self._clock()
            fresh = now_s - since_s < self._idle_s and not self._is_spent(connection, now_s)
            if connection.usable and fresh:
                return connection
            connection.close()
        return None

    def _is_spent(self, connection: UpstreamConnection, now_s: float) -> bool:
        """It is too old, or leads to where the host's name no longer does."""
        old = now_s - connection.made_s >= self._max_age_s
        return old or self._addresses.has_left(connection.address)

    def _look_up(self) -> None:
        """Resolve the host's name anew, beside the requests, where that is long ago."""
        now_s = self._clock()
        if now_s - self._looked_s >= RESOLVE_S and not self._closed:
            self._looked_s = now_s
            self._tasks.create_task(self._resolve())

    async def _resolve(self) -> None:
        try:
            await self._addresses.now(self._connect_s / 2)
        except OSError:
            return  # whoever needs a connection is told
        for connection, _ in list(self._idle):
            if self._addresses.has_left(connection.address):
                connection.close()

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
        """A connection to the first of the host's addresses that takes one.

        Raises:
            OSError: none does, or none is known.
        """
        loop = asyncio.get_running_loop()
        refused: OSError | None = None
        for host in await self._addresses.now(self._connect_s / 2):
            began_s = self._clock()
            try:
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, self._clock), host, self._address.port
                )
            except OSError as error:
                refused = error
            else:
                # making it took a round trip: the news that it is closed takes no longer
                trips_s = 2 * (self._clock() - began_s)
                connection.resend_s = min(max(RESEND_S, trips_s), MOST_RESEND_S)
                connection.made_s, connection.address = began_s, host
                return connection
        try:
            raise refused or OSError("no address")
        finally:
            refused = None  # it knows this frame from now on

    def _schedule_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(self._idle_s / 2, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long: the front of the stack."""
        self._sweeping = None
        oldest_s = self._clock() - self._idle_s
        for connection, since_s in self._idle:
            if since_s <= oldest_s:
                connection.close()
        self._idle = [kept for kept in self._idle if kept[1] > oldest_s]
        if self._idle:
            self._schedule_sweep()


def _tell_soon(call: HttpCall, why: str, cause: Cause = Cause.REFUSED) -> None:
    """From the loop itself: whoever hears of it may fail without ending the task group.

    Where a connection with the request on it was lost before, it is not only a refusal: that
    request may be why nobody listens there any more.
    """
    lost = Lost(Cause.RESET if call.was_there else cause, why)
    asyncio.get_running_loop().call_soon(call.deliver, (lost,))


def _why(error: Exception) -> str:
    """Which way it failed, without an address: clients read this."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return "cannot be reached"
