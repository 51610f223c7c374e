"""Round trips by longest prefix, either way or by distance; two sets of cities; who asks whom."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import ConfigError
from isochrone.router.geo.network import light_rtt_s, prior_rtt_s
from isochrone.router.geo.region import Point, distance_km
from isochrone.router.process.settings import load_settings
from isochrone.router.simulate.cities import (
    SAME_CITY_RTT_S,
    City,
    read_cities,
    read_round_trips,
    split_of,
)
from isochrone.router.simulate.scenario import (
    EndpointEntry,
    PlaceEntry,
    RouterEntry,
    Scenario,
    Service,
)
from isochrone.router.simulate.world import placed

REPOSITORY = Path(__file__).parents[3]
SCENARIOS = REPOSITORY / "configs" / "scenarios"

PAIRS = """\
src_city,dst,distance_km,avg_ms,min_ms
San Jose,"Jacksonville United States, North America",3800,71,70
Jackson,"San Jose Costa Rica, North America",2500,61,60
Jackson,"Atlantis Nowhere, Ocean",1,9,8
Jackson,"Jacksonville United States, North America",850,21,20
"""
CITIES = """\
city,Lat,Long,Population
San Jose,37.3,-121.9,1000
Jackson,32.3,-90.2,3000
Jacksonville,30.3,-81.7,0
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "pairs.csv").write_text(PAIRS)
    (tmp_path / "cities.csv").write_text(CITIES)
    return tmp_path


@pytest.fixture
def rtt_data():
    """The folder of measured round trips, where it is."""
    data = Path(os.environ.get("DATA", REPOSITORY.parent / "shared" / "data"))  # noqa: TID251  # tests are told so
    if not (data / "rtt" / "city_pairs.csv").is_file():
        pytest.skip(f"there is no {data / 'rtt'}; name the folder above rtt in $DATA")
    return data / "rtt"


def city(name, latitude, longitude, population=1.0):
    return City(name, Point(latitude, longitude), population)


def test_a_destination_is_the_longest_city_that_it_begins_with(files):
    cities = {one.name: one for one in read_cities(files / "cities.csv")}
    trips = read_round_trips(files / "pairs.csv", cities)
    assert (len(trips), trips.unmatched_count) == (3, 1)
    san_jose, jackson, jacksonville = cities.values()
    assert trips.between(san_jose, jacksonville) == (0.070, True)
    assert trips.between(jackson, jacksonville) == (0.020, True)


def test_a_pair_measured_the_other_way_round_is_measured(files):
    jackson, san_jose = city("Jackson", 32.3, -90.2), city("San Jose", 37.3, -121.9)
    trips = read_round_trips(files / "pairs.csv")
    assert trips.between(san_jose, jackson) == trips.between(jackson, san_jose) == (0.060, True)


def test_what_was_never_measured_is_told_by_distance(files):
    rome, jackson = city("Rome", 41.9, 12.5), city("Jackson", 32.3, -90.2)
    away_km = distance_km(rome.point, jackson.point)
    trips = read_round_trips(files / "pairs.csv")
    assert trips.between(rome, jackson) == (prior_rtt_s(away_km), False)
    assert trips.between(rome, rome) == (SAME_CITY_RTT_S, True)


def test_a_measurement_faster_than_light_is_not_believed(files):
    far = city("Jackson", -32.3, 90.2)
    here = city("Jacksonville", 30.3, -81.7)
    away_km = distance_km(far.point, here.point)
    assert light_rtt_s(away_km) > 0.020
    trips = read_round_trips(files / "pairs.csv", ["Jacksonville"])
    assert trips.between(far, here) == (prior_rtt_s(away_km), False)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("city,Lat\nRome,1\n", "lacks the column Long, Population"),
        ("city,Lat,Long,Population\nRome,north,1,1\n", r"bad\.csv:2: could not convert"),
        ("city,Lat,Long,Population\nRome,99,1,1\n", r"bad\.csv:2: it is no place"),
        ("city,Lat,Long,Population\nRome\n", r"bad\.csv:2: "),
    ],
    ids=["a missing column", "no number", "no latitude", "a short line"],
)
def test_a_bad_file_of_cities_is_told_with_its_line(tmp_path, content, told):
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(ConfigError, match=told):
        read_cities(tmp_path / "bad.csv")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_round_trips(tmp_path / "none.csv")


