"""Extra tries never exceed their budget, in any window."""

from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.dispatch.budget import WINDOW_S, HedgeBudget, RetryBudget

STEPS = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from(["request", "request", "request", "retry"])),
    max_size=200,
)


@given(STEPS, st.floats(0, 1), st.floats(0, 0.5), st.integers(0, 20), st.integers(1, 4))
def test_the_retries_of_any_window_are_within_the_budget_of_that_window(
    steps, share, floor_per_slot_s, slots, workers
):
    budget = RetryBudget(share, floor_per_slot_s, workers=workers)
    budget.resize(slots)
    floor = floor_per_slot_s / workers * slots * WINDOW_S
    now_s, requests, retries = 0.0, [], []
    for step_s, what in steps:
        now_s += step_s
        if what == "request":
            budget.requests.add(now_s)
            requests.append(now_s)
        elif budget.take(now_s):
            retries.append(now_s)
            made = sum(at_s > now_s - WINDOW_S for at_s in retries)
            asked = sum(at_s > now_s - WINDOW_S for at_s in requests)
            assert made <= share * asked + floor + 1e-9


@given(st.lists(st.booleans(), max_size=400), st.floats(0, 0.2), st.integers(1, 4))
def test_the_hedges_of_any_window_are_within_the_share_of_that_window_and_the_burst(
    asks, share, workers
):
    budget = HedgeBudget(share, burst=4.0, workers=workers)
    granted = []
    for asked in asks:
        budget.requested()
        granted.append(asked and budget.take())
    burst = max(1.0, 4.0 / workers)
    for begin in range(0, len(granted), 7):
        window = granted[begin:]
        assert sum(window) <= share * len(window) + burst + 1e-9
    assert sum(granted) <= share * len(granted) + 1e-9, "empty at first"


def test_a_fifth_of_the_requests_may_be_repeated():
    budget = RetryBudget(0.2, 0.0)
    for _ in range(100):
        budget.requests.add(50.0)
    assert sum(budget.take(50.0) for _ in range(100)) == 20


def test_the_floor_grows_with_the_fleet_and_is_shared_by_the_workers():
    budget = RetryBudget(0.2, 0.5, workers=2)
    assert not budget.take(0.0), "nobody is there yet"
    budget.resize(8)
    assert sum(budget.take(0.0) for _ in range(100)) == 20


def test_what_was_used_comes_back_when_the_window_has_passed():
    budget = RetryBudget(0.0, 0.1)
    budget.resize(1)
    assert budget.take(3.0)
    assert not budget.take(12.9)
    assert budget.take(14.0)


def test_without_a_share_nothing_is_hedged():
    budget = HedgeBudget(0.0)
    for _ in range(1000):
        budget.requested()
    assert not budget.take()
