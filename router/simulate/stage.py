"""A run without its routers: time, endpoints, the ways to them, and what goes wrong when."""

import math
from collections.abc import Iterable, Sequence
from random import Random

from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.simulate.algorithm import Site
from isochrone.router.simulate.endpoint import SimulatedEndpoint
from isochrone.router.simulate.engine import Engine
from isochrone.router.simulate.faults import Disturbance
from isochrone.router.simulate.oracle import Truth
from isochrone.router.simulate.scenario import EndpointEntry
from isochrone.router.simulate.way import Way
from isochrone.router.simulate.world import World

LEAD_S = 2.0
"""Routers are up for so long before the first request: all instants of a scenario lie so much
later in the engine's time.
"""


class Stage:
    """Endpoints and ways of one run, by their indices in the scenario."""

    def __init__(self, world: World, disturbances: Iterable[Disturbance], seed: int) -> None:
        """The seed gives the jitter of control messages."""
        scenario = world.scenario
        self.world = world
        self.engine = Engine()
        self.model = scenario.model
        self.end_s = scenario.seconds + LEAD_S
        self.endpoints = tuple(
            SimulatedEndpoint(entry, scenario.model, self.engine, self.end_s)
            for entry in scenario.endpoints
        )
        self._ways = [
            self._ways_of(row, Random(f"control/{seed}/{router}"))
            for router, row in enumerate(world.rtt_s)
        ]
        self._sites = [
            [_site(world, router, index) for index in range(len(self.endpoints))]
            for router in range(len(scenario.routers))
        ]
        for one in disturbances:
            self._schedule(one)

    def ways(self, router: int) -> dict[str, Way]:
        """One router's ways, by the endpoints' names."""
        return {way.endpoint.name: way for way in self._ways[router]}

    def sites(self, router: int) -> Sequence[Site]:
        """What one router knows of every endpoint from the first."""
        return self._sites[router]

    def joins_s(self, index: int) -> float:
        """When routers learn of an endpoint; 0: they know it from the first."""
        joins_s = self.world.scenario.endpoints[index].joins_s
        return joins_s + LEAD_S if joins_s > 0 else 0.0

    def truth(self, router: int) -> Truth:
        """The truth for one router."""
        return Truth(self.ways(router), self.engine)

    @property
    def cost(self) -> float:
        """Price times slot-seconds, of all endpoints."""
        return sum(endpoint.cost for endpoint in self.endpoints)

    @property
    def loads(self) -> int:
        """How often a cold model was loaded."""
        return sum(endpoint.warmth.loads for endpoint in self.endpoints)

    @property
    def in_flight(self) -> int:
        """Requests that run, wait or are on their way somewhere."""
        return sum(one.in_flight + len(one.coming) for one in self.endpoints)

    def _ways_of(self, row: Sequence[float], rng: Random) -> list[Way]:
        network = self.world.scenario.network
        return [
            Way(self.engine, endpoint, rtt_s, network, rng)
            for endpoint, rtt_s in zip(self.endpoints, row, strict=True)
        ]

    def _schedule(self, one: Disturbance) -> None:
        endpoint = self.endpoints[one.endpoint]
        from_s, until_s = one.from_s + LEAD_S, one.until_s + LEAD_S
        begins, ends = {
            "kill": (endpoint.kill, endpoint.revive),
            "freeze": (lambda: endpoint.freeze(until_s), endpoint.thaw),
            "slow": (lambda: endpoint.slow(one.factor), lambda: endpoint.quicken(one.factor)),
            "fast_fail": (endpoint.break_down, endpoint.recover),
            "unload": (endpoint.warmth.unload, None),
        }[one.what]
        self.engine.at(from_s, begins)
        if ends is not None and until_s < math.inf:
            self.engine.at(until_s, ends)


def known_as(entry: EndpointEntry) -> Endpoint:
    """What the routers' permits and commands call it."""
    return Endpoint(
        name=entry.name,
        url=f"http://{entry.name}",
        region=entry.region,
        tier=Tier(entry.tier),
        hardware_class=entry.hardware_class,
    )


def _site(world: World, router: int, index: int) -> Site:
    entry = world.scenario.endpoints[index]
    return Site(
        name=entry.name,
        region=entry.region,
        slots=entry.slots,
        hardware_class=entry.hardware_class,
        prior_rtt_s=world.prior_rtt_s[router][index],
        price=entry.price,
    )
