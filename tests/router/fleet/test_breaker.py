"""The breaker: exact counts, one trial at a time, and only trials make it wait longer."""

from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.fleet.breaker import FIRST_S, LONGEST_S, Breaker, Tolerance


def calls(breaker: Breaker, marks: str, *, at_s: float = 0.0, apart_s: float = 0.1) -> Breaker:
    """`x` fails, `.` is answered."""
    for number, mark in enumerate(marks):
        now_s = at_s + number * apart_s
        if mark == "x":
            breaker.fail(now_s, "500", trial=False)
        else:
            breaker.succeed(now_s)
    return breaker


def test_three_in_a_row_open_it():
    assert not calls(Breaker(Tolerance()), "..xx").open
    assert calls(Breaker(Tolerance()), "..xxx").why == "3 calls failed in a row (500)"


def test_half_of_the_last_ten_seconds_opens_it():
    assert calls(Breaker(Tolerance()), "x.x.xx").why == "3 of 5 calls failed (500)"
    assert not calls(Breaker(Tolerance()), "..x" * 30).open
    assert not calls(Breaker(Tolerance()), "x.xx", apart_s=4.0).open, "the first is forgotten"


def test_what_was_sent_before_it_opened_neither_closes_it_nor_makes_it_wait_longer():
    breaker = calls(Breaker(Tolerance()), "xxx", apart_s=0.0)
    calls(breaker, "x.x.xxxx", at_s=0.5)
    assert breaker.open
    assert breaker.until_s == FIRST_S


def test_each_failed_trial_doubles_the_pause_up_to_a_bound():
    breaker = calls(Breaker(Tolerance()), "xxx", apart_s=0.0)
    pauses = []
    for _ in range(7):
        now_s = breaker.until_s
        breaker.fail(now_s, "500", trial=True)
        pauses.append(breaker.until_s - now_s)
    assert pauses == [2, 4, 8, 16, LONGEST_S, LONGEST_S, LONGEST_S]
    breaker.close(200.0)
    assert not breaker.open


def test_who_fails_again_soon_after_is_held_back_for_longer():
    breaker = calls(Breaker(Tolerance()), "xxx", apart_s=0.0)
    breaker.pass_test(1.0)
    assert breaker.open, "a test is no request"
    assert breaker.until_s == 1.0, "but one request may be tried now"
    breaker.close(1.0)
    calls(breaker, "xxx", at_s=2.0, apart_s=0.0)
    assert breaker.until_s == 4.0
    breaker.close(4.0)
    calls(breaker, "xxx", at_s=60.0, apart_s=0.0)
    assert breaker.until_s == 61.0


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=60))
def test_it_opens_exactly_when_the_evidence_says_so(steps):
    breaker = Breaker(Tolerance(in_a_row=4, least_count=6, share=0.5))
    now_s, history, row = 0.0, [], 0
    for apart_s, good in steps:
        now_s += apart_s
        history.append((int(now_s), good))
        row = 0 if good else row + 1
        if good:
            breaker.succeed(now_s)
        else:
            breaker.fail(now_s, "500", trial=False)
        recent = [g for second, g in history if second > int(now_s) - 10]
        failed = recent.count(False)
        expected = not good and (row >= 4 or (len(recent) >= 6 and failed >= 0.5 * len(recent)))
        assert breaker.open is expected
        if expected:
            return
