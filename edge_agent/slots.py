"""An agent's own gate: so many slots, a short line before them, and a refusal at once when full."""

import asyncio
from collections.abc import Callable

from router.admission.limit import Lease, Limit
from router.admission.queue import Line, Outcome, Room
from router.errors import DeadlineExceeded, Overloaded
from router.process.clock import Clock


class SlotGate:
    """Admits at most `slots` calls at once and lets at most `queue` wait for a slot.

    As many as have room in both may wait beside them, for their models.
    """

    def __init__(
        self, slots: int, queue: int, clock: Clock, service_s: Callable[[], float]
    ) -> None:
        """`service_s` is how long one call takes of late: Retry-After is made of it."""
        self.slots = slots
        self._limit = Limit(slots, self._freed)
        self._line: Line[None] = Line(Room(queue))
        self._aside = Limit(slots + queue)
        self._clock = clock
        self._service_s = service_s

    @property
    def in_flight(self) -> int:
        """Calls that hold a slot."""
        return self._limit.in_flight

    @property
    def queued(self) -> int:
        """Calls that wait for one, or for their model."""
        return len(self._line) + self._aside.in_flight

    def resize(self, slots: int) -> None:
        """From now on so many run at once; whoever runs already is not stopped."""
        self.slots = self._limit.slots = slots
        self._freed()

    def stand_aside(self, due_s: float) -> Lease:
        """A place for a call that waits for its model; see `Gate`."""
        lease = self._aside.acquire()
        if lease is None:
            raise Overloaded("too many calls wait for models to load", retry_after_s=due_s)
        return lease

    async def admit(self, deadline_s: float, priority: int) -> Lease:
        """A slot; see `Gate`."""
        lease = None if self._line else self._limit.acquire()
        return lease or await self._wait(deadline_s, priority)

    async def _wait(self, deadline_s: float, priority: int) -> Lease:
        turn: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        ticket = self._line.join(
            tenant="",
            priority=priority,
            now_s=self._clock(),
            deadline_s=deadline_s,
            cost_s=self._service_s(),
            item=None,
            settled=lambda outcome: self._settle(turn, outcome),
        )
        if ticket is None:
            raise self._full()
        timer = asyncio.get_running_loop().call_later(
            deadline_s - self._clock(), lambda: self._line.expire(max(deadline_s, self._clock()))
        )  # the loop's timers may ring a little early
        try:
            return await turn
        except asyncio.CancelledError:
            self._line.leave(ticket)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().release()
            raise
        finally:
            timer.cancel()

    def _settle(self, turn: asyncio.Future[Lease], outcome: Outcome) -> None:
        if turn.done():
            return
        if outcome is Outcome.EXPIRED:
            turn.set_exception(DeadlineExceeded("the deadline passed in the queue"))
        elif outcome is Outcome.SHED:
            turn.set_exception(self._full())
        elif outcome is Outcome.STARTED:
            lease = self._limit.acquire()
            assert lease is not None
            turn.set_result(lease)

    def _full(self) -> Overloaded:
        due_s = (self.in_flight + len(self._line)) * self._service_s() / self.slots
        return Overloaded("every slot and the queue are full", retry_after_s=due_s)

    def _freed(self) -> None:
        while self.in_flight < self.slots and self._line.start(self._clock()):
            pass  # one that was cancelled a moment ago takes no slot
