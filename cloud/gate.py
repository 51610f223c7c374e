"""Counts a region's calls; which of them run and which wait is Serve's to say, not ours."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from isochrone.router.errors import Overloaded
from isochrone.router.process.clock import Clock

_NEWEST_SHARE = 0.2


class RegionGate:
    """Lets every call in: each model's queue refuses what is too much. A `Filling`."""

    def __init__(self, slots: Callable[[], Mapping[str, int]], clock: Clock) -> None:
        """`slots` says how many calls of each model the running replicas take at once."""
        self._slots = slots
        self._clock = clock
        self._calls: Counter[str] = Counter()
        self._held_s: dict[str, float] = {}

    @property
    def slots(self) -> int:
        """How many calls can run at this moment."""
        return sum(self._slots().values())

    @property
    def in_flight(self) -> int:
        """Calls that came through this ingress and run."""
        slots = self._slots()
        return sum(min(count, slots.get(model, 0)) for model, count in self._calls.items())

    @property
    def queued(self) -> int:
        """Those that are more than the slots of their model."""
        return self._calls.total() - self.in_flight

    def due_s(self, model: str) -> float:
        """When a place in a full queue should be free; 0 where no call has ended yet."""
        return self._held_s.get(model, 0.0) / max(1, self._slots().get(model, 0))

    @contextmanager
    def inside(self, model: str) -> Iterator[None]:
        """A call of this model is here; it is let in at once."""
        began_s = self._clock()
        self._calls[model] += 1
        refused = False
        try:
            yield
        except Overloaded:
            refused = True
            raise
        finally:
            self._calls[model] -= 1
            if not refused:
                self._learn(model, self._clock() - began_s)

    def _learn(self, model: str, held_s: float) -> None:
        before_s = self._held_s.get(model, held_s)
        self._held_s[model] = before_s + _NEWEST_SHARE * (held_s - before_s)
