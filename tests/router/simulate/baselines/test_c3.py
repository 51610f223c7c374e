"""C3 against a transcript worked out by hand: two routers, endpoints of two slots."""

from random import Random

import pytest

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.baselines.c3 import C3
from tests.router.simulate.baselines.saying import call, reply, site

A, B = site("a", prior_rtt_s=0.1), site("b", prior_rtt_s=0.02)


def scores(rule):
    return [rule.score(A), rule.score(B)]


def test_transcript():
    rule = C3(Random(1), routers=2)
    assert scores(rule) == pytest.approx([0.1, 0.02])  # distance; no service is known at all
    assert rule.choose(call(1), [A, B], 0.0) == B
    rule.sent(call(1), B, 0.0)
    rule.answered(call(1), B, reply(0.15, wait_s=0.02, infer_s=0.1, in_flight=3), 0.15)
    # b: besides service 0.05, service 0.1, one waits (3 - 2 slots): 0.05 + (1 + 0 + 1)^3 0.1
    # a: by distance 0.1, and b's service for a guess: 0.1 + (1 + 0 + 0)^3 0.1
    assert scores(rule) == pytest.approx([0.2, 0.85])
    assert rule.choose(call(2), [A, B], 0.15) == A
    rule.sent(call(2), A, 0.15)
    assert scores(rule) == pytest.approx([0.1 + 3**3 * 0.1, 0.85])  # 1 + 1 own * 2 routers
    assert rule.choose(call(3), [A, B], 0.15) == B
    rule.sent(call(3), B, 0.15)
    rule.answered(call(2), A, reply(0.2, infer_s=0.05, in_flight=1), 0.35)
    # a: besides 0.15, service 0.05, none waits: 0.15 + 1 * 0.05; b: (1 + 2 + 1)^3 * 0.1 + 0.05
    assert scores(rule) == pytest.approx([0.2, 6.45])
    rule.answered(call(3), B, reply(0.25, wait_s=0.18, infer_s=0.05, in_flight=2), 0.40)
    # b: besides 0.05 + 0.9 (0.2 - 0.05) = 0.185, service 0.1 + 0.9 (0.05 - 0.1) = 0.055,
    #    waiting 1 + 0.9 (0 - 1) = 0.1: 0.185 + 1.1^3 * 0.055 = 0.185 + 1.331 * 0.055
    assert scores(rule) == pytest.approx([0.2, 0.258205])
    rule.sent(call(4), A, 0.4)
    assert scores(rule) == pytest.approx([0.15 + 27 * 0.05, 0.258205])
    assert rule.choose(call(5), [A, B], 0.4) == B


def test_a_failure_teaches_nothing_but_is_no_longer_outstanding():
    rule = C3(Random(1), routers=2)
    rule.sent(call(1), A, 0.0)
    rule.answered(call(1), A, reply(0.2, infer_s=0.1), 0.2)
    before = scores(rule)
    rule.sent(call(2), A, 0.2)
    rule.failed(call(2), A, Outcome.FAILED, 0.201)
    assert scores(rule) == before


def test_more_routers_make_an_own_request_count_for_more():
    for routers, expected in ((1, 2**3), (8, 9**3)):
        rule = C3(Random(1), routers)
        rule.sent(call(1), A, 0.0)
        rule.answered(call(1), A, reply(1.0, infer_s=1.0), 1.0)
        rule.sent(call(2), A, 1.0)
        assert rule.score(A) == pytest.approx(expected)
