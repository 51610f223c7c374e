"""What holds of every baseline: it keeps to its offer, forgets what ended, asks no oracle."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.baselines import BASELINES
from tests.router.simulate.baselines.saying import call, reply, site

NAMES = tuple(BASELINES)
SITES = [site(name, prior_rtt_s=0.01 * place) for place, name in enumerate("abcdef", 1)]
LATER = site("later")


class NoOracle:
    """Whoever asks it has cheated."""

    def __getattr__(self, name):
        raise AssertionError(f"a baseline asked the oracle for {name}")


def made(name, seed=1, routers=3):
    return BASELINES[name].among(routers)(SITES, Random(seed), NoOracle())


def told(chance):
    """An answer as chance has it."""
    return reply(
        0.02 + chance.random(),
        infer_s=0.01,
        in_flight=chance.randrange(6),
        recent_s=chance.random(),
    )


def play(rule, steps, seed):
    """Requests that come, end and are probed for at random; returns who was chosen, and what is
    left under way."""
    chance = Random(seed)
    chosen, open_calls = [], []
    for number in range(steps):
        now_s = number * 0.05
        offered = chance.sample([*SITES, LATER], chance.randint(1, 7))
        one = rule.choose(call(number), offered, now_s)
        assert one is None or one in offered
        chosen.append(one and one.name)
        if one is not None:
            rule.sent(call(number), one, now_s)
            open_calls.append((number, one))
        for probed in rule.due(call(number), offered, now_s):
            assert probed in offered
            rule.probed(probed, told(chance) if chance.random() < 0.9 else None, now_s)
        while open_calls and chance.random() < 0.6:
            end(rule, open_calls.pop(chance.randrange(len(open_calls))), now_s, chance)
    return chosen, open_calls


def end(rule, under_way, now_s, chance):
    number, one = under_way
    if chance.random() < 0.8:
        rule.answered(call(number), one, told(chance), now_s)
    else:
        rule.failed(call(number), one, chance.choice([Outcome.REFUSED, Outcome.FAILED]), now_s)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_it_chooses_among_those_offered_also_one_that_joined_later(name, seed):
    play(made(name, seed), 60, seed)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_chance_makes_the_same_choices(name):
    assert play(made(name), 200, 5)[0] == play(made(name), 200, 5)[0]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_kept_of_requests_that_have_ended(name):
    rule = made(name)
    chance = Random(3)
    sizes = []
    for seed in (1, 2, 3):
        for under_way in play(rule, 400, seed)[1]:
            end(rule, under_way, 30.0, chance)
        assert not any(rule.in_flight.values())
        sizes.append(size_of(rule))
    assert sizes[1] == sizes[2]


def size_of(rule):
    """How many entries its containers have, two levels deep; the prequal pool comes and goes."""
    held = {name: value for name, value in vars(rule).items() if name not in {"rng", "pool"}}
    held |= {f"trips.{name}": value for name, value in vars(rule.trips).items()}
    return {name: len(value) for name, value in held.items() if hasattr(value, "__len__")}


@pytest.mark.parametrize("name", NAMES)
def test_a_lone_endpoint_is_chosen(name):
    assert made(name).choose(call(), SITES[2:3], 0.0) == SITES[2]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_where_it_is_from(name):
    assert BASELINES[name].about
    assert BASELINES[name].source
