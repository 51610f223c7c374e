"""What is learned of service, of waiting and of an endpoint's like."""

from random import Random

import pytest

from isochrone.router.fleet.congestion import turns_ahead
from isochrone.router.fleet.latency import ServiceTime
from isochrone.router.fleet.priors import LOAD_S, SERVICE_S, Priors
from isochrone.router.fleet.slowstart import RAMP_S, cap
from isochrone.router.fleet.waiting import WaitCurve, place


def test_a_longer_payload_costs_what_it_was_seen_to_cost():
    service, rng = ServiceTime(1.0), Random(1)
    for number in range(2000):
        length = rng.choice([1_000, 50_000, 200_000])
        service.observe(0.01 + 2e-7 * length + rng.gauss(0, 0.001), length, number * 0.01)
    assert service.byte_s == pytest.approx(2e-7, rel=0.1)
    assert service.mean_s - service.byte_s * service.mean_bytes == pytest.approx(0.01, rel=0.25)


def test_no_length_is_promised_less_than_nothing():
    service, rng = ServiceTime(1.0), Random(1)
    for number in range(500):
        length = rng.randrange(200_000, 1_000_000)
        service.observe((length / 1e6) ** 2, length, number * 0.01)
    assert service.mean_s - service.byte_s * service.mean_bytes >= 0


def test_lengths_that_do_not_differ_teach_no_slope():
    service, rng = ServiceTime(1.0), Random(1)
    for number in range(500):
        service.observe(rng.uniform(0.01, 0.03), 3136, number * 0.01)
    assert service.byte_s == 0.0
    assert service.sigma_s == pytest.approx(0.02 / 12**0.5, rel=0.2)


def test_the_wait_is_what_the_arithmetic_says_until_it_was_seen():
    curve = WaitCurve()
    for slots, in_flight in [(1, 0), (1, 1), (2, 1), (2, 5), (8, 7), (8, 24), (64, 200)]:
        assert curve.turns[place(in_flight, slots)][0] == pytest.approx(
            turns_ahead(in_flight, slots), abs=0.0626
        )
    for _ in range(5000):
        curve.observe(place(1, 2), 0.4, 0.1)
    mean, sigma = curve.turns[place(1, 2)]
    assert mean == pytest.approx(0.4, rel=0.05)
    assert sigma < 0.2
    assert curve.turns[place(2, 2)][0] == 0.5, "another load is another matter"


def test_what_is_waited_at_fast_and_slow_endpoints_is_right_in_seconds():
    """A tenth of the requests goes to a slow one, where hardly anybody waits."""
    curve, here = WaitCurve(), place(0, 2)
    turn_s = [0.1] * 9 + [1.0]
    for number in range(5000):
        slow = number % 10 == 9
        curve.observe(here, 0.0 if slow else 0.5, turn_s[number % 10])
    predicted_s = sum(one * curve.turns[here][0] for one in turn_s)
    assert predicted_s == pytest.approx(9 * 0.5 * 0.1, rel=0.1)


def test_samples_that_are_far_between_keep_their_spread():
    service, rng = ServiceTime(1.0), Random(1)
    sigmas = []
    for number in range(500):
        service.observe(rng.gauss(1.0, 0.2), 0, number * 1000.0)
        sigmas.append(service.sigma_s)
    # each is expected to be what the last one was: both are off
    assert sum(sigmas[50:]) / 450 == pytest.approx(0.2 * 2**0.5, rel=0.1)


def test_the_ramp_goes_from_one_to_all_slots():
    assert [cap(8, age) for age in (0.0, RAMP_S / 7, RAMP_S / 2, RAMP_S, 1e9)] == [1, 2, 4, 8, 8]
    assert cap(1, 0.0) == 1


def test_a_kind_is_known_by_its_class_then_by_its_model():
    priors = Priors()
    assert (priors.service_s("m", "gpu"), priors.load_s("m", "gpu")) == (SERVICE_S, LOAD_S)
    priors.served("m", "cpu", 0.2, 1.0)
    priors.loaded("m", "cpu", 3.0, 1.0)
    assert (priors.service_s("m", "cpu"), priors.load_s("m", "cpu")) == (0.2, 3.0)
    assert priors.service_s("m", "gpu") == 0.2, "nothing better is known of that class"
    assert priors.service_s("other", "cpu") == SERVICE_S
    for number in range(10_000):
        priors.served(f"m{number}", "cpu", 0.2, 1.0)
    assert priors.service_s("m9999", "cpu") == 0.2
