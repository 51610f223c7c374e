"""The models in memory and the budget that they share: who comes in, and who leaves for it."""

from typing import Protocol

from edge_agent.runtime.residency import Residency
from router.errors import NoSpace


class Resident(Protocol):
    """A model that may be in memory."""

    @property
    def title(self) -> str:
        """Its name and version."""
        ...

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

    def put_away(self, cause: str) -> None:
        """Give the memory back; who calls it later has it loaded again."""
        ...


class Residents:
    """Puts into practice what a `Residency` says."""

    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._present: dict[str, Resident] = {}

    @property
    def budget_bytes(self) -> int:
        """What all models may take together."""
        return self._residency.budget_bytes

    @property
    def taken_bytes(self) -> int:
        """What they take."""
        return self._residency.taken_bytes

    def sizes(self) -> dict[str, int]:
        """What each model in memory takes, in bytes, by title."""
        return self._residency.sizes()

    def has_room(self, newcomer: Resident) -> bool:
        """It fits without anybody leaving."""
        return self.taken_bytes + newcomer.size_bytes <= self.budget_bytes

    def admit(self, newcomer: Resident) -> None:
        """Count it as present, and put away whoever has to leave for it.

        Also to be called when its size is known better: then it counts with the new one.

        Raises:
            NoSpace: it does not fit; it counts no longer.
        """
        try:
            leaving = self._residency.make_room(
                newcomer.title, newcomer.size_bytes, self._evictable()
            )
        except NoSpace:
            self.leave(newcomer)
            raise
        for title in leaving:
            self._present.pop(title).put_away("evicted")
        self._present[newcomer.title] = newcomer
        self._residency.enter(newcomer.title, newcomer.size_bytes, newcomer.expected_s)

    def shrink(self) -> None:
        """Put away the idle model that is worth least, if there is one: memory runs out."""
        title = self._residency.least(self._evictable())
        if title is not None:
            self._present[title].put_away("evicted")

    def used(self, resident: Resident) -> None:
        """A call of it begins."""
        self._residency.used(resident.title)

    def leave(self, resident: Resident) -> None:
        """It is out of memory; nothing where it was not in."""
        if self._present.get(resident.title) is resident:
            del self._present[resident.title]
            self._residency.leave(resident.title)

    def _evictable(self) -> list[str]:
        return [title for title, one in self._present.items() if one.evictable]
