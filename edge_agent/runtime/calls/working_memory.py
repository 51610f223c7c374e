"""The memory that large runs take while they go on: counted before they begin.

It comes out of what the models leave of their budget. A run that needs more than that goes on
alone, if only the machine has it. What a run of that size takes is learned; where nothing near to
it is known, smaller parts of the same inputs are run first.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import ceil, gcd
from typing import NamedTuple

from isochrone.edge_agent.runtime.calls.model import DirectModel, Feed
from isochrone.edge_agent.runtime.calls.rows import Arrays
from isochrone.edge_agent.runtime.memory import process_memory as memory
from isochrone.edge_agent.runtime.memory.residents import Residents
from isochrone.edge_agent.runtime.package.thread import in_thread
from isochrone.router.errors import IsochroneError, NoSpace, Unavailable
from isochrone.router.process.clock import Clock
from isochrone.router.wire.tensor import TensorSpec

_LOOK_S = 0.05
_UNIT = 32
"""Networks halve their inputs up to five times: a size that divides by this stays so."""
_RETRY_S = 1.0


class Reserved(NamedTuple):
    """What a run on so many bytes may take, and whether nothing large goes on beside it."""

    input_bytes: int
    taken_bytes: int
    alone: bool


class WorkingMemory:
    """Reserves memory for large runs, first come first served. On one event loop."""

    def __init__(
        self,
        residents: Residents,
        left_bytes: Callable[[], int | None],
        held_bytes: Callable[[], int],
        clock: Clock,
    ) -> None:
        """`left_bytes` is what the machine can give to models now, where it is known.

        `held_bytes` is what all calls hold now: it comes back once they are answered.
        """
        self._residents = residents
        self._left_bytes = left_bytes
        self._held_bytes = held_bytes
        self._clock = clock
        self._line: dict[object, None] = {}
        self._reserved: dict[object, Reserved] = {}
        self.measures = memory.forget_peak() is not None
        """The system tells what a run took."""
        self.granted = 0
        """How many runs were; where it has changed, another began."""

    @property
    def running(self) -> int:
        """Large runs that go on."""
        return len(self._reserved)

    async def reserve(self, model: DirectModel, feed: Feed, until_s: float) -> Callable[[], None]:
        """Memory for a run, to be given back by calling what is returned.

        Raises:
            NoSpace: it takes more than the machine has.
            Unavailable: others need theirs until `until_s`.
        """
        input_bytes = size_bytes(feed.arrays)
        footprint = model.footprint
        while self.measures and not footprint.knows(input_bytes):
            part = _part(feed, model.takes, footprint.step_bytes(input_bytes))
            if part is None or not await self._tried(model, part, until_s):
                break
        needed_bytes = footprint.expected_bytes(input_bytes)
        alone = not footprint.knows(input_bytes)
        return await self._granted(model.name, Reserved(input_bytes, needed_bytes, alone), until_s)

    async def _tried(self, model: DirectModel, part: Feed, until_s: float) -> bool:
        """Run a part of the inputs to see what that takes."""
        input_bytes = size_bytes(part.arrays)
        expected = Reserved(input_bytes, model.footprint.expected_bytes(input_bytes), alone=True)
        try:
            release = await self._granted(model.name, expected, until_s)
        except NoSpace:  # nor does the whole fit, and its numbers are to be told
            return False
        try:
            taken_bytes = await in_thread(model.executor, measured, model, part)
        except IsochroneError:  # such a part is none that it can compute
            return False
        finally:
            release()
        model.footprint.learn(input_bytes, taken_bytes)
        return True

    async def _granted(self, name: str, wanted: Reserved, until_s: float) -> Callable[[], None]:
        run = object()
        self._line[run] = None
        try:
            while not self._fits(name, run, wanted):
                left_s = until_s - self._clock()
                if left_s <= 0:
                    raise Unavailable(
                        f"{name} needs {wanted.taken_bytes} bytes of memory for these inputs;"
                        f" other runs have {self._taken_bytes()}, calls hold {self._held_bytes()}",
                        retry_after_s=_RETRY_S,
                    )
                await asyncio.sleep(min(_LOOK_S, left_s))
        finally:
            del self._line[run]
        self._reserved[run] = wanted
        self.granted += 1
        self._count()
        return lambda: self._release(run)

    def _release(self, run: object) -> None:
        self._reserved.pop(run, None)
        self._count()

    def _count(self) -> None:
        self._residents.count_runs(self._taken_bytes())

    def _taken_bytes(self) -> int:
        return sum(one.taken_bytes for one in self._reserved.values())

    def _fits(self, name: str, run: object, wanted: Reserved) -> bool:
        """May it begin now?

        Raises:
            NoSpace: it could not even if all else were over.
        """
        if next(iter(self._line)) is not run or any(one.alone for one in self._reserved.values()):
            return False
        needed_bytes = self._taken_bytes() + wanted.taken_bytes
        residents = self._residents
        in_budget = residents.taken_bytes + needed_bytes <= residents.budget_bytes
        if self._reserved and (wanted.alone or not in_budget):
            return False
        left_bytes = self._left_bytes()
        if left_bytes is None or needed_bytes <= left_bytes:
            return True
        if self._reserved or residents.shrink() or residents.any_leaving:
            return False
        if needed_bytes > left_bytes + self._held_bytes() - wanted.input_bytes:
            raise NoSpace(
                f"{name} needs about {wanted.taken_bytes} bytes of memory for these inputs; this"
                f" machine has {max(0, left_bytes)} left for it: send smaller ones"
            )
        return False


def size_bytes(arrays: Arrays) -> int:
    """Of all inputs of a run."""
    return sum([array.nbytes for array in arrays.values()])


def measured(model: DirectModel, feed: Feed) -> int:
    """What a run takes at its peak, beyond what the process had."""
    before_bytes = memory.forget_peak() or 0
    model.compute(feed)
    return max(0, memory.peak_bytes() - before_bytes)


def _part(feed: Feed, takes: Sequence[TensorSpec], most_bytes: int) -> Feed | None:
    """The first part of the inputs, in all sizes that are open; None where that is not less."""
    shapes = {spec.name: spec.shape for spec in takes}
    total_bytes = size_bytes(feed.arrays)
    is_open: Mapping[str, list[bool]] = {
        name: [
            size < 0 and length > 1 for size, length in zip(shapes[name], one.shape, strict=True)
        ]
        for name, one in feed.arrays.items()
    }
    count = max(map(sum, is_open.values()), default=0)
    if not count:
        return None
    share = (most_bytes / total_bytes) ** (1 / count)
    arrays = {
        name: one[
            tuple(
                slice(_shorter(length, share) if may else length)
                for may, length in zip(is_open[name], one.shape, strict=True)
            )
        ]
        for name, one in feed.arrays.items()
    }
    return Feed(arrays, feed.outputs, frees=True) if size_bytes(arrays) < total_bytes else None


def _shorter(length: int, share: float) -> int:
    unit = gcd(length, _UNIT)
    return min(length, unit * max(1, ceil(length * share / unit)))
