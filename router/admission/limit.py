"""How many may run at once. A place is an object that is given back, never a counter."""

from collections.abc import Callable


class Lease:
    """The right to run one request, until it is released."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[["Lease"], None]) -> None:
        self._release = release

    def release(self) -> None:
        """Give the place back; doing so again changes nothing."""
        self._release(self)


class Limit:
    """At most `slots` leases at any instant."""

    def __init__(self, slots: int, freed: Callable[[], None] = lambda: None) -> None:
        """`freed` is called after a lease has come back, once for each lease."""
        self.slots = slots
        self._freed = freed
        self._held: set[Lease] = set()

    @property
    def in_flight(self) -> int:
        """Leases that are out."""
        return len(self._held)

    def acquire(self) -> Lease | None:
        """A lease, or None where all are out."""
        if len(self._held) >= self.slots:
            return None
        lease = Lease(self._give_back)
        self._held.add(lease)
        return lease

    def _give_back(self, lease: Lease) -> None:
        if lease in self._held:
            self._held.remove(lease)
            self._freed()
