"""A plain queue for entries that are alike: one tenant, one priority, one lane, by deadline.

Among them there is nothing to weigh, so that the cost of weighing is saved. As soon as one comes
that is not like the others, all of them have to stand in a fair line.
"""

from collections import deque
from collections.abc import Iterator
from math import inf

from edge_agent.runtime.gate import Entry
from router.admission.ticket import DEFAULT


class Alike:
    """Entries by deadline, who came first before others."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def due_s(self) -> float:
        """The first deadline; infinite where nobody waits."""
        return self._entries[0].deadline_s if self._entries else inf

    def takes(self, entry: Entry) -> bool:
        """This one is like the others, and may stand behind them."""
        if not self._entries:
            return entry.priority <= DEFAULT  # those below may fill a part of the room only
        last = self._entries[-1]
        return (
            last.lane is entry.lane
            and last.deadline_s <= entry.deadline_s
            and self.are_of(entry.tenant, entry.priority)
        )

    def are_of(self, tenant: str, priority: int) -> bool:
        """Those who wait are of this tenant and class."""
        last = self._entries[-1]
        return last.tenant == tenant and last.priority == priority

    def push(self, entry: Entry) -> None:
        """One more, that it takes."""
        self._entries.append(entry)

    def first(self) -> Entry | None:
        """Whose turn it is."""
        return self._entries[0] if self._entries else None

    def pop(self) -> Entry:
        """Whose turn it is, taken out."""
        return self._entries.popleft()

    def remove(self, entry: Entry) -> bool:
        """Take one out; False where it is not here. O(n): it is rare that one leaves."""
        try:
            self._entries.remove(entry)
        except ValueError:
            return False
        return True

    def expired(self, now_s: float) -> Iterator[Entry]:
        """Those whose deadline has passed, taken out."""
        while self._entries and self._entries[0].deadline_s <= now_s:
            yield self._entries.popleft()
