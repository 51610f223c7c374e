"""The way from a router to an endpoint: round trip, spread, seconds per byte."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.geo.network import (
    LEAST_BYTE_S,
    MOST_BYTE_S,
    PRIOR_BYTE_S,
    SEEN_BYTES,
    Path,
    light_rtt_s,
    prior_rtt_s,
)

MEGABYTE = 1 << 20


def measured(rtts_s, *, prior_s=0.1, every_s=0.1, body_bytes=200):
    path = Path(prior_s)
    for number, rtt_s in enumerate(rtts_s):
        path.observe(rtt_s, body_bytes, number * every_s)
    return path


def test_unmeasured_it_is_the_prior_and_as_wrong():
    path = Path(0.1)
    assert (path.mean_s, path.least_s, path.measured) == (0.1, 0.1, False)
    assert 1.645 * path.sigma_s == pytest.approx(0.59 * 0.1, rel=0.01)
    assert path.byte_s == PRIOR_BYTE_S


def test_one_measurement_replaces_the_prior():
    path = measured([0.02])
    assert (path.mean_s, path.least_s, path.sigma_s) == (0.02, 0.02, 0.01)
    assert path.measured


def test_mean_and_spread_are_those_of_the_samples():
    rng = Random(1)
    path = measured(0.03 + rng.uniform(0, 0.01) for _ in range(2000))
    assert path.mean_s == pytest.approx(0.035, rel=0.05)
    assert path.sigma_s == pytest.approx(0.01 / math.sqrt(12), rel=0.4)
    assert path.least_s == pytest.approx(0.03, rel=0.01)


def test_one_stall_moves_the_mean_little_and_a_new_route_moves_it_soon():
    rtts_s = [0.03 + 0.001 * (number % 3) for number in range(300)]
    assert measured([*rtts_s, 5.0]).mean_s < 0.032
    moved = measured([*rtts_s, *[0.08] * 60], every_s=0.5)
    assert moved.mean_s == pytest.approx(0.08, rel=0.05)


@pytest.mark.parametrize("rtt_s", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_time_is_left_out(rtt_s):
    assert not measured([rtt_s]).measured


def test_faster_than_light_is_counted_and_believed_as_a_time():
    path = Path(prior_rtt_s(5000), light_rtt_s(5000))
    path.observe(0.004, 0, 1.0)
    path.observe(0.070, 0, 1.1)
    assert path.misplaced == 1
    assert path.least_s == 0.004


@pytest.mark.parametrize(
    ("true_byte_s", "body_bytes"),
    [
        pytest.param(8e-6, 4 * SEEN_BYTES, id="1 Mbit/s"),
        pytest.param(8e-7, MEGABYTE, id="10 Mbit/s"),
        pytest.param(8e-9, 8 * MEGABYTE, id="1 Gbit/s"),
    ],
)
def test_large_bodies_show_the_bandwidth_and_leave_the_round_trip_alone(true_byte_s, body_bytes):
    path, rng = Path(0.1), Random(2)
    for number in range(200):
        jitter_s = rng.expovariate(1000)
        path.observe(0.02 + jitter_s, 100, number)
        path.observe(0.02 + jitter_s + true_byte_s * body_bytes, body_bytes, number + 0.5)
    assert path.byte_s == pytest.approx(true_byte_s, rel=0.2)
    assert path.mean_s == pytest.approx(0.021, rel=0.1)


def test_one_outlier_says_nothing_of_the_bandwidth():
    path = measured([0.02] * 10)
    for number in range(20):
        path.observe(0.02 + 8e-8 * MEGABYTE, MEGABYTE, 2 + number / 10)
    before = path.byte_s
    path.observe(30.0, MEGABYTE, 5.0)
    path.observe(0.02 + 8e-8 * MEGABYTE, MEGABYTE, 5.1)
    assert path.byte_s == pytest.approx(before)


def test_where_only_large_bodies_come_round_trip_and_bytes_add_up():
    path = measured([0.02] * 3)
    for number in range(300):
        path.observe(0.05 + 4e-7 * MEGABYTE, MEGABYTE, 100 + number)
    assert path.mean_s + path.byte_s * MEGABYTE == pytest.approx(0.05 + 4e-7 * MEGABYTE, rel=0.05)


@pytest.mark.parametrize(
    "byte_s", [pytest.param(8e-8, id="as expected"), pytest.param(0.0, id="much faster")]
)
def test_the_payload_of_small_bodies_is_not_counted_twice(byte_s):
    path, body_bytes = Path(0.1), 20_000
    for number in range(100):
        path.observe(0.05 + byte_s * body_bytes, body_bytes, number)
    predicted_s = path.mean_s + path.byte_s * body_bytes
    assert predicted_s == pytest.approx(0.05 + byte_s * body_bytes, rel=0.04)


samples = st.lists(
    st.tuples(st.floats(1e-6, 60), st.integers(0, 1 << 28), st.floats(0, 100)), max_size=80
)


@given(samples)
def test_whatever_is_observed_the_estimates_stay_in_bounds(samples):
    path, now_s = Path(0.1), 0.0
    for rtt_s, body_bytes, pause_s in samples:
        now_s += pause_s
        path.observe(rtt_s, body_bytes, now_s)
        assert 0 < path.least_s < math.inf
        assert 0 < path.mean_s <= 60
        assert 0 <= path.sigma_s < math.inf
        assert LEAST_BYTE_S <= path.byte_s <= MOST_BYTE_S
