"""When loads that run one after another will be done."""

import pytest

from isochrone.edge_agent.runtime.loading.loads import Loads


def test_a_load_is_done_after_all_before_it():
    loads = Loads()
    assert loads.all_left_s(0.0) == 0.0
    loads.join("a", 4.0)
    loads.join("b", 2.0)
    loads.began("a", 10.0)
    assert loads.left_s("a", 11.0) == 3.0
    assert loads.left_s("b", 11.0) == 5.0
    assert loads.all_left_s(11.0) == 5.0
    loads.ended("a", 1, 1.0)
    assert loads.left_s("a", 11.0) is None
    assert loads.left_s("b", 12.0) == 2.0


def test_a_load_that_takes_longer_than_expected_is_never_done_at_once():
    loads = Loads()
    loads.join("a", 4.0)
    loads.began("a", 0.0)
    assert loads.left_s("a", 100.0) == pytest.approx(0.4)


def test_the_guess_learns_how_slow_the_machine_is():
    loads = Loads()
    first_s = loads.guess_s(100_000_000)
    for _ in range(20):
        loads.join("a", 1.0)
        loads.ended("a", 100_000_000, 10 * first_s)
    assert loads.guess_s(100_000_000) == pytest.approx(10 * first_s, rel=0.01)
    assert loads.guess_s(1) < loads.guess_s(100_000_000)


def test_a_load_that_failed_teaches_nothing():
    loads = Loads()
    guess_s = loads.guess_s(5)
    loads.join("a", 1.0)
    loads.ended("a", 5, None)
    assert loads.guess_s(5) == guess_s
