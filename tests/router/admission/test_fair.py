"""Laws of the fair share: by weight within one largest cost, nothing saved up, costs put right."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.router.admission.waiting import join, line_of

COSTS = st.lists(st.floats(0.001, 10), min_size=1, max_size=12)
WEIGHTS = st.floats(0.1, 10)


class Backlogged:
    """Two tenants, `a` and `b`, who always have work waiting once they have begun."""

    def __init__(self, weights, costs, guesses=None):
        self.weights = dict(zip("ab", weights, strict=True))
        self.costs = dict(zip("ab", costs, strict=True))
        self.guesses = guesses or costs
        self.guesses = dict(zip("ab", self.guesses, strict=True))
        self.line = line_of(age_s=1e9, **self.weights)
        self.asked = {"a": count(), "b": count()}
        self.served = {"a": 0.0, "b": 0.0}
        self.real = {}

    def ask(self, tenant):
        number = next(self.asked[tenant])
        guesses, costs = self.guesses[tenant], self.costs[tenant]
        ticket = join(self.line, tenant, cost_s=guesses[number % len(guesses)])
        self.real[ticket] = costs[number % len(costs)]

    def begin(self, tenant):
        self.ask(tenant)
        self.ask(tenant)

    def serve(self):
        ticket = self.line.start(0.0)
        assert ticket
        self.ask(ticket.tenant)
        real_s = self.real.pop(ticket)
        self.line.correct(ticket, real_s)
        self.served[ticket.tenant] += real_s / self.weights[ticket.tenant]
        return self.served["a"] - self.served["b"]

    @property
    def bound(self):
        """Goyal, Vin and Cheng 1996, theorem 1: one largest cost of each, over its weight."""
        return sum(max(self.costs[t]) / self.weights[t] for t in "ab")


@given(st.tuples(WEIGHTS, WEIGHTS), st.tuples(COSTS, COSTS), st.integers(0, 30))
def test_in_every_interval_two_who_both_wait_get_their_share_within_one_largest_cost(
    weights, costs, lead
):
    pair = Backlogged(weights, costs)
    pair.begin("a")
    for _ in range(lead):  # while b is idle; it gets no credit for that
        pair.serve()
    pair.begin("b")
    apart = [pair.serve() for _ in range(200)]
    # the interval may begin between a's charge and its next ticket: hence the difference of any two
    assert max(apart) - min(apart) <= pair.bound * (1 + 1e-9)


@given(st.tuples(WEIGHTS, WEIGHTS), st.tuples(COSTS, COSTS), st.tuples(COSTS, COSTS))
def test_with_wrong_guesses_the_shares_are_those_of_the_real_costs(weights, costs, guesses):
    pair = Backlogged(weights, costs, guesses)
    pair.begin("a")
    pair.begin("b")
    apart = [pair.serve() for _ in range(200)]
    assert max(apart) - min(apart) <= pair.bound * (1 + 1e-9)


@pytest.mark.parametrize(
    ("weights", "share"),
    [((1, 1), 0.5), ((3, 1), 0.75), ((1, 9), 0.1), ((2.5, 1.5), 0.625)],
)
def test_the_share_is_that_of_the_weights(weights, share):
    pair = Backlogged(weights, ([0.02, 0.5], [0.1]))
    pair.begin("a")
    pair.begin("b")
    for _ in range(4000):
        pair.serve()
    had = {tenant: pair.served[tenant] * pair.weights[tenant] for tenant in "ab"}
    assert had["a"] / sum(had.values()) == pytest.approx(share, rel=0.02)


def test_a_flood_of_one_tenant_costs_another_one_turn():
    line = line_of()
    for _ in range(500):
        join(line, "flood")
    assert (line.start(0.0), line.start(0.0)) != (None, None)
    mine = join(line, "quiet")
    first, second = line.start(0.0), line.start(0.0)
    assert first
    assert first.tenant == "flood"
    assert second is mine


def test_who_was_idle_for_long_gets_no_more_than_its_turn():
    line = line_of()
    for _ in range(300):
        join(line, "busy")
    early = join(line, "idle")
    for _ in range(100):
        line.start(0.0)
    assert early
    assert early.outcome
    for _ in range(50):
        join(line, "idle")
    after = [ticket.tenant for _ in range(20) if (ticket := line.start(0.0))]
    assert after.count("idle") == 10


def test_what_was_charged_before_an_idle_time_is_not_given_back_after_it():
    """Its charge was forgotten when it came back, so a refund would be a gift."""
    line = line_of()
    for _ in range(300):
        join(line, "busy")
    dear = join(line, "idle", cost_s=50.0)
    assert dear
    for _ in range(150):
        line.start(0.0)
    for _ in range(50):
        join(line, "idle")
    line.correct(dear, 1.0)
    after = [ticket.tenant for _ in range(20) if (ticket := line.start(0.0))]
    assert after.count("idle") == 10


def test_a_newcomer_has_no_part_in_what_is_given_back_to_another():
    line = line_of()
    dear = join(line, "dear", cost_s=10.0)
    for _ in range(20):
        join(line, "dear", cost_s=10.0)
        join(line, "other")
    for _ in range(11):
        line.start(0.0)
    assert dear
    line.correct(dear, 1.0)
    for _ in range(20):
        join(line, "new")
    after = [ticket.tenant for _ in range(7) if (ticket := line.start(0.0))]
    assert after == ["dear", "new", "other", "new", "dear", "other", "new"]


@pytest.mark.parametrize(("others", "turns"), [(0, (6, 7)), (1000, (9, 10))])
def test_a_cost_that_turns_out_higher_is_paid_for_even_by_who_is_forgotten(others, turns):
    line = line_of(5000)
    cheap = join(line, "liar", cost_s=0.001)
    for _ in range(100):
        join(line, "honest")
    for number in range(others):
        join(line, f"once{number}")
    for _ in range(others + 5):
        line.start(0.0)
    assert cheap
    assert ("liar" in line._bands[5]._flows) == (not others)
    assert cheap.outcome
    line.correct(cheap, 10.0)
    for _ in range(50):
        join(line, "liar")
    after = [ticket.tenant for _ in range(30) if (ticket := line.start(0.0))]
    assert after.index("liar") in turns


def test_a_correction_of_what_never_started_changes_nothing():
    line = line_of()
    gone, first, other = join(line, "a"), join(line, "a"), join(line, "b")
    assert gone
    line.leave(gone)
    line.correct(gone, 1000.0)
    assert [line.start(0.0), line.start(0.0)] == [first, other]


@pytest.mark.parametrize("cost_s", [0.0, -5.0, float("nan"), float("inf")])
def test_a_cost_that_cannot_be_does_not_break_the_shares(cost_s):
    line = line_of()
    for _ in range(10):
        join(line, "odd", cost_s=cost_s)
        join(line, "even")
    started = [ticket.tenant for _ in range(20) if (ticket := line.start(0.0))]
    assert sorted(started) == ["even"] * 10 + ["odd"] * 10


def test_tenants_who_came_once_are_forgotten_even_if_they_cost_more_than_they_said():
    line = line_of(10_000)
    started = []
    join(line, "stays", priority=9)
    join(line, "stays")
    for number in range(5000):
        join(line, f"once{number}", cost_s=0.5 + number % 7)
        started.append(line.start(0.0))
        join(line, "stays")
    assert len(line._bands[5]._flows) < 300
    for ticket in started:
        assert ticket
        line.correct(ticket, 100.0)
    assert len(line._bands[5]._flows) < 300
    while line.start(0.0):
        pass
    assert not line._bands
