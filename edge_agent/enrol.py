"""Joining a router and staying: patient, with jitter, for ever; serving never waits for it.

A change is told at once, so that routers need not ask idle agents often.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from http import HTTPStatus
from random import Random
from urllib.parse import quote

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout
from tenacity import AsyncRetrying, retry_if_exception_type

from isochrone.edge_agent.pause import Pause
from isochrone.router.errors import BadRequest, TooLarge
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.report import Enrolment, Lease

_TIMEOUT = ClientTimeout(total=5.0, connect=2.0)
_LEAVE_TIMEOUT = ClientTimeout(total=1.0)
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 5.0
"""No longer than a lease is renewed after: a router that comes back hears of us within two."""
_GRAIN_S = 0.2
"""Changes within this time are told together."""
_SHOWN_BYTES = 300
_UNREACHED = (ClientError, OSError, ValueError)
"""What asking may raise: a name that is none is a ValueError, a socket's refusal an OSError."""
_log = logging.getLogger("isochrone.agent.enrol")


class NotEnrolledError(Exception):
    """The router could not be reached, or said no; it is asked again."""


class Enroller:
    """One agent's membership with one router."""

    def __init__(
        self,
        router_url: str,
        enrolment: Callable[[], Enrolment],
        session: ClientSession,
        rng: Random,
    ) -> None:
        """`enrolment` makes what is sent, anew each time."""
        self._url = f"{router_url}/isochrone/agents"
        self._enrolment = enrolment
        self._session = session
        self._pause = Pause(rng, _FIRST_WAIT_S, _LONGEST_WAIT_S)
        self._told = ""
        self._changed = asyncio.Event()

    @property
    def title(self) -> str:
        """Where it joins."""
        return self._url

    def renew_soon(self) -> None:
        """What we say of ourselves has changed: do not wait for the lease to be due."""
        self._changed.set()

    async def keep(self) -> None:
        """Join, and renew for as long as this is not cancelled."""
        while True:
            lease: Lease = await self._retrying(self._join)
            await self._wait_due(lease.renew_s)

    async def leave(self) -> None:
        """Tell the router that this agent is going; its lease runs out where it does not hear."""
        own = self._enrolment()
        farewell = f"{self._url}/{own.name}?instance={quote(own.instance)}"
        try:
            async with self._session.delete(
                farewell, timeout=_LEAVE_TIMEOUT, allow_redirects=False
            ) as answer:
                self._tell(logging.INFO, f"left, {answer.status}")
        except _UNREACHED as error:
            self._tell(logging.INFO, f"not told of our leaving: {_text(error)}")

    async def _wait_due(self, renew_s: float) -> None:
        grain_s = min(_GRAIN_S, renew_s)
        await asyncio.sleep(grain_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(renew_s - grain_s):
                await self._changed.wait()

    async def _join(self) -> Lease:
        self._changed.clear()  # what changes from here on is told by the next one
        body = msgspec.json.encode(self._enrolment())
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers={"content-type": "application/json"},
                timeout=_TIMEOUT,
                allow_redirects=False,
            ) as answer:
                lease = self._lease(answer.status, await answer.content.read(1 << 16))
        except _UNREACHED as error:
            self._tell(logging.WARNING, f"not reached: {_text(error)}")
            raise NotEnrolledError from error
        self._tell(logging.INFO, "enrolled")
        return lease

    def _lease(self, status: int, body: bytes) -> Lease:
        try:
            if status == HTTPStatus.OK:
                return read_json(body, Lease, "answered no lease")
        except (BadRequest, TooLarge) as error:
            self._tell(logging.ERROR, error.message)
            raise NotEnrolledError from error
        shown = body[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        self._tell(logging.ERROR, f"refused us with {status}: {shown!r}")
        raise NotEnrolledError

    @property
    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception_type(NotEnrolledError),
            wait=self._pause,
        )

    def _tell(self, level: int, what: str) -> None:
        """Once per change: a router that stays away does not fill the log."""
        if what != self._told:
            self._told = what
            _log.log(level, "router %s: %s", self._url, what)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
