"""Where a scenario stands on the globe: true round trips, guessed ones, and who asks whom."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isochrone.router.errors import ConfigError
from isochrone.router.geo.network import prior_rtt_s
from isochrone.router.geo.region import Point, distance_km
from isochrone.router.simulate.cities import UNMEASURED, City, RoundTrips
from isochrone.router.simulate.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Client:
    """The clients of one city. `router` is the index of the one that they ask, `rtt_s` away; their
    `region` is that router's. `weight` is their share of all clients.
    """

    city: City
    weight: float
    router: int
    region: str
    rtt_s: float


@dataclass(frozen=True, slots=True)
class World:
    """A scenario in place. Rows are routers, columns endpoints, both as the scenario lists them.

    `rtt_s` is the true least round trip, `prior_rtt_s` what distance alone says. `fitted_count` of
    the true ones were never measured and are taken from distance too.
    """

    scenario: Scenario
    router_cities: tuple[City, ...]
    endpoint_cities: tuple[City, ...]
    rtt_s: tuple[tuple[float, ...], ...]
    prior_rtt_s: tuple[tuple[float, ...], ...]
    clients: tuple[Client, ...]
    fitted_count: int


def placed(
    scenario: Scenario, cities: Iterable[City] = (), round_trips: RoundTrips = UNMEASURED
) -> World:
    """A scenario in place.

    Given cities, whoever stands in one of the scenario's places stands in the nearest of them that
    is still free, and clients live in all of them. Without any, the places are the cities.

    Raises:
        ConfigError: there are fewer cities than places that somebody stands in, or nobody asks.
    """
    there = tuple(cities)
    city_of = _cities_of_places(scenario, there)
    routers = tuple(city_of[one.city] for one in scenario.routers)
    endpoints = tuple(city_of[one.city] for one in scenario.endpoints)
    trips = [[round_trips.between(a, b) for b in endpoints] for a in routers]
    return World(
        scenario=scenario,
        router_cities=routers,
        endpoint_cities=endpoints,
        rtt_s=tuple(tuple(rtt_s for rtt_s, _ in row) for row in trips),
        prior_rtt_s=tuple(
            tuple(prior_rtt_s(distance_km(a.point, b.point)) for b in endpoints) for a in routers
        ),
        clients=_clients(scenario, there or tuple(city_of.values()), routers, round_trips),
        fitted_count=sum(not measured for row in trips for _, measured in row),
    )


def _cities_of_places(scenario: Scenario, cities: Sequence[City]) -> Mapping[str, City]:
    """The city that each place of the scenario stands for, first come first served."""
    places = {
        name: City(name, Point(place.latitude, place.longitude), place.population)
        for name, place in scenario.places.items()
    }
    if not cities:
        return places
    taken = {one.city for one in scenario.standing}
    if len(taken) > len(cities):
        raise ConfigError(f"{len(cities)} cities are too few for {len(taken)} places")
    free = list(cities)
    chosen: dict[str, City] = {}
    for name, place in places.items():
        if name in taken:
            chosen[name] = _nearest(place, free)
            free.remove(chosen[name])
    return chosen


def _nearest(place: City, cities: Iterable[City]) -> City:
    return min(cities, key=lambda city: distance_km(place.point, city.point))


def _clients(
    scenario: Scenario, cities: Sequence[City], routers: Sequence[City], round_trips: RoundTrips
) -> tuple[Client, ...]:
    """Who asks: every city with people, at the router with the least true round trip."""
    people = sum(city.population for city in cities)
    if people <= 0:
        raise ConfigError("nobody lives in these cities: no population is above 0")
    return tuple(
        _client(scenario, city, city.population / people, routers, round_trips)
        for city in cities
        if city.population > 0
    )


def _client(
    scenario: Scenario,
    city: City,
    weight: float,
    routers: Sequence[City],
    round_trips: RoundTrips,
) -> Client:
    trips = [round_trips.between(city, router)[0] for router in routers]
    router = min(range(len(trips)), key=trips.__getitem__)
    return Client(city, weight, router, scenario.routers[router].region, trips[router])
