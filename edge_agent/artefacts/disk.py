"""One thread for everything that touches the store: the event loop never waits for a disk."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """Does what it is given in order; what a cancelled caller had begun still ends first."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def do(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What `work` answers."""
        return await asyncio.wrap_future(self._thread.submit(work, *args, **named))

    @asynccontextmanager
    async def held(self, context: AbstractContextManager[T]) -> AsyncIterator[T]:
        """A context that is entered and left there."""
        stack = ExitStack()
        try:
            yield await self.do(stack.enter_context, context)
        finally:
            self._thread.submit(stack.close)

    def close(self) -> None:
        """Take nothing more; what was given is done."""
        self._thread.shutdown(wait=False)