@given(st.text())
def test_every_city_is_in_one_of_the_two_sets(name):
    assert split_of(name) in {"tune", "report"}


def test_the_sets_are_what_they_were_when_knobs_were_first_tuned():
    named = ("Amsterdam", "Tokyo", "London", "Frankfurt", "New York", "Sydney")
    assert [split_of(name) for name in named] == ["tune"] * 3 + ["report"] * 3


def scenario(**more):
    service = Service(mean_s=0.1)
    return Scenario(
        places={
            "Rome": PlaceEntry(latitude=41.9, longitude=12.5, population=3),
            "Oslo": PlaceEntry(latitude=59.9, longitude=10.8),
        },
        routers=(
            RouterEntry(name="r1", city="Rome", region="south"),
            RouterEntry(name="r2", city="Oslo", region="north"),
        ),
        endpoints=(EndpointEntry(name="e", city="Rome", region="south", service=service),),
        **more,
    )


def test_without_cities_the_places_are_the_cities():
    world = placed(scenario())
    assert [one.name for one in world.router_cities] == ["Rome", "Oslo"]
    assert [(one.region, one.weight) for one in world.clients] == [("south", 0.75), ("north", 0.25)]
    away_km = distance_km(Point(41.9, 12.5), Point(59.9, 10.8))
    assert world.rtt_s == ((SAME_CITY_RTT_S,), (prior_rtt_s(away_km),))
    assert world.fitted_count == 1


def test_a_place_stands_in_the_nearest_city_that_is_free():
    cities = [city("Naples", 40.9, 14.3), city("Bergen", 60.4, 5.3), city("Bari", 41.1, 16.9)]
    world = placed(scenario(), cities)
    assert [one.name for one in world.router_cities] == ["Naples", "Bergen"]
    assert [one.name for one in world.endpoint_cities] == ["Naples"]
    assert {one.city.name for one in world.clients} == {"Naples", "Bergen", "Bari"}
    assert {one.city.name: one.region for one in world.clients}["Bari"] == "south"


def test_fewer_cities_than_places_are_refused():
    with pytest.raises(ConfigError, match="1 cities are too few for 2 places"):
        placed(scenario(), [city("Naples", 40.9, 14.3)])


def test_cities_without_people_are_refused():
    with pytest.raises(ConfigError, match="nobody lives in these cities"):
        placed(scenario(), [city("Naples", 40.9, 14.3, 0), city("Bergen", 60.4, 5.3, 0)])


@pytest.mark.parametrize("split", ["tune", "report"])
def test_the_shipped_world_stands_in_cities_of_one_set_only(rtt_data, split):
    everywhere = read_cities(rtt_data / "cities.csv")
    trips = read_round_trips(rtt_data / "city_pairs.csv", (one.name for one in everywhere))
    assert trips.unmatched_count == 1437  # towards six cities that no row is about
    cities = [one for one in everywhere if split_of(one.name) == split]
    shipped = load_settings(SCENARIOS / "worldwide.yaml", Scenario)
    world = placed(shipped, cities, trips)
    standing = {one.name for one in (*world.router_cities, *world.endpoint_cities)}
    assert {split_of(name) for name in standing} == {split}
    assert len({one.region for one in world.clients}) == len(shipped.routers) == 8
    assert world.fitted_count <= 8 * 29 * 0.05
    assert sum(one.weight for one in world.clients) == pytest.approx(1)
    assert all(
        one.rtt_s == min(trips.between(one.city, there)[0] for there in world.router_cities)
        for one in world.clients
    )
