"""The requests under way in one worker, and what all of them work with.

Deadlines and hedges are looked at by one coarse sweep.
"""

import logging
from collections.abc import Callable

from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.event import DeadlinePassed, Event, HedgeDue
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.dispatch.spare import Spare
from isochrone.router.dispatch.timers import Timers
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.upstream import Upstream
from isochrone.router.wire.http import Headers

_log = logging.getLogger("isochrone.router")


class Runner:
    """Carries requests out.

    `sender` signs what is sent, `upstream` gives the way to an endpoint, `chooser` the next one,
    `spare` the budgets for extra attempts; a run makes at most `most_attempts`. `wall` is for the
    dates that endpoints send. `client_address` is the client's, by its peer and what listed proxies
    vouch for.
    """

    def __init__(
        self,
        *,
        sender: str,
        ledger: Ledger,
        upstream: Callable[[Endpoint], Upstream],
        chooser: Chooser,
        spare: Spare,
        clock: Clock,
        wall: Clock,
        most_attempts: int,
        client_address: Callable[[str, Headers], str] = lambda peer, _: peer,
    ) -> None:
        self.sender = sender.encode()
        self.ledger = ledger
        self.upstream = upstream
        self.chooser = chooser
        self.spare = spare
        self.clock = clock
        self.wall = wall
        self.most_attempts = most_attempts
        self.client_address = client_address
        self.running: Timers[RoutedRequest] = Timers()
        self.hedging: Timers[RoutedRequest] = Timers()

    def sweep(self, now_s: float) -> None:
        """End what has outlived its deadline, and hedge what is late."""
        expired = self.running.due(now_s)
        for request in expired:  # it counts as running until its end has been told
            self.running.set(request, request.query.deadline_s)
        for request in expired:
            _tell(request, DeadlinePassed())
        for request in self.hedging.due(now_s):
            _tell(request, HedgeDue())

    def condemn(self, name: str, why: str) -> None:
        """An endpoint was found dead: requests without an answer from it go elsewhere."""
        for request in list(self.running):
            request.lose(name, why)


def _tell(request: RoutedRequest, event: Event) -> None:
    try:
        request.tell(event)
    except Exception:  # one request's fault must not leave the others without their timers
        _log.exception("the end of request %s went wrong", request.query.request_id)
