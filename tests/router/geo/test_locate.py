"""From a connection to a place: proxies, networks, GeoIP databases sound and broken."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import ConfigError
from isochrone.router.geo.address import PrefixTable, read_address
from isochrone.router.geo.locate import (
    UNKNOWN_PLACE,
    GeoDatabase,
    Locator,
    Place,
    Source,
    trusted_proxies,
)
from isochrone.router.geo.region import Point

PROXIES = trusted_proxies([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])
OFFICE = Place(Point(1.0, 2.0), "IE", "eu-west", Source.NETWORKS)
LONDON = "81.2.69.142"


def locator(database: GeoDatabase | None = None, proxies=PROXIES) -> Locator:
    return Locator(PrefixTable([(ip_network("81.2.69.0/28"), OFFICE)]), proxies, database)


def client_address(peer, lines, proxies=PROXIES):
    headers = [(b"x-forwarded-for", line) for line in lines]
    return locator(proxies=proxies).client_address(peer, headers)


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        pytest.param("10.0.0.1", [], "10.0.0.1", id="no header"),
        pytest.param("192.0.2.9", [b"8.8.8.8"], "192.0.2.9", id="a peer that is not listed"),
        pytest.param("10.0.0.1", [b"8.8.8.8"], "8.8.8.8", id="behind one proxy"),
        pytest.param("10.0.0.1", [b"8.8.8.8, 10.0.0.2"], "8.8.8.8", id="behind two proxies"),
        pytest.param("10.0.0.1", [b"1.1.1.1, 8.8.8.8"], "8.8.8.8", id="a claim on the left"),
        pytest.param("10.0.0.1", [b"1.1.1.1", b"8.8.8.8"], "8.8.8.8", id="a claim in its own line"),
        pytest.param("10.0.0.1", [b"10.0.0.3,10.0.0.2"], "10.0.0.3", id="only proxies"),
        pytest.param("10.0.0.1", [b"8.8.8.8:443"], "8.8.8.8", id="with a port"),
        pytest.param("10.0.0.1", [b'"[2001:dead::1]:443"'], "2001:dead::1", id="IPv6 with a port"),
        pytest.param("10.0.0.1", [b"2001:dead::1"], "2001:dead::1", id="IPv6"),
        pytest.param("::ffff:10.0.0.1", [b"8.8.8.8"], "8.8.8.8", id="a mapped peer"),
        pytest.param("2001:db8::1", [b"::ffff:8.8.8.8"], "8.8.8.8", id="a mapped client"),
        pytest.param("10.0.0.1", [b"garbage"], "10.0.0.1", id="garbage"),
        pytest.param(
            "10.0.0.1", [b"1.1.1.1, \xff, 10.0.0.2"], "10.0.0.2", id="garbage hides claims"
        ),
        pytest.param("10.0.0.1", [b",,"], "10.0.0.1", id="commas only"),
        pytest.param("", [b"8.8.8.8"], "", id="no peer"),
    ],
)
def test_the_client_is_the_rightmost_hop_that_no_proxy_of_ours_is(peer, lines, client):
    assert client_address(peer, lines) == client


def test_without_listed_proxies_nobody_is_believed():
    assert client_address("10.0.0.1", [b"8.8.8.8"], trusted_proxies([])) == "10.0.0.1"


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_whatever_the_header_holds_the_client_is_an_address(lines):
    assert read_address(client_address("10.0.0.1", lines)) is not None


@given(claims=st.lists(st.sampled_from([b"1.1.1.1", b"10.0.0.7", b"x", b""]), max_size=5))
def test_no_claim_changes_what_the_proxy_saw(claims):
    assert client_address("10.0.0.1", [*claims, b"8.8.8.8"]) == "8.8.8.8"


def test_the_headers_of_a_request_give_its_client():
    headers = [(b"x-forwarded-for", b"1.1.1.1"), (b"a", b"b"), (b"x-forwarded-for", b"8.8.8.8")]
    assert locator().client_address("10.0.0.1", headers) == "8.8.8.8"
    assert locator().client_address("192.0.2.9", headers) == "192.0.2.9"


@pytest.mark.parametrize("address", ["8.8.8.8", "no address", "", "2001:db8::1"])
def test_an_unknown_place_is_no_error(address):
    assert locator().place(address) is UNKNOWN_PLACE


@pytest.fixture
def city(maxmind):
    database = GeoDatabase(maxmind / "GeoIP2-City-Test.mmdb")
    yield database
    database.close()


def test_geoip_knows_what_no_network_says(city):
    place = locator(city).place(LONDON)
    assert place == Place(Point(51.5142, -0.0931), "GB", None, Source.GEOIP)
    assert locator(city).place(f"::ffff:{LONDON}") == place


def test_networks_win_over_geoip(city):
    assert locator(city).place("81.2.69.5") is OFFICE


def test_an_address_that_geoip_does_not_hold_is_an_unknown_place(city):
    assert locator(city).place("127.0.0.1") is UNKNOWN_PLACE


def test_a_place_is_looked_up_once(city):
    one = locator(city)
    assert one.place(LONDON) is one.place(LONDON)


def test_a_country_database_gives_a_country_without_a_point(maxmind):
    one = locator(GeoDatabase(maxmind / "GeoIP2-Country-Test.mmdb"))
    assert one.place(LONDON) == Place(None, "GB", None, Source.GEOIP)
    one.close()


def test_a_database_that_breaks_at_look_up_gives_unknown_places(maxmind):
    one = locator(GeoDatabase(maxmind / "GeoIP2-City-Test-Broken-Double-Format.mmdb"))
    assert one.place("2001:220::1") is UNKNOWN_PLACE
    assert one.failures == 1
    one.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("GeoIP2-City-Test-Invalid-Node-Count.mmdb", "not a usable", id="broken"),
        pytest.param("GeoLite2-ASN-Test.mmdb", "holds no places", id="another kind"),
        pytest.param("absent.mmdb", "cannot be read: No such file", id="absent"),
        pytest.param("README.md", "not a usable MaxMind database", id="another file"),
        pytest.param(".", "is no regular file", id="a folder"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_at_start(maxmind, name, message):
    with pytest.raises(ConfigError, match=f"{message}.*City database"):
        GeoDatabase(maxmind / name)


def cut_short(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def blotted(whole: bytes) -> bytes:
    third = len(whole) // 3
    return whole[:third] + b"\xff" * third + whole[2 * third :]


@pytest.mark.parametrize("spoil", [cut_short, blotted, lambda whole: whole[:0]])
def test_a_spoilt_database_is_refused_or_gives_unknown_places(maxmind, tmp_path, spoil):
    path = tmp_path / "spoilt.mmdb"
    path.write_bytes(spoil((maxmind / "GeoIP2-City-Test.mmdb").read_bytes()))
    try:
        one = locator(GeoDatabase(path))
    except ConfigError:
        return
    assert [one.place(f"{first}.2.69.142") for first in range(1, 255)]
    one.close()
