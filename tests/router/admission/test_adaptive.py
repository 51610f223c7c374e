"""The limit of runs at once finds how many the machine can really run at once."""

from itertools import pairwise
from random import Random

import pytest

from isochrone.router.admission.adaptive import Adaptive


def play(limit, cores, runs, from_s=0.0, run_s=0.05, known=True, seed=3):
    """So many runs of a busy agent on so many cores; the limits that held, and the time."""
    rng, now_s, held = Random(seed), from_s, []
    for _ in range(runs):
        running = limit.limit
        stretch = max(1.0, running / cores) * rng.uniform(0.95, 1.1)
        now_s += run_s * stretch / running
        alone = running == 1
        limit.ended(stretch if known or alone else None, alone=alone, full=True, now_s=now_s)
        held.append(limit.limit)
    return held, now_s


@pytest.mark.parametrize(("most", "cores"), [(2, 1), (4, 1), (4, 2), (8, 3), (4, 4), (1, 4)])
def test_it_settles_at_the_cores_that_are_there(most, cores):
    held, _ = play(Adaptive(most), cores, runs=3000)
    settled = sorted(held[500:])
    assert settled[len(settled) // 2] == min(most, cores)


def test_a_core_that_comes_back_is_used_again():
    limit = Adaptive(2)
    held, now_s = play(limit, cores=1, runs=200)
    assert held[-1] == 1
    held, _ = play(limit, cores=2, runs=4000, from_s=now_s)
    assert held[-1] == 2


def test_useless_places_are_tried_ever_more_rarely():
    held, _ = play(Adaptive(2), cores=1, runs=20_000)
    trials = [before < after for before, after in pairwise(held)]
    first, last = trials[: len(trials) // 4], trials[-len(trials) // 4 :]
    assert sum(first) > sum(last)
    assert sum(last) <= 2


def test_an_idle_agent_keeps_all_its_places():
    limit = Adaptive(4)
    for second in range(1000):
        limit.ended(1.0, alone=True, full=False, now_s=float(second))
    assert limit.limit == 4


def test_without_a_yardstick_one_is_measured_alone_and_never_for_long():
    limit = Adaptive(2)
    held, _ = play(limit, cores=2, runs=40, known=False)
    assert 1 in held
    assert held[-1] == 2


@pytest.mark.parametrize("stretch", [0.0, 1e9])
def test_it_stays_within_its_bounds(stretch):
    limit = Adaptive(3)
    for number in range(2000):
        limit.ended(stretch, alone=False, full=True, now_s=number * 0.1)
        assert 1 <= limit.limit <= 3
