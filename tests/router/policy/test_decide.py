"""The decision: law, filters, scores, pick; as a table and as laws."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from isochrone.router.fleet.candidate import Candidate, FrozenCandidate, Shortlist
from isochrone.router.fleet.rank import congestion_s
from isochrone.router.geo.network import Estimate
from isochrone.router.law.permit import Permit, permit
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.policy.policy import Policy, decide
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import seconds, wait_s
from isochrone.router.wire.report import ModelState

POLICY = Policy()
QUERY = Query("r1", "digits", now_s=100.0, deadline_s=130.0)
EU_ONLY = structs.replace(
    QUERY, required_regions=frozenset({"eu-west"}), requirement="eu-west (tenant acme)"
)


def at(name: str, region: str = "eu-west", **state) -> FrozenCandidate:
    return FrozenCandidate(Endpoint(name, f"http://{name}:1", region), **state)


class ByRegion:
    """A vantage from which only regions are told apart."""

    def __init__(self, **rtt_s: float) -> None:
        self.rtt_s = rtt_s

    def net(self, endpoint: str, region: str) -> Estimate:
        del endpoint
        return Estimate(self.rtt_s[region.replace("-", "_")], 0.0, "measured")


@dataclass(frozen=True)
class FrozenFleet:
    """A fleet of these candidates, all of one model."""

    held: tuple[Candidate, ...] = ()
    generation: int = 1

    def candidates(self, model: str, version: str | None) -> Sequence[Candidate]:
        del model
        return [c for c in self.held if version is None or c.version == version]

    def elsewhere(self, model: str, version: str | None) -> int:
        return len(self.held) - len(self.candidates(model, version))

    def shortlist(
        self, model: str, version: str | None, regions: frozenset[str] | None
    ) -> Shortlist:
        del model, version, regions
        raise AssertionError("`decide` looks at every candidate")


def plan(query: Query, *candidates: FrozenCandidate):
    return decide(POLICY, query, FrozenFleet(candidates), Random(1))


def names(made) -> list[str]:
    return [s.permit.endpoint.name for s in made.order]


NEAR, FAR = at("near", net_s=0.005), at("far", net_s=0.2)

ORDERS = {
    "the nearer first": ([FAR, NEAR], QUERY, ["near", "far"], "nearest"),
    "law before distance": ([at("us", "us-east"), FAR], EU_ONLY, ["far"], "nearest"),
    "an unknown region is not allowed": ([at("x", "atlantis")], EU_ONLY, [], "none"),
    "out": ([replace(NEAR, out="2 probes missed"), FAR], QUERY, ["far"], "nearest_out"),
    "full": ([replace(NEAR, full_until_s=100.1), FAR], QUERY, ["far"], "nearest_busy"),
    "full no more": ([replace(NEAR, full_until_s=99.9), FAR], QUERY, ["near", "far"], "nearest"),
    "cold": (
        [replace(NEAR, state=ModelState.COLD, load_s=1.0), FAR],
        QUERY,
        ["far", "near"],
        "nearest_cold",
    ),
    "cold is better than nothing": (
        [replace(NEAR, state=ModelState.COLD)],
        QUERY,
        ["near"],
        "nearest",
    ),
    "who starts slowly before a model is loaded": (
        [
            replace(NEAR, state=ModelState.COLD, load_s=3.0),
            replace(FAR, ramp_from_s=99.0, in_flight=3),
        ],
        QUERY,
        ["far", "near"],
        "nearest_cold",
    ),
    "nearly loaded": (
        [replace(NEAR, state=ModelState.LOADING, warm_at_s=100.05), FAR],
        QUERY,
        ["near", "far"],
        "nearest",
    ),
    "being unloaded": (
        [replace(NEAR, state=ModelState.DRAINING, load_s=1.0), FAR],
        QUERY,
        ["far", "near"],
        "nearest_cold",
    ),
    "being unloaded is better than nothing": (
        [replace(NEAR, state=ModelState.DRAINING)],
        QUERY,
        ["near"],
        "nearest",
    ),
    "busy": (
        [replace(NEAR, slots=2, in_flight=21, service_s=0.02), FAR],
        QUERY,
        ["far", "near"],
        "nearest_busy",
    ),
    "busy, but not worth the way": (
        [replace(NEAR, slots=2, in_flight=3, service_s=0.02), FAR],
        QUERY,
        ["near", "far"],
        "nearest",
    ),
    "slower": ([replace(NEAR, service_s=1.0), FAR], QUERY, ["far", "near"], "faster"),
    "taste": (
        [at("us", "us-east", net_s=0.01), at("eu", net_s=0.03)],
        structs.replace(QUERY, preferred={"eu-west": 0.05}),
        ["eu", "us"],
        "faster",
    ),
    "seen from the client": (
        [at("us", "us-east", net_s=0.001), at("eu", net_s=0.1)],
        structs.replace(QUERY, vantage=ByRegion(eu_west=0.01, us_east=0.09)),
        ["eu", "us"],
        "nearest",
    ),
}


@pytest.mark.parametrize(("candidates", "query", "order", "why"), ORDERS.values(), ids=ORDERS)
def test_orders(candidates, query, order, why):
    made = plan(query, *candidates)
    assert names(made) == order
    assert made.why == why


def test_every_reason_is_told():
    made = plan(EU_ONLY, at("us", "us-east"), replace(NEAR, out="draining"), FAR)
    assert {r.candidate.endpoint.name: r.reason for r in made.rejected} == {
        "us": "region us-east is outside eu-west (tenant acme)",
        "near": "draining",
    }


def test_the_best_cold_endpoint_is_woken_once():
    cold = replace(NEAR, state=ModelState.COLD)
    assert plan(QUERY, cold, FAR).wake is not None
    assert plan(QUERY, replace(cold, woken=True), FAR).wake is None
    assert plan(QUERY, replace(FAR, state=ModelState.COLD), NEAR).wake is None, "it is no better"
    assert plan(QUERY, cold).wake is None, "the request itself loads it"


def test_nobody_is_woken_who_comes_after_what_the_request_itself_loads():
    near = replace(NEAR, state=ModelState.COLD, load_s=0.1)
    beside = replace(FAR, state=ModelState.COLD, load_s=10.0, net_s=NEAR.net_s + 0.05)
    chosen = plan(QUERY, near, beside)
    assert names(chosen)[0] == "near"
    assert chosen.wake is None, "the near one is warm from then on"
    better = replace(beside, net_s=NEAR.net_s / 2)
    woken = plan(QUERY, near, better).wake
    assert woken is not None
    assert woken.endpoint.name == "far"


def test_while_one_is_loaded_requests_wake_nobody_who_would_come_after_it():
    first = replace(NEAR, state=ModelState.LOADING, load_s=5.0, warm_at_s=QUERY.now_s + 5.0)
    asked = replace(NEAR, state=ModelState.COLD, load_s=5.0, woken=True)
    other = replace(
        NEAR,
        endpoint=replace(NEAR.endpoint, name="other"),
        state=ModelState.COLD,
        load_s=5.0,
        net_s=NEAR.net_s + 0.001,
    )
    for under_way in (first, asked):
        assert plan(QUERY, under_way, other, FAR).wake is None
    better = replace(other, net_s=NEAR.net_s / 2)
    woken = plan(QUERY, first, better, FAR).wake
    assert woken is not None
    assert woken.endpoint.name == "other"


def test_equals_share_the_first_place():
    twins = [at(f"t{i}") for i in range(3)]
    rng = Random(7)
    firsts = {names(decide(POLICY, QUERY, FrozenFleet(tuple(twins)), rng))[0] for _ in range(60)}
    assert firsts == {"t0", "t1", "t2"}


def test_a_permit_is_made_by_the_law_only():
    with pytest.raises(TypeError, match=r"router\.law"):
        Permit("r1", NEAR.endpoint, seal=object())


CANDIDATES = st.builds(
    FrozenCandidate,
    endpoint=st.builds(
        Endpoint,
        name=st.text("abcdef", min_size=1, max_size=6),
        url=st.just("http://127.0.0.1:1"),
        region=st.sampled_from(["eu-west", "eu-east", "us-east", "ap-south"]),
    ),
    state=st.sampled_from(ModelState),
    slots=st.integers(1, 8),
    in_flight=st.integers(0, 40),
    unseen=st.integers(0, 10),
    drift=st.floats(0, 10),
    net_s=st.floats(0, 0.4),
    service_s=st.floats(0.0001, 2),
    load_s=st.floats(0, 10),
    warm_at_s=st.floats(90, 120),
    full_until_s=st.sampled_from([0.0, 100.5]),
    out=st.sampled_from([None, None, "2 probes missed"]),
)
FLEETS = st.lists(CANDIDATES, max_size=8, unique_by=lambda c: c.endpoint.name).map(tuple)
REQUIRED = st.none() | st.frozensets(st.sampled_from(["eu-west", "eu-east", "us-east"]))


@given(FLEETS, REQUIRED, st.integers())
def test_a_requirement_is_never_broken_and_everybody_is_accounted_for(held, required, seed):
    query = structs.replace(QUERY, required_regions=required)
    made = decide(POLICY, query, FrozenFleet(held), Random(seed))
    assert all(permit(query, s.candidate) == s.permit for s in made.order)
    assert required is None or all(s.permit.endpoint.region in required for s in made.order)
    assert all(s.permit.endpoint == s.candidate.endpoint for s in made.order)
    told = names(made) + [r.candidate.endpoint.name for r in made.rejected]
    assert sorted(told) == sorted(c.endpoint.name for c in held)
    assert all(r.reason for r in made.rejected)


@given(FLEETS, st.integers())
def test_a_forbidden_endpoint_changes_nothing(held, seed):
    query = structs.replace(QUERY, required_regions=frozenset({"eu-west"}))
    forbidden = at("forbidden", "us-east", net_s=0.0)
    with_it = decide(POLICY, query, FrozenFleet((*held, forbidden)), Random(seed))
    without = decide(POLICY, query, FrozenFleet(held), Random(seed))
    assert names(with_it) == names(without)


@given(CANDIDATES, st.floats(0, 1))
def test_what_is_slower_never_ranks_better(candidate, more):
    slower = replace(candidate, net_s=candidate.net_s + more, service_s=candidate.service_s + more)
    before = sum(score(QUERY, candidate) for score in POLICY.rank)
    after = sum(score(QUERY, slower) for score in POLICY.rank)
    assert after >= before


@given(CANDIDATES)
def test_nobody_there_costs_nothing_and_congestion_is_never_less_than_the_wait(candidate):
    idle = replace(candidate, in_flight=0, drift=0.0)
    assert congestion_s(idle) == wait_s(QUERY, idle) == 0.0
    assert congestion_s(candidate) >= wait_s(QUERY, candidate) - 1e-12


@given(CANDIDATES)
def test_each_further_request_costs_at_least_as_much_as_the_one_before(candidate):
    costs = [congestion_s(replace(candidate, in_flight=count)) for count in range(50)]
    steps = [after - before for before, after in pairwise(costs)]
    assert steps[0] >= 0
    assert all(after >= before - 1e-9 * costs[-1] for before, after in pairwise(steps))


@given(CANDIDATES)
def test_what_is_expected_beside_those_there_never_makes_it_look_less_busy(candidate):
    more = replace(candidate, drift=candidate.drift + 1)
    assert congestion_s(more) >= congestion_s(candidate)


@given(CANDIDATES)
def test_the_prediction_is_the_sum_of_its_terms(candidate):
    terms = seconds(QUERY, candidate)
    assert terms.total == terms.net + terms.wait + terms.service + terms.cold
