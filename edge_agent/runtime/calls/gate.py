"""May this call start now? An agent asks its slots; in the cloud, Serve has answered already."""

import asyncio
import sys
from collections.abc import Hashable
from typing import Protocol

from isochrone.router.admission.limit import Lease, Limit
from isochrone.router.admission.queue import Ticket
from isochrone.router.errors import IsochroneError
from isochrone.router.process.clock import Clock, monotonic


class Filling(Protocol):
    """How full something is that lets calls in."""

    @property
    def slots(self) -> int:
        """How many runs are meant to go on at once."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls that run."""
        ...

    @property
    def queued(self) -> int:
        """Calls that wait for that, or for their model."""
        ...


class Slot(Protocol):
    """The right to one run, until it is released; calls may share it."""

    @property
    def alone(self) -> bool:
        """Nothing has run beside it so far."""
        ...

    def release(self, stretch: float | None = None) -> None:
        """The run has ended; `stretch` is what it took over what it takes alone, where known."""
        ...


class Batch(Protocol):
    """Entries that share a run."""

    @property
    def hungry(self) -> bool:
        """There may be more of its lane that are worth asking for."""
        ...

    def joins(self, other: "Entry", behind: int, now_s: float) -> bool:
        """Another of its lane is in it from here on, if that pays; `behind` more wait there."""
        ...

    def begin(self, slot: Slot) -> bool:
        """Start; True where it is over by then, and wants to be settled."""
        ...

    def settle(self) -> None:
        """Let everybody in it have what came of it, and release the slot."""
        ...


class Entry(Protocol):
    """A call that wants to start: before `deadline_s`, priority 1 the most urgent.

    `cost_s` is the device time that it is believed to take, 0 where nobody knows. Entries of one
    `lane` may share a run.
    """

    tenant: str
    priority: int
    deadline_s: float
    cost_s: float
    joined_s: float
    ticket: Ticket["Entry"] | None
    """The gate's own; None where it needs none."""

    @property
    def lane(self) -> Hashable:
        """What it belongs to."""
        ...

    def pause_s(self, behind: int) -> float:
        """How long it would rather wait for more of its lane, though a slot is free.

        `behind` wait in its lane already.
        """
        ...

    def batch(self) -> Batch:
        """It is its turn: what it starts in."""
        ...

    def refuse(self, error: IsochroneError) -> None:
        """It does not start; never said while it joins."""
        ...


class Gate(Filling, Protocol):
    """Lets calls in."""

    def stand_aside(self, due_s: float) -> Lease:
        """A place for a call that waits for its model and could not use a slot.

        Raises:
            Overloaded: too many do; asking again makes sense in `due_s` seconds.
        """
        ...

    def join(self, entry: Entry) -> None:
        """Let an entry wait for its turn; it hears of that later, never before this returns.

        Raises:
            Overloaded: no slot is free, and the queue is full or too slow for its deadline.
        """
        ...

    def leave(self, entry: Entry) -> None:
        """It wants to wait no more; nothing where it has started or was refused."""
        ...

    @property
    def crowded(self) -> bool:
        """So many wait that it is worth asking `turn_away` before a call is read."""
        ...

    def turn_away(self, tenant: str, priority: int) -> None:
        """Refuse a call of which no more is known yet, if `join` would refuse it in any case.

        Raises:
            Overloaded: no slot is free, and the queue is full for this tenant and class.
        """
        ...


class OpenGate:
    """Lets everything in, one by one: something in front has limited it to `slots` already."""

    crowded = False

    def __init__(self, slots: int, clock: Clock = monotonic) -> None:
        self.slots = slots
        self.queued = 0
        self._clock = clock
        self._limit = Limit(sys.maxsize)
        self._coming: dict[Entry, Lease] = {}
        self._begun_s: dict[_OpenSlot, float] = {}

    @property
    def in_flight(self) -> int:
        """Calls that run."""
        return self._limit.in_flight

    @property
    def longest_s(self) -> float:
        """How long the oldest of them has been running, whether or not anybody waits for it."""
        now_s = self._clock()
        return now_s - min(self._begun_s.values(), default=now_s)

    def stand_aside(self, due_s: float) -> Lease:  # noqa: ARG002 - Gate's
        """A lease, at once."""
        return self._lease()

    def join(self, entry: Entry) -> None:
        """A turn, at once."""
        self._coming[entry] = self._lease()
        asyncio.get_running_loop().call_soon(self._begin, entry)

    def leave(self, entry: Entry) -> None:
        """Not to begin, where it has not."""
        lease = self._coming.pop(entry, None)
        if lease is not None:
            lease.release()

    def turn_away(self, tenant: str, priority: int) -> None:
        """Nobody is."""

    def _lease(self) -> Lease:
        lease = self._limit.acquire()
        assert lease is not None
        return lease

    def _begin(self, entry: Entry) -> None:
        lease = self._coming.pop(entry, None)
        if lease is None:  # it has left
            return
        batch = entry.batch()
        slot = _OpenSlot(lease, self._begun_s)
        self._begun_s[slot] = self._clock()
        if batch.begin(slot):
            batch.settle()


class _OpenSlot:
    """A slot of an open gate."""

    alone = False

    def __init__(self, lease: Lease, begun_s: "dict[_OpenSlot, float]") -> None:
        self._lease = lease
        self._begun_s = begun_s

    def release(self, stretch: float | None = None) -> None:  # noqa: ARG002 - Slot's
        """It has ended."""
        self._begun_s.pop(self, None)
        self._lease.release()
