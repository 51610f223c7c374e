"""Everything under way in one worker: deadlines and hedges are seen by one coarse sweep."""

import logging
from collections.abc import Callable

from isochrone.router.dispatch.asked import Asked, Ended
from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.event import Event, HedgeDue, Timer
from isochrone.router.dispatch.run import Means, Run
from isochrone.router.dispatch.spare import Spare
from isochrone.router.dispatch.timers import Timers
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.policy.policy import Plan
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.upstream import Upstream
from isochrone.router.wire.http import Headers

_log = logging.getLogger("isochrone.router")


class Runner:
    """Carries requests out. See `run.Means` for what it is made of."""

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
        most_tries: int,
        client_address: Callable[[str, Headers], str] = lambda peer, _: peer,
    ) -> None:
        self.spare = spare
        self.clock = clock
        reach = sender.encode(), ledger, upstream, clock, client_address
        self._means = Means(*reach, chooser, spare, most_tries, wall)
        self.running: Timers[Run] = self._means.running
        self.hedging: Timers[Run] = self._means.hedging

    def run(self, asked: Asked, plan: Plan, ended: Ended) -> None:
        """Carry a request out, beginning with the first of a plan, to exactly one end."""
        run = Run(self._means, asked, plan, ended)
        self.running.set(run, asked.query.deadline_s)
        run.begin()

    def sweep(self, now_s: float) -> None:
        """End what has outlived its deadline, and send beside what is late."""
        expired = self.running.due(now_s)
        for run in expired:  # it runs until its end has been told
            self.running.set(run, run.query.deadline_s)
        for run in expired:
            _tell(run, Timer())
        for run in self.hedging.due(now_s):
            _tell(run, HedgeDue())

    def condemn(self, name: str, why: str) -> None:
        """An endpoint was found dead: whoever waits there is to look elsewhere."""
        for run in list(self.running):
            run.lose(name, why)


def _tell(run: Run, event: Event) -> None:
    """The sweep goes on whatever becomes of one run."""
    try:
        run.tell(event)
    except Exception:  # one run's fault must not leave the others without their timers
        _log.exception("the end of request %s went wrong", run.query.request_id)
