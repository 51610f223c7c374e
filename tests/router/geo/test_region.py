"""Regions, the names that stand for them, and distance."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import BadRequest
from isochrone.router.geo.region import EARTH_RADIUS_KM, Point, Region, Regions, distance_km

DUBLIN, FRANKFURT, ASHBURN = Point(53.35, -6.26), Point(50.11, 8.68), Point(39.04, -77.49)
REGIONS = Regions(
    [
        Region("eu-west", DUBLIN, "IE", ("a", "b")),
        Region("eu-central", FRANKFURT, "DE"),
        Region("us-east", ASHBURN, "US"),
        Region("us-west", Point(45.52, -122.68), "US"),
    ],
    {"eu": ["eu-west", "eu-central"]},
)

points = st.builds(Point, st.floats(-90, 90), st.floats(-180, 180))


@pytest.mark.parametrize(
    ("names", "members"),
    [
        pytest.param(["eu-west"], {"eu-west"}, id="a region"),
        pytest.param(["eu"], {"eu-west", "eu-central"}, id="a group"),
        pytest.param(["US"], {"us-east", "us-west"}, id="a jurisdiction"),
        pytest.param(["eu", "us-east", "IE"], {"eu-west", "eu-central", "us-east"}, id="together"),
        pytest.param([], set(), id="none"),
    ],
)
def test_names_stand_for_regions(names, members):
    assert REGIONS.resolve(names) == members


def test_an_unknown_name_is_refused_with_the_closest_one():
    with pytest.raises(BadRequest, match=r"unknown region.*'eu-wset'; did you mean eu-west\?"):
        REGIONS.resolve(["eu", "eu-wset"])
    with pytest.raises(BadRequest, match="known are eu-west, eu-central, us-east, us-west, IE, DE"):
        REGIONS.resolve(["mars"])


def test_a_collection_of_regions():
    assert REGIONS["eu-west"].zones == ("a", "b")
    assert "eu" not in REGIONS
    assert "us-west" in REGIONS
    assert [region.name for region in REGIONS] == ["eu-west", "eu-central", "us-east", "us-west"]
    assert len(REGIONS) == 4
    assert REGIONS.names == {"eu-west", "eu-central", "us-east", "us-west"}
    assert REGIONS.members("nowhere") is None


@pytest.mark.parametrize(
    ("point", "nearest"),
    [
        pytest.param(Point(51.5, -0.1), "eu-west", id="London"),
        pytest.param(Point(47.4, 8.5), "eu-central", id="Zurich"),
        pytest.param(Point(21.3, -157.9), "us-west", id="Honolulu"),
        pytest.param(Point(64.7, 177.5), "us-west", id="Anadyr, over the date line"),
    ],
)
def test_nearest(point, nearest):
    found = REGIONS.nearest(point)
    assert found is not None
    assert found.name == nearest


def test_nothing_is_nearest_where_there_is_nothing():
    assert Regions([], {}).nearest(DUBLIN) is None


@pytest.mark.parametrize(
    ("a", "b", "expected_km"),
    [
        pytest.param(DUBLIN, FRANKFURT, 1087, id="Dublin to Frankfurt"),
        pytest.param(DUBLIN, ASHBURN, 5450, id="Dublin to Ashburn"),
        pytest.param(Point(0, 179.5), Point(0, -179.5), 111.2, id="over the date line"),
        pytest.param(Point(0, 0), Point(0, 180), math.pi * EARTH_RADIUS_KM, id="antipodes"),
        pytest.param(Point(90, 0), Point(90, 77), 0, id="the pole has no longitude"),
    ],
)
def test_distance(a, b, expected_km):
    assert distance_km(a, b) == pytest.approx(expected_km, rel=0.01, abs=1e-6)


@given(points, points, points)
def test_distance_is_a_metric(a, b, c):
    assert distance_km(a, a) == 0
    assert distance_km(a, b) == pytest.approx(distance_km(b, a), abs=1e-6)
    assert 0 <= distance_km(a, b) <= math.pi * EARTH_RADIUS_KM + 1e-6
    assert distance_km(a, c) <= distance_km(a, b) + distance_km(b, c) + 1e-3
