"""What is known of the way from clients to endpoints, and that it stays bounded."""

import math
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.geo.clients import ENOUGH_COUNT, LASTS_S, Client, ClientPaths, Sample
from isochrone.router.geo.network import PRIOR_SIGMA_SHARE, light_rtt_s, prior_rtt_s
from isochrone.router.geo.region import Point, Region, Regions, distance_km

DUBLIN, ASHBURN, SYDNEY = Point(53.35, -6.26), Point(39.04, -77.49), Point(-33.87, 151.21)
REGIONS = Regions([Region("eu", DUBLIN, "IE"), Region("us", ASHBURN, "US")], {})
LONDON = Point(51.5, -0.1)


def client(text="203.0.113.7", point: Point | None = LONDON):
    return Client.of(ip_address(text), point)


def made(**limits):
    return ClientPaths(REGIONS, Random(1), **limits)


def net(paths, endpoint="eu-1", region="eu", now_s=0.0, of=None):
    vantage = paths.vantage(of or client(), now_s)
    assert vantage is not None
    return vantage.net(endpoint, region)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("203.0.113.7", "203.0.113.250", True, id="one /24"),
        pytest.param("203.0.113.7", "203.0.114.7", False, id="two /24"),
        pytest.param("2001:db8:1::1", "2001:db8:1:ffff::2", True, id="one /48"),
        pytest.param("2001:db8:1::1", "2001:db8:2::1", False, id="two /48"),
        pytest.param("0.0.1.0", "::1:0", False, id="IPv4 and IPv6"),
    ],
)
def test_clients_are_known_by_their_network(one, other, same):
    assert (client(one).prefix == client(other).prefix) is same


def test_unmeasured_it_is_the_distance_with_its_error():
    told = net(made())
    expected_s = prior_rtt_s(distance_km(LONDON, DUBLIN))
    assert (told.mean_s, told.source) == (expected_s, "distance")
    assert told.sigma_s == pytest.approx(PRIOR_SIGMA_SHARE * expected_s)


def test_a_measurement_wins_at_once_and_for_its_endpoint_only():
    paths = made()
    paths.observe(client(), Sample("eu-1", "eu", 0.045), 0.0)
    assert (net(paths).mean_s, net(paths).source) == (0.045, "measured")
    assert net(paths, "eu-2").source == "distance"
    assert net(paths, of=client("198.51.100.1")).source == "distance"


def test_a_client_of_unknown_place_has_a_view_once_it_was_measured():
    paths, lost = made(), client(point=None)
    assert paths.vantage(lost, 0.0) is None
    paths.observe(lost, Sample("eu-1", "eu", 0.045), 0.0)
    assert net(paths, of=lost).source == "measured"
    assert net(paths, "us-1", "us", of=lost).source == "unknown"


def test_more_samples_are_surer_and_age_makes_unsure_until_it_is_forgotten():
    paths = made()
    paths.observe(client(), Sample("eu-1", "eu", 0.045), 0.0)
    first = net(paths).sigma_s
    for _ in range(20):
        paths.observe(client(), Sample("eu-1", "eu", 0.045), 0.0)
    assert net(paths).sigma_s < first / 2
    aged = [net(paths, now_s=share * LASTS_S).sigma_s for share in (0, 0.3, 0.6, 1)]
    assert aged == sorted(set(aged))
    assert net(paths, now_s=LASTS_S + 1).source == "distance"


def test_what_has_expired_is_not_taken_up_again():
    paths = made()
    for number in range(20):
        paths.observe(client(), Sample("eu-1", "eu", 0.5), number)
    paths.observe(client(), Sample("eu-1", "eu", 0.09), 20 + LASTS_S)
    assert net(paths, now_s=20 + LASTS_S).mean_s == 0.09


def test_one_outlier_between_two_samples_is_not_believed():
    paths = made()
    for rtt_s in (0.045, 0.045, 9.0, 0.045, 0.045):
        paths.observe(client(), Sample("eu-1", "eu", rtt_s), 0.0)
    assert net(paths).mean_s == pytest.approx(0.045)


def test_faster_than_light_is_counted_and_slowed_down_to_it():
    paths = made()
    paths.observe(client(point=SYDNEY), Sample("eu-1", "eu", 0.002), 0.0)
    assert paths.misplaced == 1
    told = net(paths, of=client(point=SYDNEY))
    assert told.mean_s == light_rtt_s(distance_km(SYDNEY, DUBLIN))


def learnt(*, trusted, endpoint_count=20):
    """Fifty clients and one more that has not seen `eu-0`."""
    paths = made()
    for number in range(50):
        for index in range(endpoint_count):
            here = client(f"10.0.{number}.1")
            paths.observe(here, Sample(f"eu-{index}", "eu", 0.03, trusted), 0.0)
    for _ in range(3):
        for index in range(1, endpoint_count):
            paths.observe(client(), Sample(f"eu-{index}", "eu", 0.06, trusted), 0.0)
    return paths


