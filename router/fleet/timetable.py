"""What is to be looked at again because time passes: ranks, requests that are overdue, wakes."""

import math
from collections.abc import Iterator

from isochrone.router.fleet.candidate import ANY_COUNT
from isochrone.router.fleet.holding import Holding
from isochrone.router.fleet.site import RETURN_S, Lease, Site
from isochrone.router.fleet.slowstart import RAMP_S

WAKE_LASTS_S = 10.0
"""A wake whose load was not seen to begin within this time may be sent again."""
LATE_FACTOR = 3.0
"""A request that takes so many times what was predicted counts before it has ended."""


class Timetable:
    """The endpoints and models where time alone changes something, so that nobody walks them all.

    `busy` are the endpoints with requests of ours.
    """

    def __init__(self) -> None:
        self.busy: dict[Site, None] = {}
        self._timed: dict[Site, float] = {}
        self._woken: dict[Holding, None] = {}

    def settle(self, site: Site, now_s: float) -> None:
        """Work out its ranks anew, and look at it again as long as time alone changes them."""
        occupancy = site.occupancy
        if occupancy.limit_until_s <= now_s:
            occupancy.limit = ANY_COUNT
        change_s = min((at_s for at_s in _instants(site) if at_s > now_s), default=math.inf)
        if change_s < math.inf:
            self._timed[site] = change_s
        else:
            self._timed.pop(site, None)
        site.settle(now_s)

    def wake(self, holding: Holding, now_s: float) -> None:
        """A wake leaves for it."""
        holding.woken = True
        holding.woken_until_s = now_s + WAKE_LASTS_S
        holding.site.wake_s = now_s
        self._woken[holding] = None

    def drop(self, site: Site) -> None:
        """It has left."""
        self._timed.pop(site, None)
        self.busy.pop(site, None)

    def sweep(self, now_s: float) -> None:
        """Whose time has come."""
        for holding in [h for h in self._woken if not h.woken or h.woken_until_s <= now_s]:
            holding.woken = False
            del self._woken[holding]
        for site in [site for site, change_s in self._timed.items() if change_s <= now_s]:
            self.settle(site, now_s)
        for site in self.busy:
            _look_for_late(site, now_s)


def longest_s(lease: Lease, holding: Holding) -> float:
    """Beyond this a request is strangely late."""
    site, service = lease.site, holding.service
    typical_s = service.mean_s + 2 * service.sigma_s
    queue_s = site.occupancy.turn_s * site.curve.turns[lease.place][0]
    beside_s = site.path.mean_s + queue_s + holding.overhead_s
    return beside_s + LATE_FACTOR * (typical_s + lease.cold_s)


def _look_for_late(site: Site, now_s: float) -> None:
    """A request that is out for much longer than was predicted says that the endpoint is slow."""
    lease = next((lease for lease in site.open.values() if not lease.answered), None)
    if lease is None or lease.holding is None:
        return
    out_s = now_s - lease.sent_s
    if out_s > longest_s(lease, lease.holding) and out_s > site.late_s:
        site.late_s = out_s
        site.settle(now_s)


def _instants(site: Site) -> Iterator[float]:
    """When time alone changes a rank."""
    yield site.occupancy.limit_until_s
    if site.silent:
        yield site.heard_s + RETURN_S
    for holding in site.holdings.values():
        yield holding.full_until_s
        yield holding.ramp_from_s + RAMP_S
