"""Work in a thread that is waited for to its end, whoever stops wanting what comes of it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar, TypeVarTuple

_Given = TypeVarTuple("_Given")
_Named = ParamSpec("_Named")
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


def done_here(
    work: Callable[_Named, _Result], *given: _Named.args, **named: _Named.kwargs
) -> Future[_Result]:
    """What `work` came to, done at once in the thread that asks."""
    done: Future[_Result] = Future()
    try:
        done.set_result(work(*given, **named))
    except Exception as error:  # whoever waits for it is to see it, as with a thread
        done.set_exception(error)
    return done


class Warming(Executor):
    """Does work at once in the thread that hands it over, until the warm-up is over.

    From then on `runner` does it.
    """

    def __init__(self, runner: Executor) -> None:
        self._runner: Executor = runner
        self._is_over = False

    def submit(
        self, fn: Callable[_Named, _Result], /, *args: _Named.args, **kwargs: _Named.kwargs
    ) -> Future[_Result]:
        """The work's outcome."""
        if self._is_over:
            return self._runner.submit(fn, *args, **kwargs)
        return done_here(fn, *args, **kwargs)

    def over(self) -> None:
        """It is warm; a thread that answers is begun now, not when memory may be short."""
        self._is_over = True
        self._runner.submit(_nothing)


def _nothing() -> None:
    """Has a thread of an executor begun."""
