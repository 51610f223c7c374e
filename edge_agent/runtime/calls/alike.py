"""A plain queue for entries that are alike: one tenant, one priority, one lane, by deadline.

Among them there is nothing to weigh, so that the cost of weighing is saved. As soon as one comes
that is not like the others, all of them have to stand in a fair line.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from math import inf

from isochrone.edge_agent.runtime.calls.gate import Entry
from isochrone.router.admission.ticket import DEFAULT


class Alike:
    """Entries by deadline, who came first before others."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        """To be taken from the left, and added to where it `takes`."""

    @property
    def due_s(self) -> float:
        """The first deadline; infinite where nobody waits."""
        return self.entries[0].deadline_s if self.entries else inf

    def takes(self, entry: Entry) -> bool:
        """This one is like the others, and may stand behind them."""
        if not self.entries:
            return entry.priority <= DEFAULT  # those below may fill a part of the room only
        last = self.entries[-1]
        return (
            last.lane is entry.lane
            and last.deadline_s <= entry.deadline_s
            and self.are_of(entry.tenant, entry.priority)
        )

    def are_of(self, tenant: str, priority: int) -> bool:
        """Those who wait are of this tenant and class."""
        last = self.entries[-1]
        return last.tenant == tenant and last.priority == priority

    def remove(self, entry: Entry) -> None:
        """Take one out, if it is here. O(n): it is rare that one leaves."""
        with suppress(ValueError):
            self.entries.remove(entry)

    def expired(self, now_s: float) -> Iterator[Entry]:
        """Those whose deadline has passed, taken out."""
        while self.entries and self.entries[0].deadline_s <= now_s:
            yield self.entries.popleft()
