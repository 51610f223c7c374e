"""Start-time fair queueing among the tenants of one priority band.

After Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996): each tenant has a tag, the
virtual time at which its first ticket may start; the least tag goes first and then moves on by the
cost over the tenant's weight. Between two tenants that both wait all the time, what was started by
weight never differs by more than one largest cost of each.

Two rules are those of virtual token counters (Sheng et al., "Fairness in Serving Large Language
Models", OSDI 2024), in device seconds: who comes back from idleness is lifted to the least tag of
those who wait, so that nobody saves up; and a cost that was guessed is put right when it is known.

Tickets may stand in lanes, which start in different places: a tenant has one tag for all of them,
so that it gets no more for spreading over many. It counts as idle wherever it does not wait, so
that nobody saves up by waiting where nothing starts.

Tags are forgotten when the band is empty (its busy period is over and all are equal), or as soon as
they are behind the virtual time.
"""

from collections.abc import Callable, Collection, Hashable
from typing import Generic

from isochrone.router.admission.heap import Heap
from isochrone.router.admission.ticket import T, Ticket

_MOST_IDLE = 256
"""Tags of tenants who do not wait; above it the smallest debts are forgiven."""
_MOST_LANES = 4096
_Turn = tuple[float, int]


class _Queue(Generic[T]):
    """One tenant's tickets in one lane of one band, in their turn."""

    __slots__ = ("backlog_s", "tickets")

    def __init__(self, alive: Callable[[Ticket[T]], bool]) -> None:
        self.tickets: Heap[tuple[_Turn, Ticket[T]]] = Heap(lambda entry: alive(entry[1]))
        self.backlog_s = 0.0


class _Flow(Generic[T]):
    """One tenant in one band; `queues` holds the lanes in which it waits."""

    __slots__ = ("epoch", "queues", "rank", "tag", "tenant", "version", "weight")

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.tag = 0.0
        self.epoch = 0  # changes whenever earlier charges are forgotten
        self.queues: dict[Hashable, _Queue[T]] = {}
        self.rank: tuple[float, _Turn] | None = None  # where it stands among the ready
        self.version = 0

    def first(self, blocked: Collection[Hashable] = ()) -> tuple[_Turn, Ticket[T]] | None:
        """Its first ticket in any lane that is not blocked; O(lanes)."""
        tops = (queue.tickets.top() for lane, queue in self.queues.items() if lane not in blocked)
        return min((top for top in tops if top is not None), default=None)


