"""The published routing rules that ours is held against, each faithful to its source.

A baseline makes one router's rule, so it is used wherever a `Factory` is: `BASELINES["c3"]`, or
`BASELINES["c3"].among(3)` where three routers send to the same endpoints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from isochrone.router.simulate.algorithm import Algorithm, Oracle, Site
from isochrone.router.simulate.baselines.c3 import C3
from isochrone.router.simulate.baselines.gorgo import Gorgo
from isochrone.router.simulate.baselines.least_request import LeastRequest
from isochrone.router.simulate.baselines.nearest import Nearest, NearestLeastRequest
from isochrone.router.simulate.baselines.peak_ewma import PeakEwmaScan, PeakEwmaTwo
from isochrone.router.simulate.baselines.prequal import Prequal
from isochrone.router.simulate.baselines.round_robin import RoundRobin
from isochrone.router.simulate.baselines.selective_push import SelectivePush
from isochrone.router.simulate.baselines.uniform import Uniform

Make = Callable[[Sequence[Site], Random, int], Algorithm]


def _alone(rule: Callable[[Random], Algorithm]) -> Make:
    """A rule that is told of nothing beforehand and begins with its chance only."""
    return lambda _sites, rng, _routers: rule(rng)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A published rule: a line about it, its source, and how to make it. Satisfies `Factory`.

    `make` is given the endpoints known at first, chance, and how many routers there are: some
    rules are told that, none is told the truth.
    """

    about: str
    source: str
    make: Make
    routers: int = 8

    def __call__(self, sites: Sequence[Site], rng: Random, oracle: Oracle) -> Algorithm:
        """One router's rule."""
        del oracle
        return self.make(sites, rng, self.routers)

    def among(self, routers: int) -> "Baseline":
        """The same rule where so many routers send to the same endpoints."""
        return replace(self, routers=routers)


BASELINES: Mapping[str, Baseline] = {
    "random": Baseline(
        "any endpoint",
        "the yardstick",
        _alone(Uniform),
    ),
    "round_robin": Baseline(
        "each in its turn",
        "nginx, HAProxy",
        lambda sites, rng, _routers: RoundRobin(sites, rng),
    ),
    "nearest": Baseline(
        "the least measured round trip, whatever its load",
        "latency-based DNS routing (Route 53, Traffic Manager)",
        _alone(Nearest),
    ),
    "nearest_k": Baseline(
        "the fewest own requests among the nearest four",
        "locality first, then least request (Envoy)",
        _alone(NearestLeastRequest),
    ),
    "p2c": Baseline(
        "of two at random the one with fewer own requests",
        "Mitzenmacher, IEEE TPDS 2001; Envoy, gRPC",
        _alone(LeastRequest),
    ),
    "peak_ewma_p2c": Baseline(
        "of two at random the lesser peak-sensitive latency times requests",
        "Finagle, tower, linkerd2-proxy",
        _alone(PeakEwmaTwo),
    ),
    "peak_ewma": Baseline(
        "the least peak-sensitive latency times requests of all",
        "Finagle, tower, linkerd2-proxy, over all endpoints",
        _alone(PeakEwmaScan),
    ),
    "c3": Baseline(
        "latency plus service times the cube of the queue to expect",
        "Suresh et al., NSDI 2015",
        lambda _sites, rng, routers: C3(rng, routers),
    ),
    "prequal": Baseline(
        "probes ahead of need; of those not hot the least latency and round trip",
        "Wydrowski et al., NSDI 2024, with round trips added",
        lambda sites, rng, _routers: Prequal(sites, rng),
    ),
    "gorgo": Baseline(
        "the least round trip + own work + work queued there",
        "Ricci Toniolo et al., arXiv 2602.11688, 2026",
        _alone(Gorgo),
    ),
    "selective_push": Baseline(
        "the nearest with a free slot, else wait at the router",
        "Xia et al. (SkyWalker), EuroSys 2026",
        _alone(SelectivePush),
    ),
}
"""By the name that `--algorithm` takes."""
