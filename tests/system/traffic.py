"""Clients who send on a schedule, whoever answers, and what became of each of their requests."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import aiohttp

from isochrone.router.process.clock import monotonic
from tests.system.town import Town

T = TypeVar("T")

GOOD = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
).encode()
"""What the model `double` takes."""
INFER = "/v2/models/double/infer"
Fleet = dict[str, dict[str, Any]]
"""What the router says of each endpoint, by name."""
LOST = 0
"""The status of a request that nothing answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to a request that left at `sent_s`, an instant, and `done_s` when."""

    request_id: str
    sent_s: float
    done_s: float
    status: int
    endpoint: str | None = None
    tries: int = 0


class Clients:
    """Everybody who talks to one router, and who looks at it from the administration's side."""

    def __init__(self, town: Town, session: aiohttp.ClientSession) -> None:
        self.url = town.router.url
        self._admin = town.router.admin
        self._session = session
        self._count = 0

    async def infer(self, body: bytes = GOOD, *, timeout_s: float = 30.0, **headers: str) -> Answer:
        """One request, given up after `timeout_s`; unless it is in `headers`, nobody is told."""
        self._count += 1
        request_id = f"request-{self._count}"
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields["x-request-id"] = request_id
        sent_s = monotonic()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.post(self.url + INFER, data=body, headers=fields) as response,
            ):
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return Answer(request_id, sent_s, monotonic(), LOST)
        endpoint = response.headers.get("x-isochrone-endpoint")
        tries = int(response.headers.get("x-isochrone-attempts", "0"))
        return Answer(request_id, sent_s, monotonic(), response.status, endpoint, tries)

    async def served_per_s(self, callers: int, for_s: float) -> float:
        """What so many get, each of whom asks again as soon as it is answered."""
        end_s = monotonic() + for_s

        async def served() -> int:
            count = 0
            while monotonic() < end_s:
                count += (await self.infer()).status == 200
            return count

        return sum(await asyncio.gather(*(served() for _ in range(callers)))) / for_s

    async def decision(self, request_id: str) -> dict[str, Any]:
        """What the router says of a request that has ended."""
        return await self._ask(f"/isochrone/decisions/{request_id}")

    async def fleet(self) -> Fleet:
        """The endpoints, by name."""
        told = await self._ask("/isochrone/fleet")
        return {endpoint["name"]: endpoint for endpoint in told["endpoints"]}

    async def settled(self, *names: str) -> float:
        """Wait until exactly these endpoints are in; returns that instant."""
        return await self.seen(lambda f: {n for n, e in f.items() if e["out"] is None} == {*names})

    async def warm(self, *names: str) -> float:
        """Wait until these are in, and known to hold the model warm; returns that instant.

        What was loading when an agent joined is seen anew when it is asked or used.
        """
        return await self.seen(lambda f: all(n in f and _serves(f[n]) for n in names))

    async def seen(self, condition: Callable[[Fleet], bool], within_s: float = 20.0) -> float:
        """Wait until the router sees its fleet so; returns that instant."""
        async with asyncio.timeout(within_s):
            while not condition(await self.fleet()):  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.01)
        return monotonic()

    async def _ask(self, path: str) -> dict[str, Any]:
        async with self._session.get(self._admin + path) as response:
            assert response.status == 200, path
            told: dict[str, Any] = await response.json()
            return told


def _serves(endpoint: dict[str, Any]) -> bool:
    states = {model["name"]: model["state"] for model in endpoint["models"]}
    return endpoint["out"] is None and states.get("double") == "warm"


@asynccontextmanager
async def flowing(
    send: Callable[[], Awaitable[T]], offsets_s: Iterable[float]
) -> AsyncIterator[list[T]]:
    """Send at each offset from now while the block runs, however slow the answers are.

    What comes of it is in the list as it comes; after the block nothing is under way any more.
    """
    came: list[T] = []

    async def one() -> None:
        came.append(await send())

    async def begin(tasks: asyncio.TaskGroup) -> None:
        start_s = monotonic()
        for offset_s in offsets_s:
            left_s = start_s + offset_s - monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)
            tasks.create_task(one())

    async with asyncio.TaskGroup() as tasks:
        beginning = tasks.create_task(begin(tasks))
        yield came
        beginning.cancel()


def evenly(per_s: float) -> Iterator[float]:
    """Without end, at equal distances."""
    return (number / per_s for number in itertools.count())


def by_chance(per_s: float, rng: Random) -> Iterator[float]:
    """Without end, from many who know nothing of each other (Poisson)."""
    return itertools.accumulate(rng.expovariate(per_s) for _ in itertools.count())
