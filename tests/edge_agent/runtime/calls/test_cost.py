"""The fit of a run's cost, and what follows from it for batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.calls import batch
from isochrone.edge_agent.runtime.calls.cost import Cost

SECONDS = st.floats(1e-6, 1.0)


def fitted(row_s, base_s, rows=(1, 2, 4, 8), times=5):
    cost = Cost()
    for _ in range(times):
        for count in rows:
            cost.measured(count, row_s * count + base_s)
    return cost


@given(SECONDS, SECONDS, st.integers(2, 64))
def test_a_straight_line_is_found(row_s, base_s, most_rows):
    cost = fitted(row_s, base_s, (1, most_rows))
    for count in (1, most_rows // 2, most_rows):
        assert cost.predict_s(count) == pytest.approx(row_s * count + base_s, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 64), SECONDS), min_size=1, max_size=40))
def test_neither_part_is_ever_negative(runs):
    cost = Cost()
    for rows, took_s in runs:
        cost.measured(rows, took_s)
        assert cost.row_s >= 0
        assert cost.base_s >= 0


def test_a_machine_that_becomes_slower_is_followed():
    cost = fitted(1e-3, 2e-3)
    for count in (1, 2, 4, 8) * 60:
        cost.measured(count, 3e-3 * count + 6e-3)
    assert cost.predict_s(5) == pytest.approx(21e-3, rel=0.05)


def test_one_run_that_was_kept_waiting_changes_little():
    cost = fitted(1e-3, 2e-3)
    cost.measured(1, 10.0)
    assert cost.predict_s(1) < 6e-3


def test_with_one_number_of_rows_the_whole_is_known_and_a_batch_is_worth_a_trial():
    cost = fitted(1e-3, 2e-3, rows=(1,))
    assert cost.predict_s(1) == pytest.approx(3e-3)
    assert batch.pays(cost, 1, 1, 1, behind=0)


def test_a_cost_that_is_all_base_takes_in_as_many_as_there_are():
    assert batch.pays(fitted(0.0, 1e-3), 500, 500, 1, behind=0)


@pytest.mark.parametrize(
    ("row_us", "base_us", "members", "behind", "pays"),
    [
        pytest.param(1.4, 7.6, 5, 0, True, id="an MLP shares freely"),
        pytest.param(1.4, 7.6, 6, 0, False, id="but not without end"),
        pytest.param(1.4, 7.6, 19, 20, True, id="when many wait, many share"),
        pytest.param(1.4, 7.6, 20, 99, False, id="but no batch takes longer than four runs"),
        pytest.param(42.0, 7.0, 1, 4, False, id="a CNN hardly shares"),
        pytest.param(42.0, 7.0, 1, 6, True, id="but in a crowd two do"),
    ],
)
def test_the_sum_of_delays_decides(row_us, base_us, members, behind, pays):
    cost = fitted(row_us * 1e-6, base_us * 1e-6)
    assert batch.pays(cost, members, members, 1, behind) is pays


def test_a_batch_that_leaves_the_cache_is_not_made_again_and_later_tried_again():
    cost = Cost()
    took_ms = {1: 10.5, 2: 16.3, 3: 22.4, 4: 29.1, 5: 44.0}
    for count in (1, 2, 3, 4, 5) * 5:
        cost.measured(count, took_ms[count] * 1e-3)
    pays = [batch.pays(cost, count, count, 1, behind=50) for count in (1, 2, 3, 4)]
    assert pays == [True, True, True, False]
    for count in (1, 4) * 150:
        cost.measured(count, took_ms[count] * 1e-3)
    assert cost.predict_s(4) == pytest.approx(29.1e-3, rel=0.01)
    assert batch.pays(cost, 4, 4, 1, behind=50)


@given(SECONDS, SECONDS, st.integers(1, 20), SECONDS)
def test_who_pauses_has_less_delay_in_sum_than_who_does_not(row_s, base_s, members, gap_s):
    cost = Cost()
    cost.row_s, cost.base_s = row_s, base_s
    if not batch.pause_s(cost, members, 1, gap_s):
        return
    run_s = members * row_s + base_s
    at_once_s = members * run_s + (run_s - gap_s) + row_s + base_s
    pausing_s = members * (gap_s + run_s + row_s) + run_s + row_s
    assert gap_s < run_s, "the next comes while the first run"
    assert pausing_s <= at_once_s + 1e-9


def test_a_pause_ends_when_it_has_cost_what_it_could_save():
    cost = fitted(0.0, 9e-3)
    assert batch.pause_s(cost, 2, 1, gap_s=1e-3) == pytest.approx(3e-3)
    assert batch.pause_s(cost, 2, 1, gap_s=4e-3) == 0.0
