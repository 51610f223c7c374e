"""Waits after failures and crashes."""

from isochrone.edge_agent.runtime.engines.back_off import LONGEST_BACK_OFF_S, BackOff


def test_waits_double_with_every_failure_and_end_with_a_success():
    back_off = BackOff()
    now_s, waits = 0.0, []
    for _ in range(8):
        back_off.failed(now_s)
        assert not back_off.sound
        waits.append(back_off.left_s(now_s))
        now_s += waits[-1]
        assert back_off.left_s(now_s) == 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    back_off.succeeded(now_s)
    assert back_off.sound
    back_off.failed(now_s)
    assert back_off.left_s(now_s) == 1


def test_crash_after_crash_waits_longer_although_every_load_succeeds():
    back_off = BackOff()
    now_s, waits = 0.0, []
    for _ in range(9):
        back_off.succeeded(now_s)
        back_off.crashed(now_s)
        waits.append(back_off.left_s(now_s))
        now_s += waits[-1]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert back_off.sound, "it can be loaded"


def test_a_minute_without_a_crash_is_forgiven():
    back_off = BackOff()
    for _ in range(5):
        back_off.succeeded(0.0)
        back_off.crashed(0.0)
    back_off.succeeded(100.0)
    back_off.crashed(101.0 + LONGEST_BACK_OFF_S)
    assert back_off.left_s(101.0 + LONGEST_BACK_OFF_S) == 0
