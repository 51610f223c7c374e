"""The rules and the simulator against what queueing theory knows.

Means need hundreds of thousands of requests, which the simulator plays too slowly for a test. So
the simulator's waits are held against a recursion, one by one, and the recursion against theory.
"""

from heapq import heappop, heappush, heapreplace
from random import Random
from statistics import fmean

import pytest

from isochrone.router.simulate.algorithm import Site
from isochrone.router.simulate.arrivals import requests, service_s
from isochrone.router.simulate.baselines import BASELINES
from isochrone.router.simulate.harness import play
from isochrone.router.simulate.oracle import Truth
from isochrone.router.simulate.plugged import plugged
from isochrone.router.simulate.scenario import (
    EndpointEntry,
    PlaceEntry,
    RouterEntry,
    Scenario,
    Service,
)
from isochrone.router.simulate.world import placed
from tests.router.simulate.baselines.saying import call, reply, site

EXPONENTIAL = Service(mean_s=1.0, distribution="exponential")


def one_endpoint(slots):
    """A router and one endpoint in the same city, with room for all who wait."""
    return Scenario(
        seconds=2000.0,
        warmup_s=0.0,
        deadline_s=10_000.0,
        places={"Rome": PlaceEntry(latitude=41.9, longitude=12.5, population=1)},
        routers=(RouterEntry(name="r", city="Rome", region="eu"),),
        endpoints=(
            EndpointEntry(
                name="e", city="Rome", region="eu", slots=slots, queue=100_000, service=EXPONENTIAL
            ),
        ),
    )


class Waits:
    """A baseline, and the waits that endpoints told it of, by request."""

    def __init__(self, rule):
        self._rule = rule
        self.by_number = {}

    def answered(self, answered, where, told, now_s):
        self.by_number[answered.number] = told.wait_s
        self._rule.answered(answered, where, told, now_s)

    def __getattr__(self, name):
        return getattr(self._rule, name)


def waits_s(arrivals_s, services_s, slots):
    """Kiefer and Wolfowitz's recursion: who comes first gets the slot that is free first."""
    free_s = [0.0] * slots
    for at_s, takes_s in zip(arrivals_s, services_s, strict=True):
        begins_s = max(at_s, free_s[0])
        yield begins_s - at_s
        heapreplace(free_s, begins_s + takes_s)


def erlang_c_wait_s(slots, load):
    """The mean wait in M/M/c with mean service 1 s (Erlang 1917), `load` busy per slot."""
    offered, blocking = slots * load, 1.0
    for servers in range(1, slots + 1):  # Erlang's B by its recursion, then C from B
        blocking = offered * blocking / (servers + offered * blocking)
    waiting = blocking / (1 - load * (1 - blocking))
    return waiting / (slots * (1 - load))


def test_the_simulators_waits_are_those_of_the_recursion():
    slots = 3
    world = placed(one_endpoint(slots))
    asked = list(requests(world, 0.7, seed=1))
    made = []

    def make(sites, rng, oracle):
        assert isinstance(oracle, Truth)
        made.append(Waits(BASELINES["random"](sites, rng, oracle)))
        return made[0]

    play(world, asked, plugged(make, 1), seed=1, ended=lambda *_: None, regret_every=0)
    told_s = [wait_s for _, wait_s in sorted(made[0].by_number.items())]
    # In one city a request is there after half a round trip; jitter may let one overtake another,
    # so that they change places but the mean stays.
    way_s = [world.rtt_s[0][0] * one.trip_factor / 2 for one in asked]
    there = sorted(
        (one.at_s + there_s + one.body_bytes / 12_500_000, number)
        for number, (one, there_s) in enumerate(zip(asked, way_s, strict=True))
    )
    expected = waits_s(
        [at_s for at_s, _ in there],
        [service_s(EXPONENTIAL, asked[number]) for _, number in there],
        slots,
    )
    by_arrival = [told_s[number] for _, number in there]
    assert len(told_s) == len(asked) > 3000
    assert by_arrival == pytest.approx(list(expected), abs=1e-6)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_the_recursions_mean_wait_is_erlang_c_s_within_3_percent(slots):
    load, count, means_s = 0.7, 400_000, []
    for seed in (1, 2, 3):
        rng, now_s = Random(seed), 0.0
        arrivals_s = []
        for _ in range(count):
            now_s += rng.expovariate(slots * load)
            arrivals_s.append(now_s)
        services_s = (rng.expovariate(1.0) for _ in range(count))
        means_s.append(fmean(waits_s(arrivals_s, services_s, slots)))
    assert fmean(means_s) == pytest.approx(erlang_c_wait_s(slots, load), rel=0.03)


@pytest.mark.parametrize(("slots", "load", "wait_s"), [(1, 0.5, 1.0), (2, 0.5, 1 / 3)])
def test_erlang_c_itself(slots, load, wait_s):
    # M/M/1: load / (1 - load); M/M/2: load^2 / (1 - load^2)
    assert erlang_c_wait_s(slots, load) == pytest.approx(wait_s)


def supermarket_s(load):
    """The mean time in the system of the supermarket model with two choices, mean service 1 s.

    A share of load^(2^i - 1) of all queues holds i or more; by Little, the mean time is the sum of
    load^(2^i - 2) over i from 1 (Mitzenmacher 2001; Vvedenskaya et al. 1996), in the limit of
    infinitely many queues.
    """
    return sum(load ** (2**i - 2) for i in range(1, 12))


def mean_stay_s(rule, sites, load, count, seed):
    """Requests at random, single slots, no network, first come first served; from the second
    quarter on."""
    rng, now_s, told = Random(seed), 0.0, reply(0.0)
    free_s = dict.fromkeys(sites, 0.0)
    leaving: list[tuple[float, int, Site]] = []
    stays_s = []
    for number in range(count):
        now_s += rng.expovariate(load * len(sites))
        while leaving and leaving[0][0] <= now_s:
            rule.answered(call(), heappop(leaving)[2], told, now_s)
        chosen = rule.choose(call(), sites, now_s)
        rule.sent(call(), chosen, now_s)
        free_s[chosen] = max(now_s, free_s[chosen]) + rng.expovariate(1.0)
        heappush(leaving, (free_s[chosen], number, chosen))
        stays_s.append(free_s[chosen] - now_s)
    return fmean(stays_s[count // 4 :])


@pytest.mark.parametrize("load", [0.7, 0.9])
def test_two_choices_come_to_the_supermarket_models_fixed_point_within_5_percent(load):
    sites = [site(f"s{number}", slots=1) for number in range(300)]
    rule = BASELINES["p2c"].make(sites, Random(1), 1)
    assert mean_stay_s(rule, sites, load, 200_000, 2) == pytest.approx(
        supermarket_s(load), rel=0.05
    )


def test_chance_alone_is_as_slow_as_a_single_queue():
    # M/M/1 at 0.7: 1 / (1 - 0.7) = 3.33 s; the check above is not one that anything passes
    sites = [site(f"s{number}", slots=1) for number in range(300)]
    rule = BASELINES["random"].make(sites, Random(1), 1)
    assert mean_stay_s(rule, sites, 0.7, 200_000, 2) == pytest.approx(1 / 0.3, rel=0.05)
