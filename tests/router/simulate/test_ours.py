"""The product's router in virtual time: its law, its leases, its predictions, and its switches."""

from collections import Counter

import pytest

from isochrone.router.simulate.rules import OURS, RULES
from isochrone.router.simulate.scenario import Fault, Network, TenantEntry
from tests.router.simulate.stages import entry, run_of, scenario
from tests.router.simulate.test_harness import ROUGH


def played(asked, name=OURS, **more):
    return run_of(RULES[name].build(1, 2), asked, **more)


def settled_share(endings, since_s, until_s, **wanted):
    """Of the requests of a time, the share whose ending has these values."""
    there = [ending for request, ending in endings if since_s <= request.at_s < until_s]
    assert there
    hits = [all(getattr(one, key) == value for key, value in wanted.items()) for one in there]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("name", [OURS, "isochrone-hedged"])
def test_every_lease_is_closed_and_nobody_waits_at_the_end(name):
    run, _, _ = played(ROUGH, name, load=1.2)
    for router in run.routers:
        assert [site.endpoint.name for site in router.core.ledger.sites() if site.open] == []
        assert len(router.core.runner.running) == len(router.core.runner.hedging) == 0
        assert router.core.dispatcher.gate.waiting == 0


@pytest.mark.parametrize("name", [name for name in RULES if name.startswith(OURS)])
def test_the_law_holds_when_all_that_it_allows_is_gone(name):
    asked = scenario(
        entry("w", "west"),
        entry("e", "east"),
        tenants=(TenantEntry(name="free"), TenantEntry(name="bound", require=("west",))),
        faults=(Fault(kind="region_loss", where=("west",), at_s=5.0, for_s=10.0),),
        deadline_s=2.0,
    )
    _, _, endings = played(asked, name)
    assert all(ending.lawful for _, ending in endings)
    bound = [(r, e) for r, e in endings if e.requirement == "west"]
    assert {ending.endpoint for _, ending in bound if ending.served} == {"w"}
    assert settled_share(bound, 6, 14, served=True) == 0
    assert settled_share(bound, 17, 20, served=True) == 1


def test_two_endpoints_of_which_one_refuses_for_a_while_fail_nobody():
    fault = Fault(kind="kill", where=("w",), at_s=5.0, for_s=10.0)
    asked = scenario(entry("w", "west", slots=4), entry("e", "east", slots=4), faults=(fault,))
    _, _, endings = played(asked, load=0.4)
    assert settled_share(endings, 0, 20, served=True) == 1


def test_a_frozen_endpoint_is_out_within_two_probe_intervals_and_used_again_later():
    fault = Fault(kind="freeze", where=("w",), at_s=5.0, for_s=5.0)
    asked = scenario(
        entry("w", "west", slots=4), entry("e", "east", slots=4), faults=(fault,), seconds=60.0
    )
    _, _, endings = played(asked, load=0.3)
    assert settled_share(endings, 0, 60, served=True) == 1
    assert settled_share(endings, 7.1, 10.0, endpoint="w") == 0
    assert settled_share(endings, 50, 60, endpoint="w") > 0.4


def test_an_endpoint_that_becomes_ten_times_slower_is_left_and_used_again_later():
    fault = Fault(kind="slow", where=("w",), at_s=10.0, for_s=20.0, factor=10)
    asked = scenario(
        entry("w", "west", slots=4), entry("e", "east", slots=4), faults=(fault,), seconds=60.0
    )
    _, _, endings = played(asked, load=0.3)
    assert settled_share(endings, 0, 60, served=True) == 1
    assert settled_share(endings, 5, 10, endpoint="w") > 0.4
    assert settled_share(endings, 15, 30, endpoint="w") < 0.05
    assert settled_share(endings, 50, 60, endpoint="w") > 0.4


@pytest.mark.parametrize("load", [0.2, 0.9])
def test_probes_are_paid_for_by_requests(load):
    endpoints = [entry(f"{region}{n}", region) for region in ("west", "east") for n in range(10)]
    run, _, endings = played(scenario(*endpoints), load=load)
    assert 0 < sum(router.probes for router in run.routers) <= 0.3 * len(endings)


