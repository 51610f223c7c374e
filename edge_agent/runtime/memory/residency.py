"""Which models share the memory that models may take, and who makes room for another.

Greedy-dual with size and frequency: a model is worth `clock + uses * load seconds / bytes`; the
one worth least goes, and the clock rises to its worth, so that old merit fades. Sources: Young,
"The k-server dual and loose competitiveness for paging" (Algorithmica 1994); Cherkasova, "Improving
WWW proxies performance with Greedy-Dual-Size-Frequency caching policy" (HP Labs 1998).
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from isochrone.router.errors import NoSpace, Unavailable

RETRY_S = 1.0
K = TypeVar("K", bound=Hashable)


class NoRoomNow(Unavailable):
    """It does not fit beside what is in use at this moment."""


@dataclass(slots=True)
class _Resident:
    size_bytes: int
    load_s: float
    uses: int
    worth: float


class Residency(Generic[K]):
    """Who is in memory under a budget in bytes; they are called what `str` makes of them."""

    def __init__(self, budget_bytes: int, *, overcommit: bool = False) -> None:
        """With `overcommit`, nothing is refused: what can make room does, the rest is too much."""
        self.budget_bytes = budget_bytes
        self._overcommit = overcommit
        self.runs_bytes = 0
        """What runs take of the budget besides, for as long as they go on."""
        self._clock = 0.0
        self._residents: dict[K, _Resident] = {}

    @property
    def taken_bytes(self) -> int:
        """What all residents take together."""
        return sum(resident.size_bytes for resident in self._residents.values())

    def sizes(self) -> dict[K, int]:
        """What each resident takes, in bytes."""
        return {name: resident.size_bytes for name, resident in self._residents.items()}

    def enter(self, name: K, size_bytes: int, load_s: float) -> None:
        """A model is in memory, or its size is known better; its uses count on."""
        known = self._residents.get(name)
        uses = known.uses if known else 1
        self._residents[name] = _Resident(max(1, size_bytes), load_s, uses, 0.0)
        self._value(self._residents[name])

    def used(self, name: K) -> None:
        """One more call of a model; of one that is not in memory, nothing."""
        resident = self._residents.get(name)
        if resident is not None:
            resident.uses += 1
            self._value(resident)

    def leave(self, name: K) -> None:
        """A model is out of memory; nothing where it was not in."""
        self._residents.pop(name, None)

    def least(self, idle: Collection[K]) -> K | None:
        """Who of `idle` is worth least; None where none of them is in memory."""
        return next(iter(self._by_worth(idle)), None)

    def make_room(
        self, name: K, size_bytes: int, idle: Collection[K], kept: Collection[K] = ()
    ) -> list[K]:
        """Who of `idle` has to leave so that `name` fits, the one worth least first.

        They count as gone from now on. Those in `kept` never leave.

        Raises:
            NoSpace: it never fits beside those that are kept; everybody stays.
            NoRoomNow: it does not fit even without the idle ones; everybody stays.
        """
        excess = self._excess(name, size_bytes)
        victims = self._victims(excess, [one for one in idle if one != name])
        freed = sum(self._residents[victim].size_bytes for victim in victims)
        if freed < excess and not self._overcommit:
            raise self._refusal(name, size_bytes, idle, kept)
        for victim in victims:
            self._clock = max(self._clock, self._residents.pop(victim).worth)
        return victims

    def would_leave(
        self, name: K, size_bytes: int, leaving: Collection[K], others: Collection[K]
    ) -> list[K]:
        """Who of `others` has to leave as well, so that `name` fits once they all are gone.

        None does where it would not fit even then. They count as present.
        """
        excess = self._excess(name, size_bytes)
        excess -= sum(self._residents[one].size_bytes for one in leaving if one != name)
        victims = self._victims(excess, [one for one in others if one != name])
        freed = sum(self._residents[victim].size_bytes for victim in victims)
        return victims if freed >= excess else []

    def _excess(self, name: K, size_bytes: int) -> int:
        return self._others_bytes(name) + self.runs_bytes + size_bytes - self.budget_bytes

    def _others_bytes(self, name: K) -> int:
        return self.taken_bytes - self.sizes().get(name, 0)

    def _victims(self, excess: int, idle: Collection[K]) -> list[K]:
        victims: list[K] = []
        for name in self._by_worth(idle):
            if excess <= 0:
                break
            victims.append(name)
            excess -= self._residents[name].size_bytes
        for name in reversed(victims):  # who need not leave after all, now that bigger ones do
            if excess + self._residents[name].size_bytes <= 0:
                victims.remove(name)
                excess += self._residents[name].size_bytes
        return victims

    def _by_worth(self, names: Collection[K]) -> list[K]:
        present = (name for name in names if name in self._residents)
        return sorted(present, key=lambda name: self._residents[name].worth)

    def _refusal(
        self, name: K, size_bytes: int, idle: Collection[K], kept: Collection[K]
    ) -> NoSpace | NoRoomNow:
        sizes, others = self.sizes(), self._others_bytes(name)
        held = {other: size for other, size in sizes.items() if other not in {name, *idle}}
        text = (
            f"{name} takes {size_bytes} bytes of memory; models may take {self.budget_bytes}, of"
            f" which {sum(held.values())} are in use ({others} with idle models)"
        )
        reasons = {str(other): f"in use: {size} bytes" for other, size in held.items()}
        stays = sum(sizes.get(one, 0) for one in kept if one != name)
        if size_bytes + stays > self.budget_bytes:
            return NoSpace(text, reasons=reasons)
        return NoRoomNow(text, retry_after_s=RETRY_S, reasons=reasons)

    def _value(self, resident: _Resident) -> None:
        resident.worth = self._clock + resident.uses * resident.load_s / resident.size_bytes
