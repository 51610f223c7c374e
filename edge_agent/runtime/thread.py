"""Work in a thread that is waited for to its end, whoever stops wanting what comes of it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple

_Given = TypeVarTuple("_Given")
_Result = TypeVar("_Result")


async def in_thread(
    executor: Executor, work: Callable[[*_Given], _Result], *given: *_Given
) -> _Result:
    """What `work` gives in a thread of `executor`.

    A thread cannot be stopped: cancelled, this ends once the thread is free again, so that whoever
    counts what runs counts right. Work that has not begun does not begin.
    """
    running = executor.submit(work, *given)
    outcome = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(outcome)
    except asyncio.CancelledError:
        if not running.cancel():
            await asyncio.wait([outcome])
        raise
