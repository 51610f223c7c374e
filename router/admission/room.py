"""One capacity for all who wait: who may come in, who is pushed out, who moves up, who is too late.

The lowest class is shed first: classes below the default may fill only a part of the room, and once
a newcomer finds no place it takes that of the newest ticket of the lowest class, if that is lower
than its own. Waiting lifts a ticket by one band per `age_s`, so that no band starves, and what was
lifted is as safe as its new band is.
"""

from itertools import count
from math import inf
from typing import Generic

from isochrone.router.admission.heap import Heap
from isochrone.router.admission.ticket import DEFAULT, HIGHEST, LOWEST, Outcome, T, Ticket

AGE_S = 2.0
"""How long a ticket waits for each band that it is lifted by."""

_TENTHS = {6: 8, 7: 6, 8: 4, 9: 2}
"""How much of the room may be taken before a newcomer of this class is turned away."""


class Room(Generic[T]):
    """At most `capacity` tickets, but for those who came back. Each operation is O(log n)."""

    def __init__(self, capacity: int, age_s: float = AGE_S) -> None:
        """`age_s` may be infinite: then nothing is lifted."""
        self.capacity = capacity
        self.age_s = age_s
        self.waiting = 0
        """Tickets in it."""
        self.now_s = -inf  # the latest instant that it was told of
        self.spare = 0
        """So many of those in it are about to start, and take no place from others."""
        self.stamp = count(1).__next__
        self._timers: Heap[tuple[float, int, Ticket[T]]] = Heap(lambda e: e[2].outcome is None)
        self._newest: dict[int, Heap[tuple[int, Ticket[T]]]] = {
            band: _newest_first(band) for band in range(HIGHEST, LOWEST + 1)
        }

    @property
    def due_s(self) -> float:
        """When the next ticket is too late, or is lifted; infinite where nobody waits."""
        top = self._timers.top()
        return inf if top is None else top[0]

    def places(self, priority: int) -> int:
        """How many may wait before a newcomer of this class is turned away."""
        if priority <= DEFAULT:
            return self.capacity
        return -(-self.capacity * _TENTHS[priority] // 10)

    def admit(self, ticket: Ticket[T], now_s: float, back: bool = False) -> bool:
        """Let a ticket in, in the place of a lower one if need be; False where it cannot be.

        Who comes `back` finds its place: there are no more of these than were started.
        """
        self.advance(now_s)
        shed = None
        if not back and self.waiting - self.spare >= self.places(ticket.priority):
            shed = self._lowest(ticket.priority) if ticket.deadline_s > now_s else None
            if shed is None:
                return False
            self._take_out(shed, Outcome.SHED)
        self.waiting += 1
        self._timers.push((self._due_s(ticket), ticket.order, ticket))
        self._newest[ticket.band].push((-ticket.order, ticket))
        ticket.holder.put(ticket)
        if shed is not None:
            shed.tell()  # last: whoever hears it may come back at once
        return True

    def advance(self, now_s: float) -> None:
        """End what is too late, and lift what has waited long enough."""
        self.now_s = max(self.now_s, now_s)
        while (top := self._timers.top()) is not None and top[0] <= now_s:
            ticket = top[2]
            if ticket.deadline_s <= now_s:
                self.end(ticket, Outcome.EXPIRED)
            else:
                self._timers.pop()
                self._lift(ticket, now_s)

    def end(self, ticket: Ticket[T], outcome: Outcome) -> None:
        """End the waiting of one; nothing where it has ended."""
        if ticket.outcome is None:
            self._take_out(ticket, outcome)
            ticket.tell()

    def _take_out(self, ticket: Ticket[T], outcome: Outcome) -> None:
        ticket.outcome = outcome
        self.waiting -= 1
        self._timers.died()
        self._newest[ticket.band].died()
        ticket.holder.remove(ticket)

    def _lift(self, ticket: Ticket[T], now_s: float) -> None:
        left = ticket.band
        while ticket.band > HIGHEST and self._lifted_s(ticket) <= now_s:
            ticket.band -= 1
        self._timers.push((self._due_s(ticket), ticket.order, ticket))
        self._newest[left].died()
        self._newest[ticket.band].push((-ticket.order, ticket))
        ticket.holder.move(ticket, left)

    def _due_s(self, ticket: Ticket[T]) -> float:
        """When something happens to it."""
        if ticket.band == HIGHEST:
            return ticket.deadline_s
        return min(ticket.deadline_s, self._lifted_s(ticket))

    def _lifted_s(self, ticket: Ticket[T]) -> float:
        return ticket.joined_s + (ticket.priority - ticket.band + 1) * self.age_s

    def _lowest(self, above: int) -> Ticket[T] | None:
        """The newest of the lowest class that is lower than `above`."""
        for band in range(LOWEST, above, -1):
            top = self._newest[band].top()
            if top is not None:
                return top[1]
        return None


def _newest_first(band: int) -> Heap[tuple[int, Ticket[T]]]:
    return Heap(lambda entry: entry[1].outcome is None and entry[1].band == band)
