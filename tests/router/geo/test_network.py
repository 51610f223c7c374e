"""Round trips: the prior from distance, the windowed minimum."""

import csv
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.geo.network import RttWindow, light_rtt_s, prior_rtt_s


def test_the_prior_at_known_distances():
    assert prior_rtt_s(0) == pytest.approx(0.0149)
    assert prior_rtt_s(1000) == pytest.approx(0.03225)
    assert light_rtt_s(1000) == pytest.approx(0.0100069, rel=1e-4)


@given(st.floats(0, 20_100))
def test_the_prior_is_never_faster_than_light(distance_km):
    assert prior_rtt_s(distance_km) > light_rtt_s(distance_km)


def test_the_prior_fits_what_was_measured_between_cities(city_pairs):
    with city_pairs.open() as file:
        rows = [row for index, row in enumerate(csv.DictReader(file)) if index % 7 == 0]
    errors = []
    for row in rows:
        measured_s = float(row["avg_ms"]) / 1000
        if measured_s > 0:
            errors.append(abs(prior_rtt_s(float(row["distance_km"])) - measured_s) / measured_s)
    assert statistics.median(errors) < 0.25


def test_nothing_measured_is_no_estimate():
    assert RttWindow().estimate(5.0) is None


def test_the_least_of_the_window_counts_and_is_forgotten_with_it():
    window = RttWindow(bucket_count=3, bucket_s=10)
    window.observe(0.030, 1.0)
    window.observe(0.050, 11.0)
    assert window.estimate(12.0) == 0.030
    window.observe(0.080, 25.0)
    assert window.estimate(29.9) == 0.030
    assert window.estimate(30.0) == 0.050
    assert window.estimate(45.0) == 0.080
    assert window.estimate(60.0) is None


def test_a_new_measurement_shows_at_once():
    window = RttWindow()
    window.observe(0.030, 1.0)
    assert window.estimate(1.0) == 0.030
    window.observe(0.020, 1.1)
    assert window.estimate(1.2) == 0.020


@pytest.mark.parametrize("rtt_s", [0.0, -0.001, float("nan"), float("inf")])
def test_what_is_no_time_is_left_out(rtt_s):
    window = RttWindow()
    window.observe(rtt_s, 1.0)
    assert window.estimate(1.0) is None


steps = st.lists(st.tuples(st.floats(0, 9), st.floats(0.001, 1), st.booleans()), max_size=60)


@given(steps)
def test_the_window_is_the_minimum_over_its_buckets(steps):
    """Held against the definition: all samples kept, those of the last six buckets compared."""
    window, now_s = RttWindow(bucket_count=6, bucket_s=2.0), 0.0
    samples: list[tuple[int, float]] = []
    for pause_s, rtt_s, ask in steps:
        now_s += pause_s
        window.observe(rtt_s, now_s)
        samples.append((int(now_s / 2), rtt_s))
        if ask:
            now_s += pause_s
            inside = [rtt for bucket, rtt in samples if bucket > int(now_s / 2) - 6]
            assert window.estimate(now_s) == min(inside, default=None)
