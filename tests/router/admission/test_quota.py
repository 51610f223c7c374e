"""Laws of quotas: at most the burst and the rate in every window, and the told wait is exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.admission.quota import Quotas
from isochrone.router.law.region_file import Rate

RATES = st.builds(Rate, requests_per_s=st.floats(0.01, 1000), burst=st.integers(1, 50))
PAUSES = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.1), st.floats(0, 30)), max_size=120)


@given(RATES, PAUSES, st.floats(0, 1e6))
def test_no_window_holds_more_than_the_burst_and_the_rate(rate, pauses, now_s):
    quotas, admitted = Quotas({"a": rate}), []
    for pause_s in pauses:
        now_s += pause_s
        if quotas.take("a", now_s) == 0.0:
            admitted.append(now_s)
    for first, start_s in enumerate(admitted):
        for last in range(first, len(admitted)):
            window_s = admitted[last] - start_s
            most = rate.burst + rate.requests_per_s * (window_s + 1e-7)
            assert last - first + 1 <= most * (1 + 1e-6)


@given(RATES, st.floats(0, 1e6), st.integers(0, 5))
def test_the_told_wait_is_exact(rate, now_s, more):
    quotas = Quotas({"a": rate})
    for _ in range(rate.burst):
        assert quotas.take("a", now_s) == 0.0
    wait_s = quotas.take("a", now_s)
    assert wait_s == pytest.approx(1 / rate.requests_per_s, rel=1e-6, abs=1e-8)
    for _ in range(more):  # asking takes nothing
        assert quotas.take("a", now_s) == wait_s
    hair_s = 1e-3 * wait_s
    assert quotas.take("a", now_s + wait_s - hair_s) == pytest.approx(hair_s, rel=1e-3, abs=1e-8)
    assert quotas.take("a", now_s + wait_s) == 0.0
    assert quotas.take("a", now_s + wait_s) > 0.0


def test_a_steady_caller_at_the_rate_is_always_let_in():
    quotas = Quotas({"a": Rate(requests_per_s=8, burst=1)})
    assert not any(quotas.take("a", number / 8) for number in range(1000))


def test_after_a_pause_there_is_one_burst_and_no_more():
    quotas = Quotas({"a": Rate(requests_per_s=10, burst=3)})
    for now_s in (0.0, 100.0):
        assert [quotas.take("a", now_s) > 0 for _ in range(5)] == [False] * 3 + [True] * 2


def test_each_tenant_has_its_own_and_who_has_none_is_free():
    quotas = Quotas({"a": Rate(requests_per_s=1, burst=1), "b": Rate(requests_per_s=1, burst=1)})
    assert quotas.take("a", 0.0) == quotas.take("b", 0.0) == 0.0
    assert quotas.take("a", 0.0) == pytest.approx(1.0)
    assert not any(quotas.take("anybody", 0.0) for _ in range(1000))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_hold_their_parts(workers):
    rate = Rate(requests_per_s=20, burst=10)
    parts = [Quotas({"a": rate}, share=1 / workers) for _ in range(workers)]
    admitted = sum(part.take("a", tick / 100) == 0.0 for tick in range(1001) for part in parts)
    assert admitted == pytest.approx(10 + 20 * 10, abs=workers)


def test_even_a_small_part_lets_one_in():
    part = Quotas({"a": Rate(requests_per_s=1, burst=1)}, share=0.125)
    assert part.take("a", 0.0) == 0.0
    assert part.take("a", 0.0) == pytest.approx(8.0)
