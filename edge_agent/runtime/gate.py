"""May this call start now? An agent asks its slots; in the cloud, Serve has answered already."""

import sys
from typing import Protocol

from router.admission.limit import Lease, Limit


class Filling(Protocol):
    """How full something is that lets calls in."""

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
        """Calls that wait for one, or for their model."""
        ...


class Gate(Filling, Protocol):
    """Lets calls in, one lease each."""

    def stand_aside(self, due_s: float) -> Lease:
        """A place for a call that waits for its model and could not use a slot.

        Raises:
            Overloaded: too many do; asking again makes sense in `due_s` seconds.
        """
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

    def stand_aside(self, due_s: float) -> Lease:  # noqa: ARG002 - Gate's
        """A lease, at once."""
        return self._lease()

    async def admit(self, deadline_s: float, priority: int) -> Lease:  # noqa: ARG002 - Gate's
        """A lease, at once."""
        return self._lease()

    def _lease(self) -> Lease:
        lease = self._limit.acquire()
        assert lease is not None
        return lease
