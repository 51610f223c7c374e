"""An agent's own gate: so many slots, a fair line before them, and a refusal at once when full."""

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping
from contextvars import copy_context
from functools import partial
from math import inf

from isochrone.edge_agent.runtime.calls.alike import Alike
from isochrone.edge_agent.runtime.calls.backlogs import Backlogs, within
from isochrone.edge_agent.runtime.calls.gate import Batch, Entry
from isochrone.router.admission.adaptive import Adaptive
from isochrone.router.admission.limit import Lease, Limit
from isochrone.router.admission.queue import Line, Outcome, Room, Ticket
from isochrone.router.errors import DeadlineExceeded, Overloaded
from isochrone.router.process.clock import Clock

PUSHED_OUT = "the queue is full, and this call gave its place to a more urgent one"
"""It waited for a while: others are refused as soon as they come."""
_STINT_S = 5e-3
"""So long runs that are over when they have begun may follow each other before others are heard.

A run of a millisecond leaves nothing of the code around it in the processor's caches: what follows
takes up to twice as long. The longer the stint, the more calls share that.
"""
_SHORTEST_TIMER_S = 1e-3
_NEWEST_SHARE = 0.1
_AMPLE_TIMES = 4.0
"""A queue that so many times over would fit before a deadline is not looked at more closely."""


