"""What the published rules share: a router's own count of its requests, and its own round trips.

Nothing here knows more than a router does. A round trip is what an answer took beyond the time that
the endpoint says it spent, or what a probe took; before the first, it is what distance says. All
state is one small record per endpoint and one instant per request under way.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from random import Random

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.algorithm import Call, Reply, Site

TRIP_ALPHA = 0.125
"""The weight of one more round trip, as in TCP (Jacobson 1988; RFC 6298, section 2)."""


class RoundTrips:
    """Smoothed round trips from one router, in seconds, by endpoint."""

    def __init__(self, alpha: float = TRIP_ALPHA) -> None:
        """`alpha` is the weight of the newest sample; the first one counts in full."""
        self._alpha = alpha
        self._smoothed_s: dict[str, float] = {}

    def of(self, site: Site) -> float:
        """The smoothed round trip, or what distance says while there is none."""
        return self._smoothed_s.get(site.name, site.prior_rtt_s)

    def observe(self, site: Site, reply: Reply) -> None:
        """Fold in what an answer or the answer to a probe tells of the network."""
        sample_s = max(0.0, reply.latency_s - reply.wait_s - reply.infer_s)
        before_s = self._smoothed_s.get(site.name, sample_s)
        self._smoothed_s[site.name] = before_s + self._alpha * (sample_s - before_s)


class Rule(ABC):
    """A rule under test: it counts and measures; those below add how they choose."""

    def __init__(self, rng: Random, trips: RoundTrips | None = None) -> None:
        """`rng` is this router's own chance."""
        self.rng = rng
        self.trips = trips or RoundTrips()
        self.in_flight: defaultdict[str, int] = defaultdict(int)
        """This router's own requests that have not ended, by endpoint."""

    @abstractmethod
    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site | None:
        """One of `sites`, of which there is at least one; None: let it wait."""

    def sent(self, call: Call, site: Site, now_s: float) -> None:
        """The call leaves for that endpoint."""
        del call, now_s
        self.in_flight[site.name] += 1

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        """The endpoint served it."""
        del call, now_s
        self.in_flight[site.name] -= 1
        self.trips.observe(site, reply)

    def failed(self, call: Call, site: Site, outcome: Outcome, now_s: float) -> None:
        """The endpoint did not."""
        del call, outcome, now_s
        self.in_flight[site.name] -= 1

    def due(self, call: Call, sites: Sequence[Site], now_s: float) -> Iterable[Site]:
        """Nobody: most of these rules learn from their own requests only."""
        del call, sites, now_s
        return ()

    def probed(self, site: Site, reply: Reply | None, now_s: float) -> None:
        """A probe came back, or (None) did not."""
        del now_s
        if reply is not None:
            self.trips.observe(site, reply)


def least(sites: Sequence[Site], score: Callable[[Site], float], rng: Random) -> Site:
    """The one with the least score; among several, each as likely as the others."""
    best, best_score, alike = sites[0], score(sites[0]), 1
    for site in sites[1:]:
        one = score(site)
        if one < best_score:
            best, best_score, alike = site, one, 1
        elif one == best_score:
            alike += 1
            if rng.random() * alike < 1:
                best = site
    return best


def two(sites: Sequence[Site], rng: Random) -> Sequence[Site]:
    """Two different ones, every ordered pair as likely as the others; or the only one."""
    count = len(sites)
    if count < 2:
        return sites
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    return sites[first], sites[second + (second >= first)]
