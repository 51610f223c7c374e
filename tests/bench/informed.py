"""Our price with more and more of the truth, to see what a router lacks.

isochrone simulate worldwide --load 0.8 --algorithm isochrone,\
tests/bench/informed.py:present,tests/bench/informed.py:coming,tests/bench/informed.py:pace
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from random import Random

from isochrone.router.fleet.congestion import price
from isochrone.router.fleet.latency import ServiceTime
from isochrone.router.fleet.priors import SERVICE_S
from isochrone.router.simulate.algorithm import Call, Oracle, Reply, Site
from isochrone.router.simulate.baselines.rule import Rule


class Present(Rule):
    """It is told how many are at each endpoint; it knows its own on their way, and measures."""

    def __init__(self, rng: Random, oracle: Oracle) -> None:
        super().__init__(rng)
        self.oracle = oracle
        self._service: dict[str, ServiceTime] = {}
        self._left_s: defaultdict[str, deque[float]] = defaultdict(deque)

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """The least round trip, service and price of congestion."""
        return min(sites, key=lambda site: self._rank_s(call, site, now_s))

    def sent(self, call: Call, site: Site, now_s: float) -> None:
        super().sent(call, site, now_s)
        self._left_s[site.name].append(now_s)

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        super().answered(call, site, reply, now_s)
        service = self._service.setdefault(site.name, ServiceTime(SERVICE_S))
        service.observe(reply.infer_s, 0, now_s)

    def coming(self, site: Site, now_s: float) -> int:
        """How many are on their way there, as far as it knows."""
        left_s = self._left_s[site.name]
        while left_s and left_s[0] < now_s - self.oracle.rtt_s(site) / 2:
            left_s.popleft()
        return len(left_s)

    def service_s(self, call: Call, site: Site) -> float:
        """How long a request holds a slot there, as far as it knows."""
        del call
        service = self._service.get(site.name)
        return service.mean_s if service else SERVICE_S

    def _rank_s(self, call: Call, site: Site, now_s: float) -> float:
        service_s = self.service_s(call, site)
        expected = self.oracle.present(site) + self.coming(site, now_s)
        return self.oracle.rtt_s(site) + service_s * (1 + price(expected, site.slots))


class Coming(Present):
    """It is told of other routers' requests on their way as well."""

    def coming(self, site: Site, now_s: float) -> int:
        del now_s
        return self.oracle.coming(site)


class Pace(Coming):
    """It is told as well how long a request takes there just now."""

    def service_s(self, call: Call, site: Site) -> float:
        return self.oracle.service_s(call, site)


def present(sites: Sequence[Site], rng: Random, oracle: Oracle) -> Present:
    """A router that knows who is there."""
    del sites
    return Present(rng, oracle)


def coming(sites: Sequence[Site], rng: Random, oracle: Oracle) -> Coming:
    """And who is on the way."""
    del sites
    return Coming(rng, oracle)


def pace(sites: Sequence[Site], rng: Random, oracle: Oracle) -> Pace:
    """And how fast each endpoint is now."""
    del sites
    return Pace(rng, oracle)
