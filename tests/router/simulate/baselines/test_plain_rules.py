"""The simple ones: chance, turns, distance, and the fewest of two or of the nearest."""

from collections import Counter
from random import Random

import pytest

from isochrone.router.simulate.baselines.least_request import LeastRequest
from isochrone.router.simulate.baselines.nearest import Nearest, NearestLeastRequest
from isochrone.router.simulate.baselines.round_robin import RoundRobin
from isochrone.router.simulate.baselines.rule import RoundTrips, least, two
from isochrone.router.simulate.baselines.uniform import Uniform
from tests.router.simulate.baselines.saying import Fixed, call, reply, site

SITES = [site(name, prior_rtt_s=0.01 * place) for place, name in enumerate("abcdef", 1)]
A, B, C, D, E, F = SITES


def names(rule, sites, count):
    return "".join(rule.choose(call(), sites, 0.0).name for _ in range(count))


def test_at_random_means_equally_often():
    seen = Counter(names(Uniform(Random(1)), SITES, 6000))
    assert set(seen) == set("abcdef")
    assert all(900 < count < 1100 for count in seen.values())


def test_round_robin_goes_round_from_where_chance_has_it_begin():
    assert names(RoundRobin(SITES, Fixed(0.5)), SITES, 8) == "defabcde"


def test_round_robin_takes_the_longest_unused_of_those_offered():
    rule = RoundRobin(SITES, Fixed())
    assert names(rule, SITES, 3) == "abc"
    assert names(rule, [A, C, E], 4) == "eace"
    assert names(rule, SITES, 4) == "dfba"  # d and f were never used


def test_a_newcomer_is_next_in_turn():
    assert names(RoundRobin([A, B], Fixed()), [A, B, C], 4) == "cabc"


def test_the_nearest_is_the_least_measured_round_trip_and_before_that_the_least_by_distance():
    rule = Nearest(Random(1))
    assert rule.choose(call(), SITES, 0.0) == A
    rule.sent(call(), A, 0.0)
    # 0.2 s, of which 0.05 waiting and 0.12 in service, so 0.03 on the way: b (0.02) is nearer now
    rule.answered(call(), A, reply(0.2, wait_s=0.05, infer_s=0.12), 0.2)
    assert rule.choose(call(), SITES, 0.2) == B
    rule.probed(F, reply(0.005), 0.3)
    assert rule.choose(call(), SITES, 0.3) == F


def test_a_round_trip_is_smoothed_as_in_tcp():
    trips = RoundTrips()
    assert trips.of(A) == A.prior_rtt_s
    for latency_s in (0.1, 0.02, 0.02):
        trips.observe(A, reply(latency_s))
    # 0.1; 7/8 * 0.1 + 1/8 * 0.02 = 0.09; 7/8 * 0.09 + 1/8 * 0.02 = 0.08125
    assert trips.of(A) == pytest.approx(0.08125)


def test_of_the_nearest_four_the_least_asked():
    rule = NearestLeastRequest(Random(1))
    for one in (A, A, B, C):
        rule.sent(call(), one, 0.0)
    assert rule.choose(call(), SITES, 0.0) == D  # e and f are idle as well, but farther
    rule.sent(call(), D, 0.0)
    assert rule.choose(call(), SITES, 0.0) in {B, C, D}


def test_of_two_the_one_with_fewer_own_requests():
    rule = LeastRequest(Random(1))
    rule.sent(call(), A, 0.0)
    assert {rule.choose(call(), [A, B], 0.0) for _ in range(50)} == {B}
    rule.sent(call(), B, 0.0)
    assert {rule.choose(call(), [A, B], 0.0) for _ in range(50)} == {A, B}


def test_two_are_different_and_every_pair_is_as_likely():
    rng = Random(2)
    pairs = Counter(tuple(one.name for one in two(SITES[:3], rng)) for _ in range(6000))
    assert set(pairs) == {tuple(pair) for pair in ("ab", "ac", "ba", "bc", "ca", "cb")}
    assert all(900 < count < 1100 for count in pairs.values())


def test_among_equals_the_least_is_drawn():
    rng = Random(3)
    drawn = Counter(least(SITES, lambda one: one in {A, B}, rng).name for _ in range(4000))
    assert set(drawn) == set("cdef")
    assert all(850 < count < 1150 for count in drawn.values())
