"""Addresses of endpoints: what is taken, what is refused."""

from ipaddress import ip_network

import pytest

from isochrone.router.errors import BadRequest, Forbidden
from isochrone.router.members.address import pin
from isochrone.router.wire.url import HostPort, parse_url

ALLOWED = [ip_network("127.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("fd00::/8")]

BAD_URLS = [
    "https://127.0.0.1:80",
    "file:///etc/passwd",
    "http://127.0.0.1",
    "http://user@127.0.0.1:80",
    "http://user:pw@127.0.0.1:80",
    "http://127.0.0.1:80/path",
    "http://127.0.0.1:80?x=1",
    "http://127.0.0.1:80#x",
    "http://2130706433:80",
    "http://0x7f000001:80",
    "http://0x7f.1:80",
    "http://0177.0.0.1:80",
    "http://127.1:80",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:0x50",
    "http://[::1:80",
    "http://a..b:80",
    "http://exämple:80",
    "http://[fe80::1%eth0]:80",
    "http://[::1%ö]:80",
    "http://-a.example:80",
    "http://" + "a" * 64 + ".example:80",
    "http://a b:80",
    "http://a\n:80",
    "http://:80",
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_other_urls_are_refused(url):
    with pytest.raises(BadRequest):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://127.0.0.1:8090", HostPort("127.0.0.1", 8090)),
        ("http://127.0.0.1:8090/", HostPort("127.0.0.1", 8090)),
        ("http://[fd00::1]:8090", HostPort("fd00::1", 8090)),
        ("http://shop-1.example:8090", HostPort("shop-1.example", 8090)),
    ],
)
def test_endpoint_urls(url, where):
    assert parse_url(url) == where
    assert parse_url(where.url) == where


REFUSED = {
    "metadata service": ["169.254.169.254"],
    "public": ["192.0.2.1"],
    "one of several": ["127.0.0.1", "192.0.2.1"],
    "mapped": ["::ffff:127.0.0.1"],
    "none": [],
}


@pytest.mark.parametrize("resolved", REFUSED.values(), ids=REFUSED)
def test_addresses_outside_the_allowed_networks(resolved):
    with pytest.raises(Forbidden):
        pin(HostPort("name", 80), resolved, ALLOWED)


def test_the_first_address_is_pinned():
    pinned = pin(HostPort("shop-1.example", 80), ["10.1.2.3", "127.0.0.1"], ALLOWED)
    assert pinned.url == "http://10.1.2.3:80"
