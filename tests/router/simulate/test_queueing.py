"""One endpoint against the textbook: the mean wait of M/M/c, by Erlang's C formula."""

import math
from random import Random

import pytest

from isochrone.router.simulate.arrivals import Request
from isochrone.router.simulate.endpoint import SimulatedEndpoint
from isochrone.router.simulate.engine import Engine
from isochrone.router.simulate.visit import Visit
from isochrone.router.simulate.way import Way
from tests.router.simulate.stages import STILL, entry

COUNT = 60_000


def erlang_c_wait_s(rate_s, service_s, slots):
    offered = rate_s * service_s
    busy = offered / slots
    last = offered**slots / math.factorial(slots) / (1 - busy)
    below = sum(offered**k / math.factorial(k) for k in range(slots))
    return last / (below + last) * service_s / (slots - offered)


def mean_wait_s(rate_s, service_s, slots, seed):
    engine = Engine()
    asked = entry(mean_s=service_s, distribution="exponential", slots=slots, queue=1_000_000)
    endpoint = SimulatedEndpoint(asked, "model", engine, horizon_s=math.inf)
    way = Way(engine, endpoint, 0.0, STILL, Random(seed))
    rng, waits_s = Random(seed), []

    def arrive(number):
        request = Request(number, engine.now_s, 0, 0, 0, 1.0, rng.uniform(1e-12, 1), 1.0, 0)
        way.send(
            Visit(
                request,
                sender="r1",
                sequence=number,
                deadline_s=math.inf,
                priority=1,
                heard=lambda visit: waits_s.append(visit.wait_s),
            )
        )
        if number < COUNT:
            engine.after(rng.expovariate(rate_s), arrive, number + 1)

    engine.at(0.0, arrive, 1)
    engine.run()
    assert len(waits_s) == COUNT
    return sum(waits_s) / COUNT


@pytest.mark.parametrize(("slots", "busy"), [(1, 0.5), (4, 0.6)])
def test_the_mean_wait_is_that_of_the_formula(slots, busy):
    rate_s = busy * slots / 0.1
    simulated_s = mean_wait_s(rate_s, 0.1, slots, seed=1)
    assert simulated_s == pytest.approx(erlang_c_wait_s(rate_s, 0.1, slots), rel=0.05)
