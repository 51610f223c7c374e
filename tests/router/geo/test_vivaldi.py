"""Network coordinates: springs, and what they say of the round trips between real cities."""

import statistics
from dataclasses import dataclass
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.geo.clients import Client, ClientPaths, Sample
from isochrone.router.geo.network import Estimate, prior_rtt_s
from isochrone.router.geo.region import Point, Region, Regions, distance_km
from isochrone.router.geo.vivaldi import MOST_ERROR, Coordinate
from isochrone.router.simulate.cities import read_cities, read_round_trips

DUBLIN, FRANKFURT, SYDNEY = Point(53.35, -6.26), Point(50.11, 8.68), Point(-33.87, 151.21)


def test_two_nodes_come_to_be_as_far_apart_as_was_measured():
    rng = Random(1)
    one, other = Coordinate(), Coordinate()
    for _ in range(200):
        one.observe(other, 0.08, rng)
        other.observe(one, 0.08, rng)
    assert one.distance_s(other) == pytest.approx(0.08, rel=0.01)
    assert max(one.error, other.error) < 0.02


def test_a_triangle_that_no_line_can_hold_fits():
    rng = Random(2)
    sides_s = {(0, 1): 0.05, (1, 2): 0.07, (0, 2): 0.1}
    nodes = [Coordinate() for _ in range(3)]
    for _ in range(400):
        for (a, b), rtt_s in sides_s.items():
            nodes[a].observe(nodes[b], rtt_s, rng)
            nodes[b].observe(nodes[a], rtt_s, rng)
    for (a, b), rtt_s in sides_s.items():
        assert nodes[a].distance_s(nodes[b]) == pytest.approx(rtt_s, rel=0.05)


def test_what_only_heights_can_say_is_said():
    """Four nodes behind slow links, a hub that is near to all."""
    rng = Random(3)
    hub, *leaves = [Coordinate.at(Point(0, 10.0 * number)) for number in range(5)]
    for _ in range(4000):
        one, other = rng.sample([hub, *leaves], 2)
        rtt_s = 0.05 if hub in (one, other) else 0.1
        one.observe(other, rtt_s, rng)
        other.observe(one, rtt_s, rng)
    assert hub.distance_s(leaves[0]) == pytest.approx(0.05, rel=0.2)
    assert leaves[0].distance_s(leaves[1]) == pytest.approx(0.1, rel=0.2)


@given(st.lists(st.floats(1e-9, 60), max_size=60), st.integers(0, 99))
def test_whatever_is_measured_a_distance_is_a_time(rtts_s, seed):
    rng = Random(seed)
    one, other = Coordinate(), Coordinate.at(SYDNEY)
    for rtt_s in rtts_s:
        one.observe(other, rtt_s, rng)
        assert 0 < one.distance_s(other) < 1e6
        assert one.distance_s(other) == pytest.approx(other.distance_s(one))
        assert 0 <= one.error <= MOST_ERROR


def test_a_node_starts_where_distance_puts_it():
    near = Coordinate.at(DUBLIN).distance_s(Coordinate.at(FRANKFURT))
    far = Coordinate.at(DUBLIN).distance_s(Coordinate.at(SYDNEY))
    assert near == pytest.approx(prior_rtt_s(distance_km(DUBLIN, FRANKFURT)), rel=0.1)
    assert far == pytest.approx(prior_rtt_s(distance_km(DUBLIN, SYDNEY)), rel=0.3)


ENDPOINTS, NEIGHBOURS, ROUNDS = 29, 12, 3


@dataclass(frozen=True)
class Guess:
    """One client's round trips to the endpoints that it has not measured, in seconds."""

    true_s: list[float]
    told: list[Estimate]
    distance_km: list[float]

    @property
    def by(self) -> dict[str, list[float]]:
        """What is guessed, by where it is known from."""
        return {
            "coordinates": [one.mean_s for one in self.told],
            "distance": [prior_rtt_s(away_km) for away_km in self.distance_km],
        }

    def lost_s(self, source: str) -> float:
        """How much longer the way to the endpoint that seems nearest is than the shortest."""
        guessed_s = self.by[source]
        return self.true_s[guessed_s.index(min(guessed_s))] - min(self.true_s)

    def errors(self, source: str) -> list[float]:
        """Relative ones."""
        pairs = zip(self.by[source], self.true_s, strict=True)
        return [abs(guess - true) / true for guess, true in pairs]


@pytest.fixture
def guesses(city_pairs) -> list[Guess]:
    """Clients have measured 12 of 29 endpoints 3 times each: what is said of the other 17?

    The split is fixed: by the hash of a city's name come endpoints, clients, and who measures whom.
    """
    cities = read_cities(city_pairs.parent / "cities.csv")
    cities.sort(key=lambda city: sha256(city.name.encode()).digest())
    endpoints, clients = cities[:ENDPOINTS], cities[ENDPOINTS:]
    trips = read_round_trips(city_pairs, [city.name for city in cities])
    rng = Random(1)
    paths = ClientPaths(Regions([Region(c.name, c.point, "x") for c in endpoints], {}), rng)
    calls, others = [], []
    for number, city in enumerate(clients):
        known = [(e, trips.between(city, e)[0]) for e in endpoints if trips.between(city, e)[1]]
        if len(known) < ENDPOINTS - 3:  # some cities were hardly measured
            continue
        rng.shuffle(known)
        client = Client((4, number), city.point)
        calls += [(client, endpoint, rtt_s) for endpoint, rtt_s in known[:NEIGHBOURS]]
        others.append((client, city.point, known[NEIGHBOURS:]))
    for _ in range(ROUNDS):
        rng.shuffle(calls)
        for client, endpoint, rtt_s in calls:
            jittered_s = rtt_s * (1 + 0.1 * rng.expovariate(1))
            sample = Sample(endpoint.name, endpoint.name, jittered_s, trusted=True)
            paths.observe(client, sample, 0.0)
    return [guess(paths, *other) for other in others]


def guess(paths, client, point, others) -> Guess:
    vantage = paths.vantage(client, 0.0)
    assert vantage is not None
    return Guess(
        true_s=[rtt_s for _, rtt_s in others],
        told=[vantage.net(endpoint.name, endpoint.name) for endpoint, _ in others],
        distance_km=[distance_km(point, endpoint.point) for endpoint, _ in others],
    )


def test_between_real_cities_coordinates_beat_distance(guesses):
    assert len(guesses) > 150
    errors = {}
    lost_s = {}
    for source in ("coordinates", "distance"):
        errors[source] = [error for one in guesses for error in one.errors(source)]
        lost_s[source] = [one.lost_s(source) for one in guesses]
        print(
            f"{source}: relative error {statistics.median(errors[source]):.3f} (p90"
            f" {statistics.quantiles(errors[source], n=10)[8]:.3f}), what was picked is"
            f" {1000 * statistics.mean(lost_s[source]):.1f} ms worse than the best (p90"
            f" {1000 * statistics.quantiles(lost_s[source], n=10)[8]:.1f} ms)"
        )
    assert statistics.median(errors["coordinates"]) < 0.8 * statistics.median(errors["distance"])
    assert statistics.mean(lost_s["coordinates"]) < 0.8 * statistics.mean(lost_s["distance"])


def test_the_spread_of_coordinates_is_an_honest_one(guesses):
    within = []
    for one in guesses:
        assert {told.source for told in one.told} == {"coordinates"}
        for true_s, told in zip(one.true_s, one.told, strict=True):
            within.append(abs(told.mean_s - true_s) <= 1.645 * told.sigma_s)
    assert 0.85 <= statistics.mean(within) <= 0.95
