"""Who of a tenant takes its turn: who came first, or, while clients hang up, who came last.

Where waiting takes longer than clients are ready to wait, who has waited longest is about to go:
served in order, each request would start when its client has just gone, all the work would be for
nobody, and clients who ask again would keep it so. So when somebody hangs up, in line or once
started, who came w seconds ago, the turns of its tenant go to its newest: for w seconds, or until
none of its like waits. A line in which nobody hangs up is served in order, however long it is.

Newest first under overload is the adaptive LIFO of Maurer, "Fail at Scale" (ACM Queue 13(8), 2015);
that not a line's length tells it, but that it does not clear within the time in which it should, is
from Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue 10(5), 2012). Here that time is what
clients themselves show, so there is nothing to set.
"""

from collections.abc import Hashable
from math import inf
from typing import Generic

from isochrone.router.admission.heap import Heap
from isochrone.router.admission.ticket import T, Ticket

_Like = tuple[str, Hashable, int]
"""Tickets are alike that have the tenant, the lane and the priority asked for in common."""


class _Alike(Generic[T]):
    """Tickets that are alike, newest first; until `lost_until_s` they lose patience."""

    __slots__ = ("lost_until_s", "newest")

    def __init__(self) -> None:
        self.newest: Heap[tuple[int, Ticket[T]]] = Heap(lambda entry: entry[1].outcome is None)
        self.lost_until_s = -inf


class Patience(Generic[T]):
    """Those who wait in one line. Whose turn it is, is not decided here: only who of them takes it.

    Instants are monotonic seconds. Each operation is O(log n).
    """

    __slots__ = ("_alike",)

    def __init__(self) -> None:
        self._alike: dict[_Like, _Alike[T]] = {}

    def put(self, ticket: Ticket[T]) -> None:
        """It waits."""
        alike = self._alike.setdefault(_like(ticket), _Alike())
        alike.newest.push((-ticket.order, ticket))

    def remove(self, ticket: Ticket[T]) -> None:
        """It does not wait any more."""
        alike = self._alike[_like(ticket)]
        alike.newest.died()
        if not alike.newest.live_count:
            del self._alike[_like(ticket)]

    def lost(self, ticket: Ticket[T], now_s: float) -> None:
        """Its client has hung up."""
        alike = self._alike.get(_like(ticket))
        if alike is not None:
            alike.lost_until_s = max(alike.lost_until_s, now_s + (now_s - ticket.joined_s))

    def takes(self, turn: Ticket[T], now_s: float) -> Ticket[T]:
        """Who is to start when it is the turn of this one, the first of its like."""
        alike = self._alike[_like(turn)]
        newest = alike.newest.top() if now_s < alike.lost_until_s else None
        return turn if newest is None else newest[1]


def _like(ticket: Ticket[T]) -> _Like:
    return ticket.tenant, ticket.lane, ticket.priority
