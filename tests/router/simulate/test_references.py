"""References: the truth at an instant, and what considering others is worth."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.simulate.algorithm import Call, Site
from isochrone.router.simulate.oracle import Truth, wait_s
from isochrone.router.simulate.references import Considerate, imposed_s
from isochrone.router.simulate.rules import RULES
from tests.router.simulate.stages import Bench, entry, run_of, scenario

CALL = Call(1, "model", "west", "t", None, 5, 0, 1.0, 0.0, 10.0)
SITE = Site("e", "west", 1, "unknown", 0.02, 1.0)


def truth(bench):
    return Truth({"e": bench.way}, bench.engine)


@given(st.integers(1, 4), st.lists(st.floats(0, 0.3), max_size=12))
def test_the_wait_foretold_is_the_wait_that_comes(slots, instants_s):
    """Everybody there is of one priority, and the newcomer is the last to arrive."""
    bench = Bench(slots=slots, queue=1000)
    for at_s in instants_s:
        bench.engine.at(at_s, bench.send)
    bench.run(0.3)
    foretold_s = truth(bench).wait_s(CALL, SITE)
    visit = bench.send()
    bench.run()
    assert visit.wait_s == pytest.approx(foretold_s, abs=1e-9)


def test_the_wait_has_the_load_of_a_cold_model_and_the_end_of_a_freeze():
    cold = Bench(starts="cold", load_s=1.0)
    assert truth(cold).wait_s(CALL, SITE) == pytest.approx(0.99)
    frozen = Bench()
    frozen.endpoint.freeze(2.0)
    assert truth(frozen).wait_s(CALL, SITE) == pytest.approx(1.99)


def test_who_would_not_answer_is_waited_for_without_end():
    bench = Bench()
    bench.endpoint.kill()
    assert wait_s(bench.endpoint, 0.0, 0.01) == math.inf
    bench = Bench()
    bench.endpoint.break_down()
    assert truth(bench).total_s(CALL, SITE) == math.inf


def test_the_backlog_counts_what_runs_waits_and_comes():
    bench = Bench(slots=1)
    for _ in range(3):
        bench.send()
    bench.run(0.06)
    bench.send()
    assert truth(bench).backlog_s(SITE) == pytest.approx(0.05 + 0.1 + 0.1 + 0.1)


def test_the_delay_imposed_is_that_of_the_formula():
    """An M/G/1 queue: rate 4/s, utilisation 0.4, 0.3 s there, a job of 0.1 s."""
    added_s = imposed_s(rate_s=4.0, busy=0.4, backlog_s=0.3, service_s=0.1, slots=1)
    assert added_s == pytest.approx(4 / (2 * 0.6) * (0.4**2 - 0.3**2))


@given(
    rate_s=st.floats(0, 100),
    busy=st.floats(0, 0.95),
    backlog_s=st.floats(0, 10),
    more_s=st.floats(0, 10),
    service_s=st.floats(0.001, 1),
    slots=st.integers(1, 8),
)
def test_more_is_imposed_where_more_waits(rate_s, busy, backlog_s, more_s, service_s, slots):
    less, more = (
        imposed_s(rate_s=rate_s, busy=busy, backlog_s=ahead_s, service_s=service_s, slots=slots)
        for ahead_s in (backlog_s, backlog_s + more_s)
    )
    assert 0 <= less <= more * (1 + 1e-9) + 1e-12


def test_considering_others_pays_at_a_high_load():
    asked = scenario(
        *(entry(f"w{n}", "west", mean_s=0.1, distribution="exponential") for n in range(3)),
        *(entry(f"e{n}", "east", mean_s=0.1, distribution="exponential") for n in range(3)),
        seconds=60.0,
    )
    means_s = {}
    for name in ("clairvoyant", "clairvoyant-considerate"):
        _, _, endings = run_of(RULES[name].build(1, 2), asked, load=0.85)
        means_s[name] = sum(ending.latency_s for _, ending in endings) / len(endings)
    assert means_s["clairvoyant-considerate"] < means_s["clairvoyant"]


def test_without_weight_considerate_is_greedy():
    bench = Bench()
    rule = Considerate([SITE], Random(1), truth(bench), weight=0.0)
    assert rule.imposed_s(CALL, SITE) == 0
