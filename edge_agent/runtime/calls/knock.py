"""A slot for one call that shares it with nobody, such as one that answers in parts."""

import asyncio

from isochrone.edge_agent.runtime.calls.gate import Batch, Entry, Gate, Slot
from isochrone.router.admission.queue import Ticket
from isochrone.router.errors import IsochroneError


async def admitted(gate: Gate, deadline_s: float, priority: int, tenant: str = "") -> Slot:
    """A slot, perhaps after waiting; it must be released.

    Raises:
        Overloaded: no slot is free, and the queue is full or too slow.
        DeadlineExceeded: the deadline passed in the queue.
    """
    knock = _Knock(deadline_s, priority, tenant)
    gate.join(knock)
    try:
        return await knock.slot
    except asyncio.CancelledError:
        gate.leave(knock)
        if not knock.slot.cancelled() and knock.slot.exception() is None:
            knock.slot.result().release()
        raise


class _Knock:
    """An `Entry`, and its own `Batch`."""

    lane = None
    cost_s = 0.0
    joined_s = 0.0
    hungry = False

    def __init__(self, deadline_s: float, priority: int, tenant: str) -> None:
        self.deadline_s = deadline_s
        self.priority = priority
        self.tenant = tenant
        self.ticket: Ticket[Entry] | None = None
        self.slot: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()

    def pause_s(self, behind: int) -> float:  # noqa: ARG002 - Entry's
        """It waits for nobody."""
        return 0.0

    def batch(self) -> Batch:
        """Itself."""
        return self

    def joins(self, other: Entry, behind: int, now_s: float) -> bool:  # noqa: ARG002 - Batch's
        """Nobody does."""
        return False

    def begin(self, slot: Slot) -> bool:
        """It may start."""
        if self.slot.done():  # whoever asked has gone in this very moment
            slot.release()
        else:
            self.slot.set_result(slot)
        return False

    def settle(self) -> None:
        """Whoever has the slot releases it."""

    def refuse(self, error: IsochroneError) -> None:
        """It may not."""
        if not self.slot.done():
            self.slot.set_exception(error)
