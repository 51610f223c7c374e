"""GORGO's rule against numbers worked out by hand."""

from random import Random

import pytest

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.baselines.gorgo import Gorgo
from tests.router.simulate.baselines.saying import call, reply, site

A, B = site("a", prior_rtt_s=0.02), site("b", prior_rtt_s=0.1)


def costs(rule, work=1.0):
    return [rule.cost_s(call(9, work=work), one) for one in (A, B)]


def test_transcript():
    rule = Gorgo(Random(1))
    assert costs(rule) == pytest.approx([0.02, 0.1])  # distance alone
    rule.sent(call(1), A, 0.0)
    rule.answered(call(1), A, reply(0.14, infer_s=0.1, in_flight=0), 0.14)
    # a: 0.04 on the way, 0.1 s per work; b: by distance, and the fleet's rate
    assert costs(rule) == pytest.approx([0.14, 0.2])
    rule.sent(call(2), A, 0.14)
    # a: 0.04 + 0.1 (1 + 1/2): the work sent there, over two slots
    assert costs(rule) == pytest.approx([0.19, 0.2])
    assert rule.choose(call(3), [A, B], 0.14) == A
    rule.sent(call(3), A, 0.14)
    assert costs(rule) == pytest.approx([0.24, 0.2])
    assert rule.choose(call(4), [A, B], 0.14) == B
    # a request twice as heavy: 0.04 + 0.1 (2 + 2/2), 0.1 + 0.1 * 2
    assert costs(rule, work=2.0) == pytest.approx([0.34, 0.3])
    rule.failed(call(2), A, Outcome.FAILED, 0.2)
    assert costs(rule) == pytest.approx([0.19, 0.2])
    # a poll: 5 in flight at a, one of them its own; 0.04 + 0.3 (0.06 - 0.04) on the way
    rule.probed(A, reply(0.06, in_flight=5), 0.25)
    assert costs(rule) == pytest.approx([0.046 + 0.1 * (1 + 5 / 2), 0.2])


def test_seconds_per_work_are_the_mean_of_the_last_sixteen():
    rule = Gorgo(Random(1))
    for number in range(20):
        rule.sent(call(number, work=2.0), A, 0.0)
        rule.answered(
            call(number, work=2.0), A, reply(0.02 + number, infer_s=float(number)), float(number)
        )
    # the last sixteen took 4 ... 19 s for a work of 2: 11.5 / 2 s each; a third as long for a third
    assert rule.cost_s(call(99, work=1 / 3), A) == pytest.approx(0.02 + 5.75 / 3)


def test_endpoints_are_polled_twice_a_second_and_three_misses_make_one_unhealthy():
    rule = Gorgo(Random(1))
    assert rule.due(call(), [A, B], 0.0) == [A, B]
    assert rule.due(call(), [A, B], 0.4) == []
    assert rule.due(call(), [A, B], 0.5) == [A, B]
    for missed in range(3):
        assert rule.choose(call(), [A, B], 1.0) == A, missed
        rule.probed(A, None, 1.0)
    assert rule.choose(call(), [A, B], 1.0) == B
    assert rule.choose(call(), [A], 1.0) == A
    rule.probed(A, reply(0.02), 1.5)
    assert rule.choose(call(), [A, B], 1.5) == A
