"""Prequal against transcripts worked out by hand."""

from random import Random

import pytest

from isochrone.router.simulate.baselines.prequal import Prequal, there_s
from tests.router.simulate.baselines.saying import Fixed, call, reply, site

SITES = [site(name) for name in "abcdefg"]
A, B, C, D, E, F, G = SITES


def told(latency_s, in_flight, recent_s=0.1):
    return reply(latency_s, in_flight=in_flight, recent_s=recent_s)


def pooled(rule):
    return "".join(rule.pool)


def test_transcript():
    rule = Prequal(SITES, Fixed())
    for one, answer in (
        (A, told(0.05, 1)),  # busy 1/2, there 0.1 (a slot is free), on the way 0.05: 0.15
        (B, told(0.01, 0, 0.12)),  # busy 0, 0.12 + 0.01 = 0.13
        (C, told(0.01, 4)),  # busy 2, there 0.1 (1 + 3/2) = 0.25: 0.26
        (D, told(0.01, 8)),  # busy 4, there 0.1 (1 + 7/2) = 0.45: 0.46
    ):
        rule.probed(one, answer, 0.0)
    # hot is above the 0.841 quantile of 0, 1/2, 2, 4, the 4th of four: nobody; b is the fastest.
    # Then the oldest answer goes: a.
    assert rule.choose(call(1), SITES, 0.1) == B
    assert pooled(rule) == "bcd"
    assert rule.pool["b"].busy == 0.5
    # Again b, though it counts for 1/2 + 1/2 now; then the worst goes: none is hot, d is slowest.
    assert rule.choose(call(2), SITES, 0.2) == B
    assert pooled(rule) == "bc"
    # c alone may serve: it is taken, and the oldest goes.
    assert rule.choose(call(3), [C, E], 0.3) == C
    assert pooled(rule) == "c"
    # One answer is too few: chance (0.0: the first), and then the worst, the last one, goes.
    assert rule.choose(call(4), SITES, 0.4) == A
    assert pooled(rule) == ""


def test_the_fastest_is_not_taken_while_it_is_hot_nor_is_whoever_was_just_used():
    rule = Prequal(SITES, Fixed())
    for one in SITES[:6]:
        rule.probed(one, told(0.05, 0), 0.0)
    rule.probed(G, told(0.001, 1, 0.01), 0.0)
    # 0 six times and 1/2: the 6th of seven is 0, so g is hot. The cold are all alike at 0.15 s, of
    # which chance (0.0) takes the last, f; it counts for 1/2 then and is hot as well.
    assert rule.choose(call(1), SITES, 0.1) == F
    assert pooled(rule) == "bcdefg"
    assert rule.choose(call(2), SITES, 0.1) == E
    # the worst that leaves is the first of the most loaded hot ones: e
    assert pooled(rule) == "bcdfg"


def test_where_all_are_hot_the_least_loaded_is_taken():
    rule = Prequal(SITES, Fixed())
    for _ in range(64):
        rule.probed(A, told(0.05, 0), 0.0)  # the quantile of the last 64 is 0
    rule.probed(A, told(0.001, 6, 0.01), 0.1)
    rule.probed(B, told(0.3, 4, 0.5), 0.1)
    rule.probed(C, told(0.001, 5, 0.01), 0.1)
    assert rule.choose(call(1), SITES, 0.2) == B


def test_the_worst_that_leaves_is_the_most_loaded_of_the_hot():
    rule = Prequal(SITES, Fixed())
    for _ in range(64):
        rule.probed(G, told(0.05, 0), 0.0)
    for one, in_flight in ((A, 0), (B, 4), (C, 5), (D, 2)):
        rule.probed(one, told(0.01, in_flight), 0.1)
    rule.choose(call(1), SITES, 0.2)  # the oldest goes: g
    assert pooled(rule) == "abcd"
    rule.choose(call(2), SITES, 0.2)  # the worst: c
    assert pooled(rule) == "abd"


def test_answers_age_one_second_and_a_newer_one_takes_the_place_of_an_older():
    rule = Prequal(SITES, Fixed())
    rule.probed(A, told(0.01, 0), 0.0)
    rule.probed(B, told(0.02, 0), 0.1)
    rule.probed(C, told(0.03, 0), 0.2)
    rule.probed(A, told(0.01, 7), 0.3)
    assert pooled(rule) == "bca"
    assert rule.pool["a"].busy == 3.5
    rule.choose(call(1), [B], 1.15)  # b is 1.05 s old, and too old; then the oldest goes: c
    assert pooled(rule) == "a"


def test_the_pool_holds_sixteen_and_lets_the_oldest_go():
    many = [site(f"s{number}") for number in range(20)]
    rule = Prequal(many, Fixed())
    for number, one in enumerate(many):
        rule.probed(one, told(0.01, 0), number * 0.01)
    assert list(rule.pool) == [f"s{number}" for number in range(4, 20)]


@pytest.mark.parametrize(
    ("endpoints", "reuse"),
    [
        (29, 5.8),  # (1 + 1) / ((1 - 16/29) 3 - 1) = 2 / (10/29)
        (64, 1.6),  # 2 / (3/4 * 3 - 1)
        (16_000, 1.0015),  # 2 / (0.999 * 3 - 1) = 2 / 1.997
        (16, 16),  # nothing new can come: as long as it lasts
        (3, 16),
    ],
)
def test_how_often_an_answer_serves(endpoints, reuse):
    rule = Prequal([site(f"s{number}") for number in range(endpoints)], Random(1))
    assert rule.reuse == pytest.approx(reuse, abs=1e-4)


def test_an_answer_is_used_up():
    many = [site(f"s{number}") for number in range(29)]
    rule = Prequal(many, Fixed(0.1))  # 5.8 + 0.1: five times
    for one in many[1:16]:
        rule.probed(one, told(0.05, 40), 0.0)  # so loaded that s0 never becomes hot
    rule.probed(many[0], told(0.01, 0), 0.0)
    chosen = [rule.choose(call(number), many, 0.1).name for number in range(6)]
    assert chosen[:5] == ["s0"] * 5
    assert chosen[5] != "s0"
    assert "s0" not in rule.pool


def test_three_are_probed_at_random_and_none_twice():
    rule = Prequal(SITES, Random(1))
    for number in range(50):
        due = rule.due(call(number), SITES, 0.0)
        assert len(set(due)) == 3
    assert set(rule.due(call(), SITES[:2], 0.0)) == {A, B}


@pytest.mark.parametrize(
    ("in_flight", "expected_s"), [(0, 0.1), (1, 0.1), (2, 0.15), (3, 0.2), (6, 0.35)]
)
def test_the_wait_that_so_many_in_flight_make_is_part_of_the_latency(in_flight, expected_s):
    # two slots; from the second in flight on, one more waits: 0.1 (1 + (in flight + 1 - 2) / 2)
    assert there_s(told(0.01, in_flight)) == pytest.approx(expected_s)
