"""Work on large bodies and answers: in threads, few at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from isochrone.edge_agent.runtime.package.thread import in_thread

T = TypeVar("T")

AT_ONCE = 2
"""Each has a body, what it becomes and the objects of a step in memory."""


class LargeWork:
    """Lets few at a time into an `async with`, in which `run` does their work."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._executor = ThreadPoolExecutor(AT_ONCE, "large")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives; cancelled, this waits for its end: until then it takes memory."""
        return await in_thread(self._executor, work)

    async def __aenter__(self) -> None:
        await self._turns.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._turns.release()
