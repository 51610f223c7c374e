"""Addresses and the table of networks."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.geo.address import PrefixTable, read_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("192.0.2.1", IPv4Address("192.0.2.1"), id="IPv4"),
        pytest.param("2001:db8::1", IPv6Address("2001:db8::1"), id="IPv6"),
        pytest.param("::ffff:192.0.2.1", IPv4Address("192.0.2.1"), id="IPv4 mapped into IPv6"),
        pytest.param("fe80::1%eth0", IPv6Address("fe80::1"), id="a scope"),
        pytest.param("", None, id="nothing"),
        pytest.param("unknown", None, id="a word"),
        pytest.param("192.0.2.1:80", None, id="with a port"),
        pytest.param("192.0.2.010", None, id="an octal part"),
        pytest.param("3221225985", None, id="a decimal address"),
        pytest.param("1" * 10_000, None, id="very long"),
    ],
)
def test_an_address_is_read_or_is_none(text, address):
    assert read_address(text) == address


@given(st.text())
def test_no_text_raises(text):
    read_address(text)


def test_the_longest_prefix_wins_whatever_the_order():
    networks = ["0.0.0.0/0", "10.1.2.0/24", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32"]
    table = PrefixTable([(ip_network(cidr), cidr) for cidr in networks])
    found = {
        text: table.find(ip_address(text))
        for text in ["10.1.2.3", "10.1.2.4", "10.9.9.9", "8.8.8.8", "2001:db8::9", "fe80::1"]
    }
    assert found == {
        "10.1.2.3": "10.1.2.3/32",
        "10.1.2.4": "10.1.2.0/24",
        "10.9.9.9": "10.0.0.0/8",
        "8.8.8.8": "0.0.0.0/0",
        "2001:db8::9": "2001:db8::/32",
        "fe80::1": "::/0",
    }
    assert PrefixTable([(ip_network("10.0.0.0/8"), 1)]).find(ip_address("::a00:1")) is None


networks = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda pair: ip_network(pair, strict=False)
)


@given(st.lists(networks, max_size=12, unique=True), st.integers(0, 2**32 - 1).map(ip_address))
def test_the_table_finds_what_a_scan_finds(listed, address):
    table = PrefixTable([(network, str(network)) for network in listed])
    holding = [network for network in listed if address in network]
    expected = max(holding, key=lambda network: network.prefixlen, default=None)
    assert table.find(address) == (None if expected is None else str(expected))