def test_coordinates_tell_what_was_never_measured():
    told = net(learnt(trusted=True), "eu-0")
    assert told.source == "coordinates"
    assert told.mean_s == pytest.approx(0.06, rel=0.35)


def test_coordinates_need_many_endpoints_not_many_samples_of_few():
    paths = learnt(trusted=True, endpoint_count=1 + ENOUGH_COUNT // 3)
    for _ in range(100):
        paths.observe(client(), Sample("eu-1", "eu", 0.06, trusted=True), 0.0)
    assert net(paths, "eu-0").source == "distance"


def test_nobody_but_our_own_moves_an_endpoint():
    paths = learnt(trusted=False)
    assert net(paths, "eu-0").source == "distance"
    honest = learnt(trusted=True)
    before_s = net(honest, "eu-0").mean_s
    for _ in range(1000):
        honest.observe(client("198.51.100.1"), Sample("eu-0", "eu", 9.0), 0.0)
    assert net(honest, "eu-0").mean_s == before_s


def test_what_our_own_measured_is_not_overwritten_by_others_until_it_has_faded():
    paths = made()
    paths.observe(client(), Sample("eu-1", "eu", 0.045, trusted=True), 0.0)
    for _ in range(5):
        paths.observe(client(), Sample("eu-1", "eu", 9.0), 1.0)
    assert net(paths, now_s=1.0).mean_s == 0.045
    for _ in range(3):
        paths.observe(client(), Sample("eu-1", "eu", 0.09), LASTS_S + 1)
    assert net(paths, now_s=LASTS_S + 1).mean_s == 0.09


def test_what_others_told_ends_with_the_first_measurement_of_our_own():
    paths = made()
    for _ in range(5):
        paths.observe(client(), Sample("eu-1", "eu", 9.0), 0.0)
    paths.observe(client(), Sample("eu-1", "eu", 0.045, trusted=True), 1.0)
    assert net(paths, now_s=1.0).mean_s == 0.045


@pytest.mark.parametrize("ours", [1, 31, 32])
def test_others_do_not_push_out_what_our_own_measured(ours):
    paths = made()
    for number in range(ours):
        paths.observe(client(), Sample(f"ours-{number}", "eu", 0.045, trusted=True), 0.0)
    for number in range(64):
        paths.observe(client(), Sample(f"theirs-{number}", "eu", 9.0), 1.0)
    told = [net(paths, f"ours-{number}", now_s=1.0) for number in range(ours)]
    assert {(one.mean_s, one.source) for one in told} == {(0.045, "measured")}
    assert len(paths) == 32


def test_a_million_networks_stay_within_the_limits():
    """Limits a hundredth of the default ones; twenty thousand calls, drawn from a million."""
    paths = made(most_clients=160, most_pairs=640, most_endpoints=160)
    rng = Random(3)
    sizes = []
    for number in range(20_000):
        address = ip_address(rng.randrange(1_000_000) << 8)
        endpoint = f"e{rng.randrange(1000)}" if number % 3 else "e0"
        paths.observe(Client.of(address, LONDON), Sample(endpoint, "eu", 0.05, number % 2 > 0), 0.0)
        sizes.append((len(paths), paths.client_count, paths.endpoint_count))
    pairs, clients, endpoints = map(max, zip(*sizes, strict=True))
    assert (clients, endpoints) == (160, 160)
    assert 160 <= pairs <= 640


def test_one_client_cannot_fill_the_room_of_the_others():
    paths = made(most_clients=10, most_pairs=100)
    for number in range(200):
        paths.observe(client(), Sample(f"e{number}", "eu", 0.05), 0.0)
    assert len(paths) == 32
    assert net(paths, "e199").source == "measured"
    assert net(paths, "e0").source == "distance"


def test_who_was_measured_longest_ago_is_forgotten_first():
    paths = made(most_clients=2)
    for text in ("10.0.0.1", "10.0.1.1", "10.0.0.1", "10.0.2.1"):
        paths.observe(client(text), Sample("e", "eu", 0.05), 0.0)
    sources = [net(paths, "e", of=client(f"10.0.{n}.1")).source for n in range(3)]
    assert sources == ["measured", "distance", "measured"]


points = st.builds(Point, st.floats(-90, 90), st.floats(-180, 180))
samples = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 40), st.floats(1e-6, 60), st.booleans()),
    max_size=80,
)


@given(points, samples)
def test_no_estimate_is_faster_than_light(point, samples):
    paths = made()
    for who, endpoint, rtt_s, trusted in samples:
        paths.observe(
            client(f"10.0.{who}.1", point), Sample(f"e{endpoint}", "us", rtt_s, trusted), 0.0
        )
    bound_s = light_rtt_s(distance_km(point, ASHBURN))
    for endpoint in range(41):
        told = net(paths, f"e{endpoint}", "us", of=client("10.0.0.1", point))
        assert bound_s <= told.mean_s * (1 + 1e-9) < math.inf
        assert 0 <= told.sigma_s < math.inf
