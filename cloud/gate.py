"""Counts a region's calls; which of them run and which wait is Serve's to say, not ours."""

import sys
from collections.abc import Callable

from router.admission.limit import Lease, Limit


class RegionGate:
    """Lets every call in: each model's queue refuses what is too much. A `Filling`."""

    def __init__(self, slots: Callable[[], int]) -> None:
        """`slots` says how many calls the running replicas take at once."""
        self._slots = slots
        self._limit = Limit(sys.maxsize)

    @property
    def slots(self) -> int:
        """How many calls can run at this moment."""
        return self._slots()

    @property
    def in_flight(self) -> int:
        """Calls that came through this ingress and have not ended, those that wait included."""
        return self._limit.in_flight

    @property
    def queued(self) -> int:
        """Those that are more than the slots."""
        return max(0, self.in_flight - self.slots)

    def enter(self) -> Lease:
        """A lease, at once."""
        lease = self._limit.acquire()
        assert lease is not None  # there are more leases than a process can hold
        return lease