class Band(Generic[T]):
    """Those who wait in one band, those of a tenant in the order of their `turn`."""

    __slots__ = ("_alive", "_flows", "_ready", "_stamp", "_started", "_virtual", "waiting_count")

    def __init__(self, number: int, stamp: Callable[[], int]) -> None:
        """Tickets belong to it while they have not ended and say that they are in band `number`.

        `stamp` gives another number each time.
        """
        self._alive: Callable[[Ticket[T]], bool] = lambda t: t.outcome is None and t.band == number
        self._stamp = stamp
        self._flows: dict[str, _Flow[T]] = {}
        self._ready: Heap[tuple[float, _Turn, int, _Flow[T]]] = Heap(lambda e: e[3].version == e[2])
        self._virtual = 0.0
        self._started: dict[Hashable, float] = {}  # the virtual time of each lane
        self.waiting_count = 0

    def put(self, ticket: Ticket[T], weight: float) -> None:
        """One more, behind those of its tenant who came before; O(log n)."""
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            flow = self._open(ticket.tenant, weight)
        queue = flow.queues.get(ticket.lane)
        if queue is None:
            self._wake(flow, ticket.lane)
            queue = flow.queues[ticket.lane] = _Queue(self._alive)
        queue.tickets.push((ticket.turn, ticket))
        queue.backlog_s += ticket.cost_s
        self.waiting_count += 1
        self._rank(flow)

    def remove(self, ticket: Ticket[T]) -> None:
        """One less: it has ended, or waits in another band; O(log n)."""
        flow = self._flows[ticket.tenant]
        queue = flow.queues[ticket.lane]
        queue.tickets.died()
        queue.backlog_s -= ticket.cost_s
        if not queue.tickets.live_count:
            del flow.queues[ticket.lane]
        self.waiting_count -= 1
        self._rank(flow)

    def head(self, blocked: Collection[Hashable] = ()) -> Ticket[T] | None:
        """Whose turn it is, in any lane that is not blocked; O(tenants) where one is."""
        if blocked:
            tops = (
                (flow.tag, top) for flow in self._flows.values() if (top := flow.first(blocked))
            )
            best = min(tops, default=None)
            return best[1][1] if best else None
        ready = self._ready.top()
        first = ready[3].first() if ready else None
        return first[1] if first else None

    def backlog_s(self, lane: Hashable) -> float:
        """Seconds of work that wait in a lane; O(tenants)."""
        return sum(f.queues[lane].backlog_s for f in self._flows.values() if lane in f.queues)

    def charge(self, ticket: Ticket[T]) -> None:
        """It starts: its tenant has had its cost. To be said before it is removed.

        It may wait in another band, if one of its tenant waits in its lane of this one.
        """
        flow = self._flows[ticket.tenant]
        self._virtual = max(self._virtual, flow.tag)
        if len(self._started) >= _MOST_LANES:
            self._started.clear()
        self._started[ticket.lane] = max(self._started.get(ticket.lane, 0.0), flow.tag)
        flow.tag += ticket.cost_s / flow.weight
        ticket.epoch = flow.epoch
        self._rank(flow)

    def correct(self, ticket: Ticket[T], weight: float, more_s: float) -> None:
        """What was charged for it turned out to cost `more_s` more (or, below zero, less)."""
        flow = self._flows.get(ticket.tenant)
        if flow is None or flow.epoch != ticket.epoch:
            more_s = max(0.0, more_s)  # the charge is forgotten, so none of it is given back
        if flow is None:
            if not more_s:
                return
            flow = self._open(ticket.tenant, weight)
            flow.tag = self._virtual_time(ticket.lane)
        flow.tag += more_s / flow.weight
        self._rank(flow)

    def ahead_s(self, tenant: str, lane: Hashable = None) -> float:
        """Seconds of work that would start in a lane before a newcomer of this tenant; O(tenants).

        Exact where all tickets of a tenant cost the same and stand in this lane; else as if they
        cost what its first does, and as if nobody else's were charged elsewhere.
        """
        own = self._flows.get(tenant)
        tag, before_s = self._virtual_time(lane), 0.0
        if own is not None and lane in own.queues:
            before_s = own.queues[lane].backlog_s
            tag = own.tag + before_s / own.weight
        elif own is not None:
            tag = max(tag, own.tag)
        for flow in self._flows.values():
            queue = flow.queues.get(lane)
            if flow is not own and queue is not None and flow.tag <= tag:
                first = queue.tickets.top()
                each_s = first[1].cost_s if first else 1.0
                turns = (tag - flow.tag) * flow.weight // each_s + 1
                before_s += min(queue.backlog_s, turns * each_s)
        return before_s

    def _open(self, tenant: str, weight: float) -> _Flow[T]:
        self._forgive()
        flow = self._flows[tenant] = _Flow(tenant, weight)
        flow.epoch = self._stamp()
        return flow

    def _wake(self, flow: _Flow[T], lane: Hashable) -> None:
        """Nobody saves up by not asking, here or elsewhere."""
        least = self._virtual_time(lane)
        if flow.tag < least:
            flow.tag = least
            flow.epoch = self._stamp()

    def _virtual_time(self, lane: Hashable) -> float:
        """The least tag of those who wait in a lane; never before its last start. O(tenants)."""
        tags = [flow.tag for flow in self._flows.values() if lane in flow.queues]
        return max(min(tags), self._started.get(lane, 0.0)) if tags else self._virtual

    def _rank(self, flow: _Flow[T]) -> None:
        """Put a flow where its tag and its first ticket say."""
        first = flow.first()
        rank = (flow.tag, first[0]) if first else None
        if rank == flow.rank:
            return
        if flow.rank is not None:
            flow.version = self._stamp()  # no entry is like another, even of who was forgotten
            self._ready.died()
        flow.rank = rank
        if rank is not None:
            self._ready.push((*rank, flow.version, flow))
        else:
            self._forgive()

    def _forgive(self) -> None:
        """Where many tags are kept, forget those that matter least."""
        if len(self._flows) - self._ready.live_count < _MOST_IDLE:
            return
        idle = sorted((f for f in self._flows.values() if f.rank is None), key=lambda f: f.tag)
        behind = sum(flow.tag <= self._virtual for flow in idle)
        for flow in idle[: max(behind, len(idle) // 2)]:
            del self._flows[flow.tenant]
