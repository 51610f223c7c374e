"""Peak-EWMA against numbers worked out by hand."""

from math import exp
from random import Random

import pytest

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.baselines.peak_ewma import PeakEwmaScan, PeakEwmaTwo
from tests.router.simulate.baselines.saying import call, reply, site

A, B = site("a"), site("b")
KEPT = exp(-1)
"""What is left of an average after one time constant: 10 s."""


def test_a_peak_counts_at_once_and_is_forgotten_slowly():
    rule = PeakEwmaScan(Random(1))
    assert rule.load(A, 0.0) == pytest.approx(0.03)  # the default, times 0 + 1
    rule.sent(call(1), A, 0.0)
    assert rule.load(A, 0.0) == pytest.approx(0.06)  # times 1 + 1
    rule.answered(call(1), A, reply(0.2, infer_s=0.1), 0.2)
    assert rule.load(A, 0.2) == pytest.approx(0.2)  # a peak: as it is, network included
    assert rule.load(A, 10.2) == pytest.approx(0.2 * KEPT)  # towards 0 while nothing is heard


def test_a_lesser_sample_weighs_as_much_as_time_has_passed():
    rule = PeakEwmaScan(Random(1))
    rule.sent(call(1), A, 0.0)
    rule.answered(call(1), A, reply(0.2), 0.2)
    rule.sent(call(2), A, 10.1)
    rule.answered(call(2), A, reply(0.1), 10.2)  # 10 s after the peak
    # 0.2 e^-1 + 0.1 (1 - e^-1) = 0.0735759 + 0.0632121
    assert rule.load(A, 10.2) == pytest.approx(0.136788, abs=1e-6)


def test_reading_the_load_writes_the_decay_down():
    rule = PeakEwmaScan(Random(1))
    rule.sent(call(1), A, 0.0)
    rule.answered(call(1), A, reply(0.2), 0.2)
    rule.sent(call(2), A, 10.1)
    rule.load(A, 10.2)  # the average is 0.0735759 now, so that 0.1 is a peak
    rule.answered(call(2), A, reply(0.1), 10.2)
    assert rule.load(A, 10.2) == pytest.approx(0.1)


def test_a_failure_is_an_observation_of_the_time_it_took():
    rule = PeakEwmaScan(Random(1))
    rule.sent(call(1), A, 0.0)
    rule.answered(call(1), A, reply(0.2), 0.2)
    rule.sent(call(2), A, 10.199)
    rule.failed(call(2), A, Outcome.REFUSED, 10.2)
    # 0.2 e^-1 + 0.001 (1 - e^-1)
    assert rule.load(A, 10.2) == pytest.approx(0.2 * KEPT + 0.001 * (1 - KEPT))


def test_the_least_load_is_latency_times_what_would_be_in_flight():
    rule = PeakEwmaScan(Random(1))
    for number, (one, took_s) in enumerate([(A, 0.1), (B, 0.25)]):
        rule.sent(call(number), one, 0.0)
        rule.answered(call(number), one, reply(took_s), took_s)
    chosen = ""
    for number in range(10, 15):
        one = rule.choose(call(number), [A, B], 0.25)
        rule.sent(call(number), one, 0.25)
        chosen += one.name
    # loads a: 0.1 0.2 0.3 0.4 (decayed by 1.5 %), b: 0.25 0.5: a 0.1, a 0.2, b 0.25, a 0.3, a 0.4
    assert chosen == "aabaa"


def test_of_two_the_lesser_load():
    rule = PeakEwmaTwo(Random(1))
    rule.sent(call(1), A, 0.0)
    assert {rule.choose(call(2), [A, B], 0.0) for _ in range(30)} == {B}
