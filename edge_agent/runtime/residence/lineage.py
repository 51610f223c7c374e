"""All versions of one model in a pool, and which of them answers a call that names none."""

from collections.abc import Iterator

from isochrone.edge_agent.runtime.residence.held import Held
from isochrone.router.errors import NotFound
from isochrone.router.wire.report import ModelState, version_order


class Lineage:
    """Versions by number, the highest first; one of them may have been made active.

    The active one comes before all others; where none was made active, the highest does.
    """

    def __init__(self, name: str, active: str | None = None) -> None:
        """`active` may name a version that is still to be added."""
        self._name = name
        self._active = active
        self._held: dict[str, Held] = {}

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version's number, the highest first."""
        return tuple(self._held)

    def add(self, held: Held) -> None:
        """One more version; it must not be here yet."""
        self._held[held.package.version] = held
        order = sorted(self._held, key=version_order, reverse=True)
        self._held = {version: self._held[version] for version in order}

    def remove(self, version: str) -> None:
        """Forget a version; where it was the active one, the highest comes first again."""
        self._held.pop(version, None)
        if self._active == version:
            self._active = None

    def activate(self, version: str) -> None:
        """From now on this one comes first."""
        self._active = version

    def keep_first(self) -> None:
        """Whoever comes first goes on doing so, whatever is added."""
        if self._active not in self._held:
            self._active = next(iter(self._held))

    def get(self, version: str) -> Held | None:
        """The version of that number."""
        return self._held.get(version)

    def find(self, version: str) -> Held:
        """The version of that number.

        Raises:
            NotFound: it is not here.
        """
        held = self._held.get(version)
        if held is None:
            numbers = ", ".join(self._held)
            raise NotFound(f"{self._name!r} has no version {version!r}; it has {numbers}")
        return held

    def first(self) -> Held:
        """Of those that may be loaded, the one that comes first; of all, where none may."""
        foremost = self._foremost
        if foremost.may_load:
            return foremost
        return next((held for held in self._order() if held.may_load), foremost)

    def retry_for(self, held: Held) -> None:
        """Where this one stands in for the first, the first is tried again beside it."""
        if held is not self._foremost and (first := self.first()) is not held:
            first.try_again()

    def preferred(self) -> Held:
        """Who answers: the first, or a warm one, where the first failed when last loaded."""
        if (foremost := self._foremost).state is ModelState.WARM:
            return foremost
        first = self.first()
        if first.sound:
            return first
        return next((held for held in self._order() if held.state is ModelState.WARM), first)

    @property
    def _foremost(self) -> Held:
        return self._held.get(self._active or "") or next(iter(self._held.values()))

    def _order(self) -> list[Held]:
        return sorted(self, key=lambda held: held.package.version != self._active)
