"""The whole system as processes on this machine, for as long as an `async with` block runs."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import aiohttp

from isochrone.deploy.local.layout import AGENTS, CLOUD, EDGE_MODEL, REGION_OF, ROUTERS, Layout
from isochrone.deploy.local.part import Part, PartError
from isochrone.router.process.clock import Clock, monotonic

Tell = Callable[[str], None]
"""Takes a line of progress for a person."""

START_S = 90.0
SETTLE_S = 30.0
_LOOK_S = 0.05
_WATCH_S = 0.5
_CLOUD_GRACE_S = 20.0


class System:
    """Two routers, three agents, one Ray Serve application, and the relays between them.

    Parts can be stopped, killed and started again by name; the end of the block stops them all.
    """

    def __init__(self, layout: Layout, tell: Tell, *, clock: Clock = monotonic) -> None:
        self.layout = layout
        self._tell = tell
        self._clock = clock
        self._parts = {
            "relays": self._process("relays", "isochrone.deploy.local.relays"),
            **{name: self._process(name, "isochrone.deploy.cli", "router") for name in ROUTERS},
            **{name: self._process(name, "isochrone.deploy.cli", "agent") for name in AGENTS},
            CLOUD: self._process(CLOUD, "isochrone.deploy.cli", "cloud"),
        }
        self._http: aiohttp.ClientSession | None = None

    @property
    def parts(self) -> list[Part]:
        """All of them."""
        return list(self._parts.values())

    def part(self, name: str) -> Part:
        """A router, an agent, the cloud or the relays."""
        return self._parts[name]

    @property
    def http(self) -> aiohttp.ClientSession:
        """For asking the parts how they are."""
        assert self._http is not None  # opened by the block
        return self._http

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        try:
            async with asyncio.TaskGroup() as group:
                for part in self.parts:
                    group.create_task(self._start(part))
            await self.settled()
        except BaseException as error:  # whatever it was, nothing may stay behind
            await self._end()
            raise _first_cause(error) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def fleet(self, router: str) -> dict[str, dict[str, Any]]:
        """What a router knows of each endpoint, by name."""
        url = f"{self.layout.admin_url(router)}/isochrone/fleet"
        async with self.http.get(url) as answer:
            told = await answer.json()
        return {endpoint["name"]: endpoint for endpoint in told["endpoints"]}

    async def settled(
        self, states: Mapping[str, str | None] | None = None, *, timeout_s: float = SETTLE_S
    ) -> None:
        """Wait until both routers see each endpoint's edge model in this state (None: it is out).

        Without `states`: until all are warm and measured.

        Raises:
            PartError: that did not come about in time.
        """
        wanted = states or dict.fromkeys(REGION_OF, "warm")
        until_s = self._clock() + timeout_s
        for router in ROUTERS:
            while seen := _unlike(await self.fleet(router), wanted):
                if self._clock() > until_s:
                    raise PartError(f"router {router} still sees {seen} after {timeout_s:g} s")
                await asyncio.sleep(_LOOK_S)

    def dead(self) -> list[Part]:
        """Parts that were started and do not run."""
        return [part for part in self.parts if part.pid and not part.running]

    async def watch(self) -> Part:
        """Wait until a part ends by itself; that part."""
        while True:
            if dead := self.dead():
                return dead[0]
            await asyncio.sleep(_WATCH_S)

    def _process(self, name: str, module: str, *words: str) -> Part:
        command = [sys.executable, "-m", module, *words, "--config", str(self.layout.config(name))]
        return Part(name, command, self.layout.folder, clock=self._clock)

    async def _start(self, part: Part) -> None:
        start_s = self._clock()
        await part.start(START_S)
        self._tell(f"{part.name}: ready after {self._clock() - start_s:.1f} s")

    async def _end(self) -> None:
        if self._http is not None:
            await self._http.close()
        try:
            await _stop_all(self.parts)
        finally:  # a second Ctrl-C ends the waiting, not the cleaning up
            for part in self.parts:
                part.kill()


async def _stop_all(parts: Iterable[Part]) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part.stop(_CLOUD_GRACE_S if part.name == CLOUD else 10.0))


def _unlike(fleet: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, str | None]) -> str:
    """The first endpoint that is not as wanted; empty where all are."""
    for name, state in wanted.items():
        seen = _state(fleet.get(name))
        if seen != state:
            return f"{name} {seen or 'out'} instead of {state or 'out'}"
    return ""


def _state(endpoint: Mapping[str, Any] | None) -> str | None:
    """The edge model's state at an endpoint; None where no traffic may go there."""
    if endpoint is None or endpoint["out"]:
        return None
    states = [m["state"] for m in endpoint["models"] if m["name"] == EDGE_MODEL]
    return states[0] if states else "absent"


def _first_cause(error: BaseException) -> BaseException:
    """The first of a group of errors that were raised together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
