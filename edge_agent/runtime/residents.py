"""The models in memory and the budget that they share: who comes in, and who leaves for it."""

from collections.abc import Hashable
from typing import Protocol

from edge_agent.runtime.residency import Residency
from router.errors import NoSpace


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

    def put_away(self, cause: str) -> None:
        """Give the memory back; who calls it later has it loaded again."""
        ...


class Residents:
    """Puts into practice what a `Residency` says."""

    def __init__(self, residency: Residency[Resident]) -> None:
        self._residency = residency

    @property
    def budget_bytes(self) -> int:
        """What all models may take together."""
        return self._residency.budget_bytes

    @property
    def taken_bytes(self) -> int:
        """What they take."""
        return self._residency.taken_bytes

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
            NoSpace: it does not fit; it counts no longer.
        """
        try:
            leaving = self._residency.make_room(newcomer, newcomer.size_bytes, self._evictable())
        except NoSpace:
            self.leave(newcomer)
            raise
        for one in leaving:
            one.put_away("evicted")
        self._residency.enter(newcomer, newcomer.size_bytes, newcomer.expected_s)

    def shrink(self) -> None:
        """Put away the idle model that is worth least, if there is one: memory runs out."""
        least = self._residency.least(self._evictable())
        if least is not None:
            least.put_away("evicted")

    def used(self, resident: Resident) -> None:
        """A call of it begins."""
        self._residency.used(resident)

    def leave(self, resident: Resident) -> None:
        """It is out of memory; nothing where it was not in."""
        self._residency.leave(resident)

    def _evictable(self) -> list[Resident]:
        return [one for one in self._residency.sizes() if one.evictable]
