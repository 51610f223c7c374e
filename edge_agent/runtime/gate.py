"""May this call start now? An agent asks its slots; in the cloud, Serve has answered already."""

import sys
from typing import Protocol

from router.admission.limit import Lease, Limit


class Gate(Protocol):
    """Lets calls in, one lease each, and says how full it is."""

    @property
    def slots(self) -> int:
        """How many calls are meant to run at once."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls that hold a lease."""
        ...

    @property
    def queued(self) -> int:
        """Calls that wait for one."""
        ...

    async def admit(self, deadline_s: float, priority: int) -> Lease:
        """A lease, perhaps after waiting; priority 1 is the most urgent.

        Raises:
            Overloaded: no slot is free and the queue is full.
            DeadlineExceeded: the deadline passed in the queue.
        """
        ...


class OpenGate:
    """Lets everything in: something in front has limited it to `slots` already."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.queued = 0
        self._limit = Limit(sys.maxsize)

    @property
    def in_flight(self) -> int:
        """Calls that hold a lease."""
        return self._limit.in_flight

    async def admit(self, deadline_s: float, priority: int) -> Lease:  # noqa: ARG002 - Gate's
        """A lease, at once."""
        lease = self._limit.acquire()
        assert lease is not None
        return lease
