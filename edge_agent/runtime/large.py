"""Work on large bodies and answers: in threads, few at a time, and what it took is given back."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge_agent.runtime import memory
from edge_agent.runtime.thread import in_thread

T = TypeVar("T")

AT_ONCE = 2
"""Each has a body, what it becomes and the objects of a step in memory."""
_TRIM_S = 1.0


class LargeWork:
    """Lets few at a time into an `async with`, in which `run` does their work.

    Afterwards, at most once in `_TRIM_S`, `give_back` returns freed memory to the system.
    """

    def __init__(self, give_back: Callable[[], None] = memory.give_back) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._executor = ThreadPoolExecutor(AT_ONCE, "large")
        self._give_back = give_back
        self._trimming: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives; cancelled, this waits for its end: until then it takes memory."""
        return await in_thread(self._executor, work)

    async def __aenter__(self) -> None:
        await self._turns.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._turns.release()
        if self._trimming is None:
            self._trimming = asyncio.get_running_loop().call_later(_TRIM_S, self._trim)

    def _trim(self) -> None:
        self._trimming = None
        self._executor.submit(self._give_back)
