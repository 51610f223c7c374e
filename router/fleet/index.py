"""Who holds which model, found without a walk over the fleet: by model and version, by region.

Shortlists are picked out once for each set of lawful regions and kept until somebody joins, leaves
or changes what it holds.
"""

from collections.abc import Iterable, Sequence
from heapq import nsmallest
from operator import attrgetter

from isochrone.router.fleet.holding import Holding
from isochrone.router.fleet.site import Site

NEAR_COUNT = 32
"""Of more than twice as many, only so many are looked at for each request, and a few others."""
_MOST_KEPT = 1024
_AT_ONCE = 8
"""Shortlists that are looked through in one go."""

_Key = tuple[str, str | None]
_net = attrgetter("net_s")


class Lawful:
    """The holdings of one model in one set of regions. Satisfies `Shortlist`."""

    __slots__ = ("beside", "elsewhere", "every", "far", "holders", "near", "nearest")

    def __init__(self, every: Sequence[Holding], beside: int, elsewhere: int) -> None:
        self.every = every
        self.holders = len(every) + beside
        self.beside = beside
        self.elsewhere = elsewhere
        self.near: Sequence[Holding] = every
        self.far: Sequence[Holding] = ()
        self.nearest: Holding | None = None
        self.sort()

    def sort(self) -> None:
        """Look anew at who is near: estimates move."""
        self.nearest = min(self.every, key=_net, default=None)
        if len(self.every) > 2 * NEAR_COUNT:
            self.near = nsmallest(NEAR_COUNT, self.every, key=_alone_s)
            close = set(self.near)
            self.far = [holding for holding in self.every if holding not in close]


def _alone_s(holding: Holding) -> float:
    """What it would take if nobody else were there."""
    return holding.net_s + holding.service_s


class Index:
    """The holdings of all sites, by model and version; version None is each site's active one."""

    def __init__(self) -> None:
        self._held: dict[_Key, dict[str, Holding]] = {}
        self._entries: dict[str, list[tuple[_Key, Holding]]] = {}
        self._short: dict[str, dict[tuple[str | None, frozenset[str] | None], Lawful]] = {}
        self._queues: dict[str, list[Lawful]] = {}

    def put(self, site: Site) -> bool:
        """Take in what a site holds now, in place of what it held; False where it is the same."""
        name = site.endpoint.name
        entries: list[tuple[_Key, Holding]] = [(key, h) for key, h in site.holdings.items()]
        entries += [((holding.model, None), holding) for holding in site.active()]
        if entries == self._entries.get(name):
            return False
        if name not in self._entries:
            self._short.clear()  # who holds something else counts, too
        self._forget(name)
        self._entries[name] = entries
        for key, holding in entries:
            self._held.setdefault(key, {})[name] = holding
            self._short.pop(key[0], None)
        return True

    def drop(self, name: str) -> None:
        """Forget a site."""
        self._short.clear()
        self._forget(name)

    def _forget(self, name: str) -> None:
        for key, _ in self._entries.pop(name, ()):
            held = self._held[key]
            held.pop(name)
            if not held:
                del self._held[key]
            self._short.pop(key[0], None)

    def held(self, model: str, version: str | None) -> Sequence[Holding]:
        """Who holds that version, or any."""
        return list(self._held.get((model, version), {}).values())

    def count(self, model: str, version: str | None) -> int:
        """How many do."""
        return len(self._held.get((model, version), ()))

    def models(self) -> Iterable[str]:
        """What is held somewhere."""
        return (model for model, version in self._held if version is None)

    def shortlist(self, model: str, version: str | None, regions: frozenset[str] | None) -> Lawful:
        """Those that hold it in one of the regions."""
        of_model = self._short.get(model)
        if of_model is not None:
            found = of_model.get((version, regions))
            if found is not None:
                return found
        return self._pick_out(model, version, regions)

    def turn(self, purpose: str) -> Iterable[Lawful]:
        """A few of the shortlists that somebody asked for; for each purpose, all in turn."""
        queue = self._queues.get(purpose)
        if not queue:
            queue = [one for of_model in self._short.values() for one in of_model.values()]
        self._queues[purpose] = queue[_AT_ONCE:]
        return queue[:_AT_ONCE]

    def _pick_out(self, model: str, version: str | None, regions: frozenset[str] | None) -> Lawful:
        held = self._held.get((model, version), {}).values()
        every = [h for h in held if regions is None or h.endpoint.region in regions]
        lawful = Lawful(every, len(held) - len(every), len(self._entries) - len(held))
        if sum(map(len, self._short.values())) >= _MOST_KEPT:
            self._short.clear()
        self._short.setdefault(model, {})[version, regions] = lawful
        return lawful
