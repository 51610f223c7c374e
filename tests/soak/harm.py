"""What happens to an agent meanwhile, by chance: a seed gives the same events again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

import aiohttp

from tests.soak.agent import MODELS, SoakedAgent

_GENTLE = ("load", "unload", "wake", "spoil")
_ROUGH = (*_GENTLE, "freeze", "kill")
_PAUSE_S = (0.1, 1.0)
_LONGEST_FREEZE_S = 2.0
_LONGEST_SPOILT_S = 2.0


class Harm:
    """Does something to one agent, again and again; a rough one also kills and freezes it."""

    def __init__(
        self, agent: SoakedAgent, session: aiohttp.ClientSession, rng: Random, *, rough: bool
    ) -> None:
        self.done: Counter[str] = Counter()
        self._agent = agent
        self._session = session
        self._rng = rng
        self._deeds: dict[str, Callable[[], Awaitable[None]]] = {
            "load": lambda: self._order("load"),
            "unload": lambda: self._order("unload"),
            "wake": self._wake,
            "spoil": self._spoil,
            "freeze": lambda: agent.freeze(rng.uniform(0.1, _LONGEST_FREEZE_S)),
            "kill": agent.kill,
        }
        self._chosen = _ROUGH if rough else _GENTLE

    async def until(self, end_s: float) -> None:
        """One deed after the other until `end_s`, on the event loop's clock."""
        loop = asyncio.get_running_loop()
        while loop.time() < end_s:
            name = self._rng.choice(self._chosen)
            try:
                await self._deeds[name]()
            except (aiohttp.ClientError, OSError):
                self.done["not heard"] += 1
            else:
                self.done[name] += 1
            await asyncio.sleep(self._rng.uniform(*_PAUSE_S))

    async def _order(self, verb: str, model: str | None = None) -> None:
        model = model or self._rng.choice(MODELS)
        url = f"{self._agent.admin}/v2/repository/models/{model}/{verb}"
        async with self._session.post(url) as answer:
            await answer.read()

    async def _wake(self) -> None:
        wish = {"model": self._rng.choice(MODELS)}
        async with self._session.post(f"{self._agent.url}/isochrone/wake", json=wish) as answer:
            await answer.read()

    async def _spoil(self) -> None:
        """A file that is spoilt while its model is unloaded and asked for again."""
        model = self._rng.choice(MODELS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._agent.spoil(model, self._rng.uniform(0.2, _LONGEST_SPOILT_S)))
            await self._order("unload", model)
            await self._order("load", model)
