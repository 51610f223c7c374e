"""Start-time fair queueing among the tenants of one priority band.

After Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996): each tenant has a tag, the
virtual time at which its first ticket may start; the least tag goes first and then moves on by the
cost over the tenant's weight. Between two tenants that both wait all the time, what was started by
weight never differs by more than one largest cost of each.

Two rules are those of virtual token counters (Sheng et al., "Fairness in Serving Large Language
Models", OSDI 2024), in device seconds: who comes back from idleness is lifted to the least tag of
those who wait, so that nobody saves up; and a cost that was guessed is put right when it is known.

Tags are forgotten when the band is empty (its busy period is over and all are equal), or as soon as
they are behind the virtual time.
"""

from collections.abc import Callable
from typing import Generic

from router.admission.heap import Heap
from router.admission.ticket import T, Ticket

_MOST_IDLE = 256
"""Tags of tenants who do not wait; above it the smallest debts are forgiven."""


class _Flow(Generic[T]):
    """One tenant in one band."""

    __slots__ = ("backlog_s", "epoch", "rank", "tag", "tenant", "tickets", "version", "weight")

    def __init__(self, tenant: str, weight: float, alive: Callable[[Ticket[T]], bool]) -> None:
        self.tenant = tenant
        self.weight = weight
        self.tag = 0.0
        self.epoch = 0  # changes whenever earlier charges are forgotten
        self.backlog_s = 0.0
        self.tickets: Heap[tuple[int, Ticket[T]]] = Heap(lambda entry: alive(entry[1]))
        self.rank: tuple[float, int] | None = None  # where it stands among the ready
        self.version = 0


class Band(Generic[T]):
    """Those who wait in one band, each tenant first come, first served."""

    __slots__ = ("_alive", "_flows", "_ready", "_stamp", "_virtual", "backlog_s", "waiting_count")

    def __init__(self, number: int, stamp: Callable[[], int]) -> None:
        """Tickets belong to it while they have not ended and say that they are in band `number`.

        `stamp` gives another number each time.
        """
        self._alive: Callable[[Ticket[T]], bool] = lambda t: t.outcome is None and t.band == number
        self._stamp = stamp
        self._flows: dict[str, _Flow[T]] = {}
        self._ready: Heap[tuple[float, int, int, _Flow[T]]] = Heap(lambda e: e[3].version == e[2])
        self._virtual = 0.0
        self.backlog_s = 0.0
        self.waiting_count = 0

    def put(self, ticket: Ticket[T], weight: float) -> None:
        """One more, behind those of its tenant who came before; O(log n)."""
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            flow = self._open(ticket.tenant, weight)
        if not flow.tickets.live_count:
            self._wake(flow)
        flow.tickets.push((ticket.order, ticket))
        flow.backlog_s += ticket.cost_s
        self.backlog_s += ticket.cost_s
        self.waiting_count += 1
        self._rank(flow)

    def remove(self, ticket: Ticket[T]) -> None:
        """One less: it has ended, or waits in another band; O(log n)."""
        flow = self._flows[ticket.tenant]
        flow.tickets.died()
        flow.backlog_s -= ticket.cost_s
        self.backlog_s -= ticket.cost_s
        self.waiting_count -= 1
        self._rank(flow)

    def head(self) -> Ticket[T] | None:
        """Whose turn it is."""
        top = self._ready.top()
        first = top[3].tickets.top() if top else None
        return first[1] if first else None

    def charge(self, ticket: Ticket[T]) -> None:
        """It starts: its tenant has had its cost. To be said before it is removed."""
        flow = self._flows[ticket.tenant]
        self._virtual = max(self._virtual, flow.tag)
        flow.tag += ticket.cost_s / flow.weight
        ticket.epoch = flow.epoch

    def correct(self, ticket: Ticket[T], weight: float, more_s: float) -> None:
        """What was charged for it turned out to cost `more_s` more (or, below zero, less)."""
        flow = self._flows.get(ticket.tenant)
        if flow is None or flow.epoch != ticket.epoch:
            more_s = max(0.0, more_s)  # the charge is forgotten, so none of it is given back
        if flow is None:
            if not more_s:
                return
            flow = self._open(ticket.tenant, weight)
            flow.tag = self._virtual_time()
        flow.tag += more_s / flow.weight
        self._rank(flow)

    def ahead_s(self, tenant: str) -> float:
        """Seconds of work that would start before a newcomer of this tenant; O(tenants).

        Exact where all tickets of a tenant cost the same; else as if they cost what its first does.
        """
        own = self._flows.get(tenant)
        tag, before_s = self._virtual_time(), 0.0
        if own is not None and own.tickets.live_count:
            tag, before_s = own.tag + own.backlog_s / own.weight, own.backlog_s
        elif own is not None:
            tag = max(tag, own.tag)
        for flow in self._flows.values():
            if flow is not own and flow.tickets.live_count and flow.tag <= tag:
                first = flow.tickets.top()
                each_s = first[1].cost_s if first else 1.0
                turns = (tag - flow.tag) * flow.weight // each_s + 1
                before_s += min(flow.backlog_s, turns * each_s)
        return before_s

    def _open(self, tenant: str, weight: float) -> _Flow[T]:
        self._forgive()
        flow = self._flows[tenant] = _Flow(tenant, weight, self._alive)
        flow.tag = self._virtual
        flow.epoch = self._stamp()
        return flow

    def _wake(self, flow: _Flow[T]) -> None:
        """Nobody saves up by not asking."""
        least = self._virtual_time()
        if flow.tag < least:
            flow.tag = least
            flow.epoch = self._stamp()
        flow.backlog_s = 0.0

    def _virtual_time(self) -> float:
        top = self._ready.top()
        return max(self._virtual, top[0]) if top else self._virtual

    def _rank(self, flow: _Flow[T]) -> None:
        """Put a flow where its tag and its first ticket say."""
        first = flow.tickets.top()
        rank = (flow.tag, first[0]) if first else None
        if rank == flow.rank:
            return
        if flow.rank is not None:
            flow.version += 1
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