class SlotGate:
    """Lets at most `slots` runs go on at once, and at most `queue` calls wait for one.

    Fewer run where they only slow each other down. As many calls as have room in both may wait
    beside them, for their models.
    """

    def __init__(
        self,
        slots: int,
        queue: int,
        clock: Clock,
        service_s: Callable[[], float],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`service_s` is how long one call takes of late; `weights` are tenants' shares (1)."""
        self.slots = slots
        self._queue = queue
        self._clock = clock
        self._service_s = service_s
        self._adaptive = Adaptive(slots)
        self._alike = Alike()
        self._line: Line[Entry] = Line(Room(queue), weights or {}, by_deadline=True)
        self._backlogs = Backlogs(weights or {})
        self._aside = Limit(slots + queue)
        self._running: set[_Run] = set()
        self._over: list[Batch] = []
        """Runs that are over and not settled: one after another, they find the caches warm."""
        self._calls = 0
        self._context = copy_context()
        """Whoever happens to come first is not to lend its own to those who start with it."""
        self._called = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._pace = 1.0
        """Seconds that runs take over the seconds that their calls were believed to take."""
        self._mean_s = 0.0
        """What a call takes of a run."""

    @property
    def in_flight(self) -> int:
        """Calls that run."""
        return self._calls

    @property
    def queued(self) -> int:
        """Calls that wait for that, or for their model."""
        return (len(self._alike.entries) or len(self._line)) + self._aside.in_flight

    @property
    def limit(self) -> int:
        """How many runs may go on at once just now."""
        return self._adaptive.limit

    def resize(self, slots: int) -> None:
        """From now on so many run at once; whoever runs already is not stopped."""
        self.slots = slots
        self._adaptive.resize(slots)
        if self._waiting:
            self._call()

    def stand_aside(self, due_s: float) -> Lease:
        """A place for a call that waits for its model; see `Gate`."""
        lease = self._aside.acquire()
        if lease is None:
            raise Overloaded("too many calls wait for models to load", retry_after_s=due_s)
        return lease

    def join(self, entry: Entry) -> None:
        """A place in the line; see `Gate`."""
        now_s = self._clock()
        self._check_wait(entry, now_s)
        entries = self._alike.entries
        alike = (bool(entries) or not self._line) and self._alike.takes(entry)
        if not alike:
            self._line_up(now_s)
        if not self._has_place(entry.tenant, entry.priority):
            raise self._full()
        if alike:
            entries.append(entry)
        else:
            self._stand(entry, now_s)
        self._call()

    def leave(self, entry: Entry) -> None:
        """Wait no more; see `Gate`."""
        if entry.ticket is not None:
            self._line.leave(entry.ticket)
        else:
            self._alike.remove(entry)

    def turn_away(self, tenant: str, priority: int) -> None:
        """Refuse what `join` would refuse; see `Gate`."""
        if not self._has_place(tenant, priority):
            raise self._full()

    @property
    def crowded(self) -> bool:
        """Half of the places are taken."""
        return 2 * self._waiting >= self._queue

    def _has_place(self, tenant: str, priority: int) -> bool:
        """One more of this tenant and class may wait; those who are alike say it of themselves."""
        room, waiting = self._line.room, self._waiting
        spare = room.spare = max(0, self.limit - len(self._running))
        if waiting < spare:
            return True
        if self._alike.entries:
            return (
                not self.crowded
                or not self._alike.are_of(tenant, priority)
                or within(waiting - spare, self._queue, self._queue + spare - waiting)
            )
        return self._backlogs.takes(tenant, priority, room.places(priority), spare)

    @property
    def _waiting(self) -> int:
        return len(self._alike.entries) or len(self._line)

    def _line_up(self, now_s: float) -> None:
        """They are alike no more."""
        while self._alike.entries:
            entry = self._alike.entries.popleft()
            try:
                self._stand(entry, now_s)
            except Overloaded as error:  # a slot is not free any more, and was counted as a place
                entry.refuse(error)

    def _stand(self, entry: Entry, now_s: float) -> None:
        ticket = self._line.join(
            tenant=entry.tenant,
            priority=entry.priority,
            now_s=now_s,
            deadline_s=entry.deadline_s,
            cost_s=entry.cost_s or self._service_s(),
            item=entry,
            settled=partial(self._settle, entry),
            lane=entry.lane,
        )
        if ticket is None:
            raise self._full()
        entry.ticket = ticket
        self._backlogs.put(ticket.tenant, ticket.priority)

    def _check_wait(self, entry: Entry, now_s: float) -> None:
        """Refuse now what would be too late in any case.

        Raises:
            Overloaded: those who go first take too long.
        """
        left_s = max(0.0, entry.deadline_s - now_s - (entry.cost_s or self._service_s()))
        if self._waiting * self._mean_s * _AMPLE_TIMES <= left_s:
            return
        wait_s = len(self._alike.entries) * self._mean_s
        if self._line:
            lanes = self._line.lanes
            ahead_s = sum(self._line.ahead_s(entry.tenant, entry.priority, lane) for lane in lanes)
            wait_s = ahead_s * self._pace
        if wait_s / self.limit > left_s:
            due_s = wait_s / self.limit
            raise Overloaded("the queue is too long for this deadline", retry_after_s=due_s)

    def _full(self) -> Overloaded:
        return Overloaded("every slot and the queue are full", retry_after_s=self._due_s())

    def _due_s(self) -> float:
        return (self.in_flight + self._waiting) * self._service_s() / self.slots

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if entry.ticket is not None:
            self._backlogs.gone(entry.tenant, entry.ticket.priority)
            entry.ticket = None  # each would keep the other from being freed at once
        if outcome is Outcome.EXPIRED:
            entry.refuse(_too_late())
        elif outcome is Outcome.SHED:
            entry.refuse(Overloaded(PUSHED_OUT, retry_after_s=self._due_s()))

    def _call(self) -> None:
        """Let in who may, once all who come in this turn of the loop are here."""
        if not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._let_in, context=self._context)

    def _let_in(self) -> None:
        self._called = False
        now_s = self._clock()
        until_s = now_s + _STINT_S
        for entry in self._alike.expired(now_s):
            entry.refuse(_too_late())
        pausing: dict[Hashable, float] = {}
        while len(self._running) < self.limit and now_s < until_s and self._starts(now_s, pausing):
            now_s = self._clock()
        over, self._over = self._over, []
        for batch in over:
            batch.settle()
        if self._waiting:
            if len(self._running) < self.limit and not pausing:
                self._call()
            due_s = min(self._alike.due_s, self._line.room.due_s, *pausing.values(), inf)
            self._wake_at(due_s, now_s)

    def _starts(self, now_s: float, pausing: dict[Hashable, float]) -> bool:
        """One run more, or one lane that would rather pause; False where nobody is left."""
        if self._alike.entries:
            return self._start_alike(now_s, pausing)
        ticket = self._line.peek(now_s, pausing)
        if ticket is None:
            return False
        entry = ticket.item
        until_s = _pauses_until(entry, self._line.queued(ticket.lane) - 1, ticket.joined_s)
        if until_s > now_s:
            pausing[ticket.lane] = until_s
        else:
            self._start(now_s, pausing)
        return True

    def _start_alike(self, now_s: float, pausing: dict[Hashable, float]) -> bool:
        entries = self._alike.entries
        entry = entries[0]
        until_s = _pauses_until(entry, len(entries) - 1, entry.joined_s)
        if until_s > now_s:
            pausing[entry.lane] = until_s
            return False
        run, batch = self._run(now_s), entries.popleft().batch()
        while entries and batch.joins(entries[0], len(entries) - 1, now_s):
            entries.popleft()
            run.calls += 1
        self._begin(run, batch)
        return True

    def _start(self, now_s: float, pausing: Collection[Hashable]) -> None:
        first = self._line.start(now_s, pausing)
        if first is None:
            return
        run, batch, lane = self._run(now_s), first.item.batch(), first.lane
        run.tickets.append(first)
        others = self._line.lanes - {lane}
        while batch.hungry and (behind := self._line.queued(lane)):
            ticket = self._line.peek(now_s, others)
            if ticket is None or not batch.joins(ticket.item, behind - 1, now_s):
                break
            self._line.start(now_s, others)
            run.tickets.append(ticket)
            run.calls += 1
        self._begin(run, batch)

    def _begin(self, run: "_Run", batch: Batch) -> None:
        self._calls += run.calls
        if batch.begin(run):
            run.over_s = self._clock()
            self._over.append(batch)
            self._leaves(run)

    def _run(self, now_s: float) -> "_Run":
        run = _Run(self, now_s, alone=not self._running)
        for other in self._running:
            other.alone = False
        self._running.add(run)
        return run

    def ended(self, run: "_Run", stretch: float | None) -> None:
        """A run's; see `_Run.release`."""
        now_s = self._clock()
        full = len(self._running) + (run.over_s is not None) >= self.limit
        self._leaves(run)
        took_s = (run.over_s or now_s) - run.began_s
        self._mean_s += _NEWEST_SHARE * (took_s / run.calls - self._mean_s)
        if run.tickets:
            self._correct(run.tickets, took_s)
            run.tickets = []  # whose slot it was may be one of them, and would keep itself
        if self.slots > 1:
            self._adaptive.ended(stretch, alone=run.alone, full=full, now_s=now_s)
        if self._waiting:
            self._call()

    def _leaves(self, run: "_Run") -> None:
        if run in self._running:
            self._running.remove(run)
            self._calls -= run.calls

    def _correct(self, tickets: list[Ticket[Entry]], took_s: float) -> None:
        """What they were believed to take was not quite what they took."""
        believed_s = sum([one.cost_s for one in tickets])
        self._pace += _NEWEST_SHARE * (took_s / believed_s - self._pace)
        for ticket in tickets:
            self._line.correct(ticket, took_s * ticket.cost_s / believed_s)

    def _wake_at(self, due_s: float, now_s: float) -> None:
        """Look again at that instant: somebody is too late by then, or has waited for long."""
        if due_s == inf or (self._timer is not None and self._timer_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        wait_s = max(_SHORTEST_TIMER_S, due_s - now_s)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(wait_s, self._look, context=self._context)

    def _look(self) -> None:
        self._timer = None
        now_s = max(self._timer_s, self._clock())  # a timer may ring a little early
        self._line.expire(now_s)
        for entry in self._alike.expired(now_s):
            entry.refuse(_too_late())
        self._let_in()


def _pauses_until(entry: Entry, behind: int, joined_s: float) -> float:
    """Until when it would rather wait for others, if only its deadline allows it."""
    pause_s = entry.pause_s(behind)
    return min(joined_s + pause_s, entry.deadline_s - 2 * entry.cost_s) if pause_s else 0.0


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed in the queue")


class _Run:
    """A slot in use."""

    __slots__ = ("_gate", "alone", "began_s", "calls", "over_s", "tickets")

    def __init__(self, gate: SlotGate, began_s: float, *, alone: bool) -> None:
        self._gate: SlotGate | None = gate
        self.began_s = began_s
        self.alone = alone
        self.calls = 1
        self.over_s: float | None = None
        self.tickets: list[Ticket[Entry]] = []
        """Of those that stood in the fair line."""

    def release(self, stretch: float | None = None) -> None:
        """It has ended; doing so again changes nothing."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.ended(self, stretch)
