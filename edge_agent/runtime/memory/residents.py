"""The models in memory and the budget that they share: who comes in, and who leaves for it."""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol

from isochrone.edge_agent.runtime.memory.residency import NoRoomNow, Residency
from isochrone.router.errors import NoSpace

_LOOK_S = 0.05
"""A model that waits for room looks again so often: time passes, too, for those in memory."""


class Resident(Hashable, Protocol):
    """A model that may be in memory; as a text, its name and version.

    A version that came anew is another one than that which is still leaving under the same name.
    """

    @property
    def size_bytes(self) -> int:
        """What it takes in memory: measured, or the size of its file before it ever was loaded."""
        ...

    @property
    def expected_s(self) -> float:
        """What loading it again would take."""
        ...

    @property
    def evictable(self) -> bool:
        """It is in memory, no call runs, and it need not stay."""
        ...

    @property
    def pinned(self) -> bool:
        """It has to stay in memory."""
        ...

    @property
    def rested(self) -> bool:
        """It is in memory for so long that another may have its place, though calls run."""
        ...

    @property
    def leaving(self) -> bool:
        """It gives its memory back once its running calls have ended."""
        ...

    def put_away(self, cause: str) -> None:
        """Give the memory back; who calls it later has it loaded again."""
        ...

    def stay(self) -> None:
        """Keep the memory after all, where running calls have kept it until now."""
        ...


class Residents:
    """Puts into practice what a `Residency` says.

    Models whose callers can wait stand in a line: the first of them gets the room of whichever has
    been in memory for its least stay. So every model has its turn, and none is loaded more often.
    """

    def __init__(self, residency: Residency[Resident]) -> None:
        self._residency = residency
        self._line: dict[object, Resident] = {}
        """By the caller that waits, first come first."""
        self._watching: set[asyncio.Future[None]] = set()
        self._yielding: set[Resident] = set()
        """Those that were told to leave for the first in line."""

    @property
    def budget_bytes(self) -> int:
        """What all models may take together."""
        return self._residency.budget_bytes

    @property
    def taken_bytes(self) -> int:
        """What they take."""
        return self._residency.taken_bytes

    def count_runs(self, size_bytes: int) -> None:
        """Runs that go on take so much besides."""
        self._residency.runs_bytes = size_bytes
        self.changed()

    @property
    def any_leaving(self) -> bool:
        """One of them is about to give its memory back."""
        return any(one.leaving for one in self._residency.sizes())

    @property
    def awaited(self) -> bool:
        """A model waits for room."""
        return bool(self._line)

    def sizes(self) -> list[tuple[str, int]]:
        """Each model in memory, and what it takes in bytes."""
        return [(str(one), size_bytes) for one, size_bytes in self._residency.sizes().items()]

    def has_room(self, newcomer: Resident) -> bool:
        """It fits without anybody leaving."""
        return self.taken_bytes + newcomer.size_bytes <= self.budget_bytes

    def admit(self, newcomer: Resident) -> None:
        """Count it as present, and put away whoever has to leave for it.

        Also to be called when its size is known better: then it counts with the new one.

        Raises:
            NoSpace, NoRoomNow: it does not fit; it counts no longer.
        """
        self._admit(newcomer, [one for one in self._residency.sizes() if one.evictable])

    def admit_in_turn(self, newcomer: Resident) -> None:
        """The same for one whose callers can wait: after those who came first, and nobody leaves
        before its least stay is over.

        Raises:
            NoSpace, NoRoomNow: it does not fit, or it is not its turn; `turn` waits for it.
        """
        if next(iter(self._line.values()), newcomer) is not newcomer:
            raise NoRoomNow(f"{newcomer} waits for others to have their room", retry_after_s=1.0)
        rested = [one for one in self._residency.sizes() if one.evictable and one.rested]
        try:
            self._admit(newcomer, rested)
        except NoRoomNow:
            if self._line:
                self._ask_to_leave(newcomer)
            raise
        for caller in [caller for caller, one in self._line.items() if one is newcomer]:
            del self._line[caller]
        self._yielding.clear()
        self.changed()

    @contextmanager
    def in_line(self, newcomer: Resident) -> Iterator[None]:
        """A caller of it waits; when the last one has gone in vain, the others may stay."""
        caller = object()
        self._line[caller] = newcomer
        try:
            yield
        finally:
            first = next(iter(self._line), None) is caller
            self._line.pop(caller, None)
            if first and newcomer not in self._line.values():
                for one in self._yielding:
                    one.stay()
                self._yielding.clear()
            self.changed()

    async def turn(self, newcomer: Resident, timeout_s: float) -> None:
        """Wait until it is worth while to try again, or the time is up."""
        is_first = next(iter(self._line.values()), None) is newcomer
        watch = asyncio.get_running_loop().create_future()
        self._watching.add(watch)
        try:
            await asyncio.wait([watch], timeout=min(_LOOK_S, timeout_s) if is_first else timeout_s)
        finally:
            self._watching.discard(watch)

    def changed(self) -> None:
        """Something that a model waits for may have come."""
        for watch in self._watching:
            if not watch.done():
                watch.set_result(None)

    def shrink(self) -> bool:
        """Put away the idle model that is worth least, if there is one: memory runs out."""
        least = self._residency.least([one for one in self._residency.sizes() if one.evictable])
        if least is not None:
            least.put_away("evicted")
        return least is not None

    def used(self, resident: Resident) -> None:
        """A call of it begins."""
        self._residency.used(resident)

    def leave(self, resident: Resident) -> None:
        """It is out of memory; nothing where it was not in."""
        self._residency.leave(resident)
        self._yielding.discard(resident)
        self.changed()

    def _admit(self, newcomer: Resident, idle: list[Resident]) -> None:
        kept = [one for one in self._residency.sizes() if one.pinned]
        try:
            leaving = self._residency.make_room(newcomer, newcomer.size_bytes, idle, kept)
        except (NoSpace, NoRoomNow):
            self.leave(newcomer)
            raise
        for one in leaving:
            one.put_away("evicted")
        self._residency.enter(newcomer, newcomer.size_bytes, newcomer.expected_s)

    def _ask_to_leave(self, newcomer: Resident) -> None:
        """Those that have been there for long enough take no new call before it had its turn."""
        present = self._residency.sizes()
        leaving = [one for one in present if one.leaving]
        others = [one for one in present if one.rested and not one.pinned and not one.leaving]
        for one in self._residency.would_leave(newcomer, newcomer.size_bytes, leaving, others):
            self._yielding.add(one)
            one.put_away("evicted")