def test_the_guard_keeps_requests_from_an_endpoint_that_fails_fast():
    fault = Fault(kind="fast_fail", where=("w",), at_s=5.0)
    asked = scenario(
        entry("w", "west", slots=4), entry("e", "east", slots=4), faults=(fault,), tries=1
    )
    failed = {}
    for name in (OURS, "isochrone-unguarded"):
        _, _, endings = played(asked, name, load=0.4)
        failed[name] = 1 - settled_share(endings, 5, 20, served=True)
    assert failed[OURS] < 0.05 < 0.3 < failed["isochrone-unguarded"]


def test_an_endpoint_that_was_slow_once_is_found_out_by_exploration_only():
    fault = Fault(kind="slow", where=("near",), at_s=5.0, for_s=5.0, factor=30)
    asked = scenario(
        entry("near", "west", slots=8),
        entry("far", "east", slots=8),
        routers=(scenario().routers[0],),
        faults=(fault,),
        seconds=90.0,
    )
    back = {}
    for name in (OURS, "isochrone-incurious"):
        _, _, endings = played(asked, name, load=0.1)
        back[name] = settled_share(endings, 70, 90, endpoint="near")
    assert back == {OURS: 1.0, "isochrone-incurious": 0.0}


def test_a_prediction_is_of_what_is_observed_and_both_are_of_the_same_terms():
    asked = scenario(entry("w", "west", slots=20), network=Network(jitter_share=0.05))
    _, _, endings = played(asked, load=0.1)
    later = [ending for request, ending in endings if request.at_s > 5]
    for ending in later:
        assert sum(ending.expected.observed_s.values()) == pytest.approx(ending.latency_s)
    for term in ("net", "wait", "service", "cold"):
        predicted_s = sum(ending.expected.predicted_s[term] for ending in later) / len(later)
        observed_s = sum(ending.expected.observed_s[term] for ending in later) / len(later)
        assert predicted_s == pytest.approx(observed_s, rel=0.1, abs=0.002)


class TestAColdEndpoint:
    """The near one is cold and takes a second to load; the far one is warm."""

    ASKED = scenario(
        entry("near", "west", starts="cold", load_s=1.0, slots=8),
        entry("far", "east", slots=8),
        routers=(scenario().routers[0],),
        seconds=10.0,
    )

    def test_is_woken_while_another_serves_and_used_when_it_is_warm(self):
        _, came_to, endings = played(self.ASKED, load=0.2)
        assert settled_share(endings, 0.0, 0.5, endpoint="far") == 1
        assert settled_share(endings, 3.0, 10.0, endpoint="near") > 0.9
        assert came_to.loads == 1

    def test_is_woken_again_only_when_it_was_missed_for_as_long_as_a_load_takes(self):
        near = entry("near", "west", load_s=10.0, keep_alive_s=1.5, slots=1)
        far = entry("far", "east", slots=1)
        asked = scenario(near, far, routers=(scenario().routers[0],), seconds=300.0)
        _, came_to, endings = played(asked, load=0.01)
        missed = sum(ending.endpoint == "far" for _, ending in endings)
        assert missed > 20
        assert 1 <= came_to.loads <= missed / 10

    def test_is_waited_for_where_the_cold_term_is_off(self):
        _, _, endings = played(self.ASKED, "isochrone-always-wait", load=0.2)
        first = min(endings, key=lambda one: one[0].number)[1]
        assert first.endpoint == "near"
        assert first.latency_s > 1.0

    def test_is_used_at_once_where_the_load_is_shorter_than_the_way(self):
        quick = entry("near", "west", starts="cold", load_s=0.02, slots=8)
        far = entry("far", "east", slots=8)
        asked = scenario(quick, far, routers=(scenario().routers[0],))
        _, _, endings = played(asked, load=0.2)
        assert Counter(ending.endpoint for _, ending in endings)["near"] > 0.9 * len(endings)

    def test_is_never_waited_for_where_all_is_offloaded(self):
        _, _, endings = played(self.ASKED, "isochrone-always-offload", load=0.2)
        assert max(ending.latency_s for _, ending in endings) < 0.9
