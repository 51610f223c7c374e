"""Small worlds for tests of the simulator: two cities, a router in each, endpoints as asked for."""

import math
from random import Random

from isochrone.router.simulate.arrivals import Request, requests
from isochrone.router.simulate.endpoint import SimulatedEndpoint
from isochrone.router.simulate.engine import Engine
from isochrone.router.simulate.faults import disturbances
from isochrone.router.simulate.harness import Run
from isochrone.router.simulate.scenario import (
    EndpointEntry,
    Network,
    PlaceEntry,
    RouterEntry,
    Scenario,
    Service,
)
from isochrone.router.simulate.stage import Stage
from isochrone.router.simulate.visit import Visit
from isochrone.router.simulate.way import Way
from isochrone.router.simulate.world import placed

STILL = Network(jitter_share=0.0)
PLACES = {
    "West": PlaceEntry(latitude=0, longitude=-90),
    "East": PlaceEntry(latitude=0, longitude=90),
}
ROUTERS = (
    RouterEntry(name="r1", city="West", region="west"),
    RouterEntry(name="r2", city="East", region="east"),
)


def entry(name="e", region="west", *, mean_s=0.1, distribution="deterministic", **more):
    service = Service(mean_s=mean_s, distribution=distribution)
    city = {"west": "West", "east": "East"}[region]
    return EndpointEntry(name=name, city=city, region=region, service=service, **more)


def scenario(*endpoints, **more):
    given = {"places": PLACES, "routers": ROUTERS, "network": STILL, "seconds": 20.0}
    return Scenario(endpoints=endpoints or (entry(),), **{**given, "warmup_s": 1.0, **more})


def request(number=0, *, chance=0.5, router=0):
    return Request(
        number=number,
        at_s=0.0,
        client=router,
        router=router,
        tenant=0,
        work=1.0,
        chance=chance,
        trip_factor=1.0,
        body_bytes=0,
    )


class Bench:
    """One endpoint and a way to it of 20 ms; it notes how each visit ends, and when."""

    def __init__(self, **more):
        self.engine = Engine()
        self.endpoint = SimulatedEndpoint(entry(**more), "model", self.engine, horizon_s=1e6)
        self.way = Way(self.engine, self.endpoint, 0.02, STILL, Random(1))
        self.ends = []
        self.probes = []
        self._number = 0

    def send(self, *, deadline_s=1e6, priority=5, sender="r1"):
        self._number += 1
        visit = Visit(
            request(self._number),
            sender=sender,
            sequence=self._number,
            deadline_s=deadline_s,
            priority=priority,
            heard=self._heard,
        )
        self.way.send(visit)
        return visit

    def sample(self):
        visit = Visit(
            request(), sender="", sequence=0, deadline_s=1e6, priority=5, heard=self._heard
        )
        self.way.sample(visit)

    def probe(self):
        self.way.ask(self.endpoint.telling.full, self.probes.append)

    def run(self, until_s=math.inf):
        self.engine.run(until_s)
        return self.ends

    def _heard(self, visit):
        self.ends.append((round(self.engine.now_s, 6), visit.loss or visit.status))


def run_of(build, asked, *, load=0.5, seed=1, regret_every=0):
    """A run to its end: the run, what it came to, and every request with its ending."""
    endings = []
    world = placed(asked)
    stage = Stage(world, disturbances(asked, seed), seed)
    run = Run(stage, build, lambda request, ending: endings.append((request, ending)), regret_every)
    played = run.play(requests(world, load, seed))
    return run, played, endings
