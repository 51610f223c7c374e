"""By distance: the nearest endpoint, or the least asked among the nearest few.

Sources: latency-based routing as DNS services offer it (Amazon Route 53, Azure Traffic Manager:
the endpoint with the least measured network latency, whatever its load); and locality first, then
least request, as in Envoy's locality-weighted least-request balancing. Near is the smoothed
measured round trip, and what distance says until there is one.
"""

from collections.abc import Sequence
from heapq import nsmallest

from isochrone.router.simulate.algorithm import Call, Site
from isochrone.router.simulate.baselines.rule import Rule, least

NEAREST_COUNT = 4
"""Among how many of the nearest the least asked is taken."""


class Nearest(Rule):
    """The nearest, always."""

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """The least round trip."""
        del call, now_s
        return min(sites, key=self.trips.of)


class NearestLeastRequest(Rule):
    """The one with the fewest own requests among the nearest four."""

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """Among equally few, any of them."""
        del call, now_s
        near = nsmallest(NEAREST_COUNT, sites, key=self.trips.of)
        return least(near, lambda site: self.in_flight[site.name], self.rng)
