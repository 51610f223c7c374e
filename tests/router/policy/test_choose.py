"""The hot path and the specification: the ledger's kept ranks against the plain composition."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from isochrone.router.fleet.candidate import Candidate
from isochrone.router.fleet.index import NEAR_COUNT
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.fleet.site import Lease
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import Member, Membership
from isochrone.router.policy.choose import choose
from isochrone.router.policy.pick import hair_s
from isochrone.router.policy.policy import Plan, Policy, decide
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import RANK
from isochrone.router.wire.report import CallReport, EndpointReport, HeldModel, ModelState
from isochrone.router.wire.report import Lease as Term

POLICY = Policy()
PRICES_S = {"eu-west": 0.03, "us-east": 0.0, "ap-south": 0.007}


def price_s(query: Query, candidate: Candidate) -> float:
    return PRICES_S[candidate.endpoint.region] * (1 + query.body_bytes * 1e-6)


PRICED = Policy(rank=(*RANK, price_s))
REGIONS = ("eu-west", "us-east", "ap-south")
STATES = st.sampled_from(
    [ModelState.WARM] * 5 + [ModelState.COLD, ModelState.LOADING, ModelState.DRAINING]
)


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint(f"e{n}", f"http://127.0.0.1:{n + 1}", REGIONS[n % 3]) for n in range(count)]


def ledger_of(members: list[Endpoint], state: ModelState = ModelState.WARM) -> Ledger:
    held = HeldModel("digits", "1", state, load_s=0.5)
    membership = Membership([Member(e, 2, (held,)) for e in members], REGIONS, Term())
    ledger = Ledger({"eu-west": 0.015, "us-east": 0.09, "ap-south": 0.2}, "r1")
    ledger.follow(membership, 0.0)
    return ledger


def told(endpoint: Endpoint, sequence: int, state: ModelState, in_flight: int, slots: int):
    return EndpointReport(
        wire_version=1,
        name=endpoint.name,
        region=endpoint.region,
        instance="i1",
        sequence=sequence,
        in_flight=in_flight,
        slots=slots,
        ready=True,
        draining=False,
        models_generation=1,
        models=(HeldModel("digits", "1", state, load_s=0.5),),
        seen={f"r{n}.x": 1 for n in range(sequence % 9)},
    )


class Life:
    """A fleet to which things happen."""

    def __init__(self, count: int) -> None:
        self.members = endpoints(count)
        self.ledger = ledger_of(self.members)
        self.open: list[Lease] = []
        self.now_s = 0.0
        self.sequence = 1

    def step(self, which: int, kind: str, number: int, state: ModelState, apart_s: float) -> None:
        self.now_s += apart_s
        self.sequence += 1
        endpoint = self.members[which % len(self.members)]
        site = self.ledger.site(endpoint.name)
        assert site is not None
        if kind == "probe":
            report = told(endpoint, self.sequence, state, number % 7, 1 + number % 4)
            self.ledger.probe_answered(site, report, 0.001 * (1 + number), self.now_s)
        elif kind == "miss":
            self.ledger.probe_missed(site, self.now_s)
        elif kind == "send":
            lease = self.ledger.sent(endpoint, "digits", "1", self.now_s, 1000 * number)
            assert lease is not None
            self.open.append(lease)
        elif kind == "sweep":
            self.ledger.sweep(self.now_s)
        elif self.open:
            self.end(self.open.pop(number % len(self.open)), kind, number)

    def end(self, lease: Lease, kind: str, number: int) -> None:
        if kind == "answer":
            report = CallReport(
                instance="i1",
                sequence=self.sequence,
                in_flight=number % 5,
                slots=2,
                latency_s=0.02,
                wait_s=0.001 * (number % 4),
                infer_s=0.01 * (1 + number % 6),
                models_generation=1,
                seq_seen=lease.sequence,
            )
            self.ledger.answered(lease, report, self.now_s)
            self.ledger.close(lease, Outcome.ANSWERED, self.now_s)
        else:
            self.ledger.close(lease, Outcome(kind), self.now_s)


KINDS = ["probe"] * 5 + ["send"] * 4 + ["answer"] * 3
KINDS += ["miss", "sweep", "busy", "failed", "crashed", "refused", "late", "cancelled", "unable"]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from(KINDS), st.integers(0, 30), STATES, st.floats(0, 2)
    ),
    max_size=80,
)


def assert_same(plan: Plan, book: Plan) -> None:
    """The first of `plan` is one that `book` could have put first, by the same numbers."""
    assert bool(plan.order) is bool(book.order)
    if not plan.order:
        assert {c.endpoint.name for c in plan.busy} == {c.endpoint.name for c in book.busy}
        return
    (first,) = plan.order
    ranks = {s.permit.endpoint.name: s for s in book.order}
    best = min(s.rank for s in book.order)
    same = ranks[first.permit.endpoint.name]
    service_s = min(book.order, key=lambda s: s.rank).seconds.service
    assert same.rank <= (best + hair_s(best, service_s)) * (1 + 1e-9) + 1e-12
    assert (first.seconds, first.rank, first.load) == (same.seconds, same.rank, same.load)


@settings(max_examples=150)
@given(
    count=st.integers(1, 10),
    steps=STEPS,
    repeatable=st.booleans(),
    required=st.none() | st.frozensets(st.sampled_from(REGIONS), min_size=1),
    length=st.integers(0, 10**6),
    preferred=st.dictionaries(st.sampled_from(REGIONS), st.floats(0, 0.2)),
    seed=st.integers(0, 9),
    policy=st.sampled_from([POLICY, PRICED]),
)
def test_the_kept_ranks_give_the_same_answer_as_the_composition(
    count, steps, repeatable, required, length, preferred, seed, policy
):
    life = Life(count)
    for step in steps:
        life.step(*step)
    query = Query(
        "r",
        "digits",
        now_s=life.now_s,
        deadline_s=life.now_s + 30,
        required_regions=required,
        body_bytes=length,
        preferred=preferred,
        repeatable=repeatable,
    )
    assert policy.kept
    plan = choose(policy, query, life.ledger, Random(seed))
    book = decide(policy, query, life.ledger, Random(seed))
    assert_same(plan, book)
    for scored in plan.order:
        assert required is None or scored.permit.endpoint.region in required
    told = len(plan.order) + len(plan.rejected) + plan.unexplained + plan.elsewhere
    assert told == count


def proven(count: int) -> Ledger:
    members = endpoints(count)
    ledger = ledger_of(members)
    for number, endpoint in enumerate(members):
        site = ledger.site(endpoint.name)
        assert site is not None
        report = told(endpoint, 1, ModelState.WARM, 0, 2)
        ledger.probe_answered(site, report, 0.001 * (1 + number), 1.0)
    return ledger


QUERY = Query("r", "digits", now_s=2.0, deadline_s=32.0)


def test_what_was_tried_is_not_tried_again():
    ledger = proven(5)
    tried: list[str] = []
    for _ in range(5):
        (scored,) = choose(POLICY, QUERY, ledger, Random(1), tried).order
        tried.append(scored.permit.endpoint.name)
    assert sorted(tried) == ["e0", "e1", "e2", "e3", "e4"]
    assert choose(POLICY, QUERY, ledger, Random(1), tried).order == []


def test_of_many_the_near_ones_and_some_others_are_looked_at():
    ledger = proven(500)
    ledger.sweep(1.5)
    (scored,) = choose(POLICY, QUERY, ledger, Random(1)).order
    assert int(scored.permit.endpoint.name[1:]) < NEAR_COUNT
    for number in range(NEAR_COUNT):
        for _ in range(3):
            lease = ledger.sent(endpoints(500)[number], "digits", "1", 1.8)
            assert lease is not None
            ledger.close(lease, Outcome.FAILED, 1.9)
    (scored,) = choose(POLICY, QUERY, ledger, Random(1)).order
    assert int(scored.permit.endpoint.name[1:]) >= NEAR_COUNT


def test_whoever_is_left_is_found_however_many_there_are():
    ledger = proven(300)
    for endpoint in endpoints(300)[:-1]:
        lease = ledger.sent(endpoint, "digits", "1", 1.8)
        assert lease is not None
        ledger.close(lease, Outcome.BUSY, 1.9)
    query = Query("r", "digits", now_s=1.901, deadline_s=31.0)
    (scored,) = choose(POLICY, query, ledger, Random(1)).order
    assert scored.permit.endpoint.name == "e299"


def test_the_last_lawful_endpoint_is_sent_trials_one_at_a_time():
    ledger = proven(1)
    for _ in range(3):
        lease = ledger.sent(endpoints(1)[0], "digits", "1", 1.8)
        assert lease is not None
        ledger.close(lease, Outcome.FAILED, 1.9)
    assert choose(POLICY, QUERY, ledger, Random(1)).order, "there is nobody else"
    assert ledger.sent(endpoints(1)[0], "digits", "1", 2.0) is not None
    plan = choose(POLICY, QUERY, ledger, Random(1))
    assert plan.order == []
    assert [candidate.trial for candidate in plan.busy] == [True]


def test_what_may_not_be_repeated_is_no_trial_while_another_can_serve():
    ledger = proven(2)
    site = ledger.site("e0")
    assert site is not None
    for _ in range(3):
        lease = ledger.sent(endpoints(2)[0], "digits", "1", 0.5)
        assert lease is not None
        ledger.close(lease, Outcome.FAILED, 0.5)
    site.holdings["digits", "1"].breaker.pass_test(1.9)
    once = replace(QUERY, repeatable=False)
    (scored,) = choose(POLICY, QUERY, ledger, Random(1)).order
    assert scored.permit.endpoint.name == "e0"
    (scored,) = choose(POLICY, once, ledger, Random(1)).order
    assert scored.permit.endpoint.name == "e1"
    assert decide(POLICY, once, ledger, Random(1)).order[0].permit.endpoint.name == "e1"
    (scored,) = choose(POLICY, once, ledger, Random(1), {"e1"}).order
    assert scored.permit.endpoint.name == "e0", "there is nobody else"


def test_a_ramping_endpoint_gets_one_request_while_others_can_serve():
    members = endpoints(2)
    ledger = proven(2)
    site = ledger.site("e0")
    assert site is not None
    for _ in range(2):
        ledger.probe_missed(site, 3.0)
    for sequence in (5, 6):
        ledger.probe_answered(site, told(members[0], sequence, ModelState.WARM, 0, 2), 0.001, 40.0)
    query = Query("r", "digits", now_s=41.0, deadline_s=71.0)
    (scored,) = choose(POLICY, query, ledger, Random(1)).order
    assert scored.permit.endpoint.name == "e0"
    ledger.sent(members[0], "digits", "1", 41.0)
    (scored,) = choose(POLICY, query, ledger, Random(1)).order
    assert scored.permit.endpoint.name == "e1"


def test_the_law_binds_the_shortlist():
    ledger = proven(9)
    query = Query("r", "digits", 2.0, 32.0, required_regions=frozenset({"atlantis"}))
    plan = choose(POLICY, query, ledger, Random(1))
    assert (list(plan.order), plan.unexplained) == ([], 9)


@pytest.mark.parametrize("woken", [False, True], ids=["not yet", "already"])
def test_the_best_cold_endpoint_is_woken_once(woken):
    members = endpoints(2)
    ledger = proven(2)
    site = ledger.site("e0")
    assert site is not None
    ledger.probe_answered(site, told(members[0], 9, ModelState.COLD, 0, 2), 0.001, 1.5)
    if woken:
        ledger.woken(members[0], "digits", "1", 1.6)
    plan = choose(POLICY, QUERY, ledger, Random(1))
    assert plan.why == "nearest_cold"
    assert (plan.wake is None) is woken


def test_while_one_is_loaded_no_request_wakes_the_next():
    members = endpoints(3)
    ledger = proven(3)
    for number in (0, 1):
        site = ledger.site(f"e{number}")
        assert site is not None
        ledger.probe_answered(site, told(members[number], 9, ModelState.COLD, 0, 2), 0.001, 1.5)
    wake = choose(POLICY, QUERY, ledger, Random(1)).wake
    assert wake is not None
    ledger.woken(wake.endpoint, "digits", "1", 1.6)
    assert choose(POLICY, QUERY, ledger, Random(1)).wake is None


def test_a_policy_of_ones_own_is_obeyed_as_it_stands():
    def not_today(*_: object) -> str:
        return "not today"

    ledger = proven(3)
    nobody = Policy(filters=(*POLICY.filters, not_today))
    plan = choose(nobody, QUERY, ledger, Random(1))
    assert plan.order == []
    assert [r.reason for r in plan.rejected] == ["not today"] * 3
