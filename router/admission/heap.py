"""A heap whose entries may die where they stand: the dead are dropped when they reach the top.

Memory stays in proportion to the living: when the dead are the majority, the heap is made anew.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

E = TypeVar("E", bound=tuple[Any, ...])

_SLACK = 16
"""So many dead entries are never worth a sweep."""


class Heap(Generic[E]):
    """Least first. Entries must be comparable, no two of them equal."""

    __slots__ = ("_alive", "_entries", "live_count")

    def __init__(self, alive: Callable[[E], bool]) -> None:
        """`alive` is false of an entry once `died` was called for it, and from then on."""
        self._alive = alive
        self._entries: list[E] = []
        self.live_count = 0

    def push(self, entry: E) -> None:
        """One more; O(log n)."""
        heappush(self._entries, entry)
        self.live_count += 1

    def died(self) -> None:
        """One of the entries has died; O(1), spread over many calls."""
        self.live_count -= 1
        if len(self._entries) > 2 * self.live_count + _SLACK:
            self._entries = [entry for entry in self._entries if self._alive(entry)]
            heapify(self._entries)

    def top(self) -> E | None:
        """The least that lives."""
        while self._entries and not self._alive(self._entries[0]):
            heappop(self._entries)
        return self._entries[0] if self._entries else None

    def pop(self) -> None:
        """Take out what `top` has just given."""
        heappop(self._entries)
        self.live_count -= 1
