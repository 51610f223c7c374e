"""Many instants, of which few are waited for to the end: a timing wheel without a turn.

Setting and clearing cost the same however many there are, and what is cleared leaves nothing
behind (Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP 1987). Pure.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

GRAIN_S = 0.01

T = TypeVar("T")


class Timers(Generic[T]):
    """Things by the instant at which they are due. Nothing is told too early, or twice."""

    def __init__(self) -> None:
        self._spokes: dict[int, dict[T, float]] = {}
        self._spoke_of: dict[T, int] = {}
        self._looked = -1

    def __len__(self) -> int:
        return len(self._spoke_of)

    def __iter__(self) -> Iterator[T]:
        return iter(self._spoke_of)

    def __contains__(self, due: T) -> bool:
        return due in self._spoke_of

    def set(self, due: T, at_s: float) -> None:
        """Remember it until then; it is not set already."""
        spoke = max(int(at_s / GRAIN_S), self._looked)
        self._spokes.setdefault(spoke, {})[due] = at_s
        self._spoke_of[due] = spoke

    def clear(self, due: T) -> bool:
        """Forget it; False where it is not set, or has been told."""
        number = self._spoke_of.pop(due, None)
        if number is None:
            return False
        spoke = self._spokes[number]
        del spoke[due]
        if not spoke:
            del self._spokes[number]
        return True

    def due(self, now_s: float) -> list[T]:
        """What has become due since the last look, and is forgotten now."""
        told = []
        for number in self._past(int(now_s / GRAIN_S)):
            told += [thing for thing, at_s in self._spokes[number].items() if at_s <= now_s]
        for thing in told:
            self.clear(thing)
        return told

    def _past(self, present: int) -> list[int]:
        """The spokes up to the present one, by the shorter walk."""
        since, self._looked = self._looked, max(present, self._looked)
        if present - since < len(self._spokes):
            return [n for n in range(since, present + 1) if n in self._spokes]
        return sorted(n for n in self._spokes if n <= present)
