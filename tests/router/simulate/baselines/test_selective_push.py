"""Selective pushing: where a slot is free, else nowhere."""

from random import Random

from isochrone.router.simulate.baselines.selective_push import SelectivePush
from tests.router.simulate.baselines.saying import call, reply, site

NEAR, FAR = site("near", prior_rtt_s=0.01), site("far", slots=1, prior_rtt_s=0.1)
BOTH = [NEAR, FAR]


def test_the_nearest_with_a_free_slot_and_nobody_when_all_are_taken():
    rule = SelectivePush(Random(1))
    for expected in (NEAR, NEAR, FAR):
        assert rule.choose(call(), BOTH, 0.0) == expected
        rule.sent(call(), expected, 0.0)
    assert rule.choose(call(), BOTH, 0.0) is None
    rule.answered(call(), FAR, reply(0.2, infer_s=0.1, slots=1), 0.2)
    assert rule.choose(call(), BOTH, 0.2) == FAR


def test_requests_of_others_count_as_long_as_they_are_news():
    rule = SelectivePush(Random(1))
    rule.sent(call(), NEAR, 0.0)
    rule.probed(NEAR, reply(0.01, in_flight=2), 0.1)  # one of the two is its own
    assert rule.known(NEAR, 0.1) == 2
    assert rule.choose(call(), BOTH, 0.1) == FAR
    assert rule.choose(call(), BOTH, 1.1) == FAR
    assert rule.choose(call(), BOTH, 1.2) == NEAR  # forgotten
    rule.answered(call(), NEAR, reply(1.2, infer_s=0.1, in_flight=2), 1.2)  # both are others' now
    assert rule.known(NEAR, 1.2) == 2


def test_every_endpoint_is_polled_once_in_100_ms():
    rule = SelectivePush(Random(1))
    assert rule.due(call(), BOTH, 0.0) == BOTH
    assert rule.due(call(), [NEAR], 0.05) == []
    assert rule.due(call(), BOTH, 0.1) == BOTH
