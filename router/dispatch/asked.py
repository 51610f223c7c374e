"""One request of a client, from its arrival to its one end: what outlives a single run of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from isochrone.router.admission.ticket import Ticket
from isochrone.router.dispatch.command import GiveUp
from isochrone.router.dispatch.outlook import Lane
from isochrone.router.dispatch.record import Record
from isochrone.router.http.exchange import Exchange
from isochrone.router.policy.query import Query


@dataclass(slots=True, eq=False)
class Asked:
    """A request; `ticket` is its last place in line, if any.

    `waits_from_s` is when it last began to wait, `useless` the endpoints that had it and were of no
    use, other than being full: it is not sent there again. `crashed` of them were lost with it.
    """

    exchange: Exchange
    query: Query
    record: Record
    ticket: "Ticket[Asked] | None" = None
    waits_from_s: float = 0.0
    useless: set[str] = field(default_factory=set)
    crashed: int = 0

    @property
    def lane(self) -> Lane:
        """In which lane of its model it would wait."""
        return Lane(self.query.version, self.query.required_regions, frozenset(self.useless))


Ended = Callable[[Asked, GiveUp | None], None]
"""Told once how carrying out ended; where it was given up, the client has not been answered yet."""
