"""Who waits for a place: a fair line, most urgent first; what has expired never starts.

Nine priority bands; inside a band a fair share of device time by tenant (`fair`); inside a tenant
first come, first served, unless clients lose their patience (`patience`), or the earliest deadline
first. Who could start in other places than the first stands in another lane: it need not wait for
the first, but shares are those of the whole line. How many may wait, and who gives way, is the
room's to say (`room`).
"""

from collections.abc import Callable, Collection, Hashable, KeysView, Mapping
from types import MappingProxyType
from typing import Generic

from isochrone.router.admission.fair import Band
from isochrone.router.admission.patience import Patience
from isochrone.router.admission.room import AGE_S, Room
from isochrone.router.admission.ticket import LOWEST, Outcome, T, Ticket, believable

__all__ = ["AGE_S", "Line", "Outcome", "Room", "Ticket"]

_EQUAL: Mapping[str, float] = MappingProxyType({})


class Line(Generic[T]):
    """One line in a room. Instants are monotonic seconds, and they never go back.

    line: Line[str] = Line(Room(capacity=100))
    ticket = line.join(tenant="acme", priority=5, now_s=0.0, deadline_s=30.0, cost_s=0.02,
                       item="a request", settled=print)   # None: no room
    line.start(0.1)                # the same ticket; prints Outcome.STARTED
    line.correct(ticket, 0.05)     # it took 50 ms rather than 20
    """

    def __init__(
        self,
        room: Room[T],
        weights: Mapping[str, float] = _EQUAL,
        *,
        by_deadline: bool = False,
    ) -> None:
        """`weights` are tenants' shares; who is not named has 1.

        `by_deadline`: those of one tenant go in the order of their deadlines, not as they came.
        """
        self.room = room
        self._by_deadline = by_deadline
        self._weights = weights
        self._bands: dict[int, Band[T]] = {}
        self._patience: Patience[T] = Patience()
        self._waiting = 0
        self._lanes: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return self._waiting

    def join(
        self,
        *,
        tenant: str,
        priority: int,
        now_s: float,
        deadline_s: float,
        cost_s: float,
        item: T,
        settled: Callable[[Outcome], None],
        lane: Hashable = None,
        again: Ticket[T] | None = None,
    ) -> Ticket[T] | None:
        """A place in the line; None where the room has none for this priority.

        `cost_s` is the device time that it is believed to take. `settled` is told the outcome,
        once, and never before this returns. `again` is its ticket that was started in vain: it has
        its place back, even in a room that has filled, and its tenant what was charged.
        """
        ticket = Ticket(
            holder=self,
            tenant=tenant,
            priority=priority,
            now_s=now_s,
            deadline_s=deadline_s,
            cost_s=cost_s,
            item=item,
            settled=settled,
            order=self.room.stamp(),
            lane=lane,
            by_deadline=self._by_deadline,
        )
        if again is not None:
            ticket.stand_as(again)
            self._charge_more(again, -again.cost_s)
        return ticket if self.room.admit(ticket, now_s, again is not None) else None

    def peek(self, now_s: float, blocked: Collection[Hashable] = ()) -> Ticket[T] | None:
        """Who would start now, of those who still have time and are in no `blocked` lane."""
        turn = self._turn(now_s, blocked)
        return None if turn is None else self._patience.takes(turn, now_s)

    def start(self, now_s: float, blocked: Collection[Hashable] = ()) -> Ticket[T] | None:
        """The one whom `peek` would give, started; None where nobody waits."""
        turn = self._turn(now_s, blocked)
        if turn is None:
            return None
        ticket, band = self._patience.takes(turn, now_s), turn.band
        self._bands[band].charge(ticket)
        self.room.end(ticket, Outcome.STARTED)
        ticket.band = band  # there its tenant has had the turn, and what it costs is put right
        return ticket

    def expire(self, now_s: float) -> None:
        """End the waiting of all in the room whose deadline has passed."""
        self.room.advance(now_s)

    def leave(self, ticket: Ticket[T]) -> None:
        """Its client has hung up: its waiting ends; or it was started, and that was too late.

        Nothing where waiting has ended in another way.
        """
        if ticket.outcome in (None, Outcome.STARTED):
            self.room.end(ticket, Outcome.WITHDRAWN)
            self._patience.lost(ticket, self.room.now_s)

    def correct(self, ticket: Ticket[T], cost_s: float) -> None:
        """A ticket that was started has taken this much device time. Again: it replaces that."""
        more_s = believable(cost_s) - ticket.cost_s
        if ticket.outcome is not Outcome.STARTED or not more_s:
            return
        ticket.cost_s += more_s
        self._charge_more(ticket, more_s)

    @property
    def lanes(self) -> KeysView[Hashable]:
        """The lanes in which somebody waits."""
        return self._lanes.keys()

    def queued(self, lane: Hashable) -> int:
        """How many wait in one lane."""
        return self._lanes.get(lane, 0)

    def ahead_s(self, tenant: str, priority: int, lane: Hashable = None) -> float:
        """Seconds of device time that would start before a newcomer in a lane, as things stand."""
        before_s = sum(b.backlog_s(lane) for number, b in self._bands.items() if number < priority)
        band = self._bands.get(priority)
        return before_s + (band.ahead_s(tenant, lane) if band is not None else 0.0)

    @property
    def band(self) -> int:
        """The highest band in which somebody waits; below the lowest where nobody does."""
        return min(self._bands, default=LOWEST + 1)

    def put(self, ticket: Ticket[T]) -> None:
        """The room's; see `Holder`."""
        self._waiting += 1
        self._lanes[ticket.lane] = self._lanes.get(ticket.lane, 0) + 1
        self._patience.put(ticket)
        self._enter(ticket)

    def move(self, ticket: Ticket[T], band: int) -> None:
        """The room's; see `Holder`."""
        self._exit(ticket, band)
        self._enter(ticket)

    def remove(self, ticket: Ticket[T]) -> None:
        """The room's; see `Holder`."""
        self._waiting -= 1
        self._lanes[ticket.lane] -= 1
        if not self._lanes[ticket.lane]:
            del self._lanes[ticket.lane]
        self._patience.remove(ticket)
        self._exit(ticket, ticket.band)

    def _turn(self, now_s: float, blocked: Collection[Hashable]) -> Ticket[T] | None:
        """Whose turn it is, were everybody patient."""
        self.room.advance(now_s)
        heads = (self._bands[number].head(blocked) for number in sorted(self._bands))
        return next((head for head in heads if head is not None), None)

    def _enter(self, ticket: Ticket[T]) -> None:
        band = self._bands.get(ticket.band)
        if band is None:
            band = self._bands[ticket.band] = Band(ticket.band, self.room.stamp)
        band.put(ticket, self._weight(ticket.tenant))

    def _exit(self, ticket: Ticket[T], number: int) -> None:
        band = self._bands[number]
        band.remove(ticket)
        if not band.waiting_count:
            del self._bands[number]

    def _charge_more(self, ticket: Ticket[T], more_s: float) -> None:
        band = self._bands.get(ticket.band)
        if band is not None:
            band.correct(ticket, self._weight(ticket.tenant), more_s)

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)
