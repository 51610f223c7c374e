"""How long unused models stay, by the idle times that they had."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.residence.keepalive import BIN_COUNT, IdleTimes, KeepAlive, Window

FIXED_S = 600.0


def _times(*idle_s, bin_s=60.0):
    times = IdleTimes(bin_s)
    for one in idle_s:
        times.note(one)
    return times


@pytest.mark.parametrize(
    ("idle_s", "window"),
    [
        pytest.param([], Window(0.0, FIXED_S), id="nothing is known"),
        pytest.param([1800.0] * 9, Window(0.0, FIXED_S), id="too few"),
        pytest.param([5.0] * 50, Window(0.0, 66.0), id="always within a minute"),
        pytest.param([1805.0] * 50, Window(1618.0, 2046.0), id="every half an hour"),
        pytest.param(
            [1805.0] * 40 + [5.0] * 10, Window(0.0, 2046.0), id="now and then at once: stays"
        ),
        pytest.param(
            [60.0 * n for n in range(BIN_COUNT)], Window(0.0, FIXED_S), id="any time: a flat one"
        ),
        pytest.param(
            [1805.0] * 10 + [20000.0] * 6, Window(0.0, FIXED_S), id="too many beyond four hours"
        ),
    ],
)
def test_windows(idle_s, window):
    found = _times(*idle_s).window(FIXED_S, load_s=2.0)
    assert found.from_s == pytest.approx(window.from_s)
    assert found.until_s == pytest.approx(window.until_s)


def test_a_gap_shorter_than_two_loads_is_not_worth_leaving():
    assert _times(*[125.0] * 50).window(FIXED_S, load_s=60.0).from_s == 0.0


@given(st.lists(st.floats(0, 1e5), max_size=80), st.floats(0, 100))
def test_a_window_is_never_empty_and_ends_before_its_last_bin_plus_a_margin(idle_s, load_s):
    window = _times(*idle_s).window(FIXED_S, load_s)
    assert 0.0 <= window.from_s < window.until_s <= max(FIXED_S, BIN_COUNT * 60.0 * 1.1 + 1)


def _called_every(keep_alive, period_s, count, now_s=0.0):
    for _ in range(count):
        keep_alive.began(now_s)
        keep_alive.ended(now_s)
        now_s += period_s
    return now_s - period_s


def test_a_model_is_kept_for_the_fixed_time_after_its_last_call():
    keep_alive = KeepAlive(FIXED_S, IdleTimes(), 0.0)
    assert keep_alive.wants(599.0, 1.0)
    assert not keep_alive.wants(600.0, 1.0)
    last_s = _called_every(keep_alive, 100.0, 3)
    assert keep_alive.wants(last_s + 599.0, 1.0)
    assert not keep_alive.foresees(last_s + 1.0, 1.0)


def test_a_model_called_every_half_an_hour_sleeps_and_is_awake_in_time():
    keep_alive = KeepAlive(FIXED_S, IdleTimes(), 0.0)
    last_s = _called_every(keep_alive, 1800.0, 30)
    wanted = [s for s in range(0, 3000, 10) if keep_alive.foresees(last_s + s, 5.0)]
    assert wanted[0] < 1800 - 5
    assert wanted[0] > 1500
    assert 1800 < wanted[-1] < 2100


def test_a_model_without_a_fixed_time_stays():
    assert KeepAlive(inf, IdleTimes(), 0.0).wants(1e9, 1.0)


def test_what_was_loaded_by_wish_stays_although_no_call_is_due():
    keep_alive = KeepAlive(FIXED_S, IdleTimes(), 0.0)
    last_s = _called_every(keep_alive, 1800.0, 30)
    assert not keep_alive.wants(last_s + 10.0, 1.0)
    keep_alive.loaded(last_s + 10.0, 1.0)
    assert keep_alive.wants(last_s + 20.0, 1.0)
    assert not keep_alive.wants(last_s + 10.0 + FIXED_S, 1.0)
    keep_alive.began(last_s + 700.0)
    keep_alive.ended(last_s + 700.0)
    assert not keep_alive.wants(last_s + 710.0, 1.0)


def test_another_version_expects_the_calls_that_the_first_had():
    old = KeepAlive(FIXED_S, IdleTimes(), 0.0)
    last_s = _called_every(old, 1800.0, 30)
    new = KeepAlive(FIXED_S, IdleTimes(), last_s)
    new.go_on_from(old)
    assert not new.wants(last_s + 300.0, 1.0)
    assert new.foresees(last_s + 1750.0, 1.0)


def test_a_version_that_comes_back_stays_although_it_was_called_long_ago():
    kept, other = KeepAlive(FIXED_S, IdleTimes(), 0.0), KeepAlive(FIXED_S, IdleTimes(), 50.0)
    kept.began(1.0)
    kept.ended(2.0)
    later_s = 10 * FIXED_S
    kept.loaded(later_s, 1.0)
    kept.go_on_from(other)
    assert kept.wants(later_s + 1.0, 1.0)


def test_what_is_loaded_by_wish_soon_after_a_call_stays_the_fixed_time():
    keep_alive = KeepAlive(FIXED_S, IdleTimes(), 0.0)
    keep_alive.began(1.0)
    keep_alive.ended(2.0)
    keep_alive.loaded(FIXED_S, 1.0)
    assert keep_alive.wants(FIXED_S + 10.0, 1.0)
