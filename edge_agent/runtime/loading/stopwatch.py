"""How long a model's own work takes: the engine's runs, without what brings requests to it."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from statistics import median
from typing import ParamSpec, TypeVar

from isochrone.edge_agent.runtime.calls.model import Model
from isochrone.edge_agent.runtime.package.thread import done_here
from isochrone.router.process.clock import Clock
from isochrone.router.wire.message import InferRequest

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Stopwatch(Executor):
    """Runs work at once in the thread that hands it over; `spent_s` is the time inside it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.spent_s = 0.0

    def submit(
        self, fn: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> Future[_Result]:
        """The work's outcome, which is there already."""
        began_s = self._clock()
        done = done_here(fn, *args, **kwargs)
        self.spent_s += self._clock() - began_s
        return done


@dataclass(frozen=True, slots=True)
class Timed:
    """A warm model whose work runs in `stopwatch`, and what it is asked in every round."""

    model: Model
    requests: Sequence[InferRequest]
    stopwatch: Stopwatch

    async def seconds(self) -> float:
        """Of one round."""
        before_s = self.stopwatch.spent_s
        for request in self.requests:
            async for _ in self.model.request(request):
                pass
        return self.stopwatch.spent_s - before_s


def medians_s(models: Sequence[Timed], *, rounds: int, most_s: float) -> list[float]:
    """The median round of each, as many rounds as fit into `most_s`, at least 1, at most `rounds`.

    The models take turns and begin in another order every time, so that a machine that is busy
    for a moment slows all of them. Must run outside any event loop.
    """
    return asyncio.run(_medians_s(models, rounds, most_s))


async def _medians_s(models: Sequence[Timed], rounds: int, most_s: float) -> list[float]:
    found: list[list[float]] = [[] for _ in models]
    spent_s = 0.0
    for number in range(rounds):
        for turn in range(len(models)):
            which = (number + turn) % len(models)
            seconds = await models[which].seconds()
            found[which].append(seconds)
            spent_s += seconds
        if spent_s > most_s:
            break
    return [median(each) for each in found]
