"""Listening sockets and what is said when they cannot be had."""

import socket
import sys

import pytest

from isochrone.router.errors import ConfigError
from isochrone.router.http.sockets import address_of, bind, bind_all, round_trip_s


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_free_port_is_found(host):
    try:
        listening = bind(f"{host}:0")
    except ConfigError:
        if host != "[::1]":
            raise
        pytest.skip("this machine has no IPv6")
    with listening:
        bound, _, port = address_of(listening).rpartition(":")
        assert bound in (host, "127.0.0.1", "[::1]")
        assert int(port) > 0
        assert not listening.getblocking()
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_port_in_use_is_an_error_with_a_remedy():
    with bind("127.0.0.1:0") as first:
        address = address_of(first)
        with pytest.raises(ConfigError, match=f"{address} is in use; choose another `listen`"):
            bind(address)


def test_a_port_that_was_just_left_can_be_taken_again():
    with bind("127.0.0.1:0") as first:
        address = address_of(first)
        with socket.create_connection(first.getsockname()):
            first.setblocking(True)
            first.accept()[0].close()
    bind(address).close()


@pytest.mark.parametrize(
    "address", ["8080", ":8080", "a:", "a:b", "a:65536", "a:-1", "::1:8080", "a:٣", ""]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="write"):
        bind(address)


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_what_is_not_here_is_refused(address):
    with pytest.raises(ConfigError, match="listen"):
        bind(address)


def free_port():
    with bind("127.0.0.1:0") as probe:
        return probe.getsockname()[1]


def reached(address):
    with socket.create_connection(address, timeout=2):
        return True


def test_every_address_of_ipv6_takes_ipv4_as_well_and_the_port_is_its_own():
    try:
        both = bind(f"[::]:{free_port()}")
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with both:
        port = both.getsockname()[1]
        assert reached(("::1", port))
        assert reached(("127.0.0.1", port))
        for address in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"[::]:{port}"):
            with pytest.raises(ConfigError, match="is in use"):
                bind(address)


def test_a_port_that_ipv4_has_is_not_taken_by_every_address_of_ipv6():
    with bind("127.0.0.1:0") as first, pytest.raises(ConfigError, match=r"is in use|no address"):
        bind(f"[::]:{first.getsockname()[1]}")


def test_several_addresses_are_bound_or_none():
    ports = free_port(), free_port()
    addresses = tuple(f"127.0.0.1:{port}" for port in ports)
    bound = bind_all(addresses)
    assert [address_of(one) for one in bound] == list(addresses)
    bound[0].close()
    with pytest.raises(ConfigError, match="is in use"):
        bind_all(addresses)
    bound[1].close()
    for one in bind_all(addresses):
        one.close()
    (one,) = bind_all(addresses[0])
    one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is read on Linux only")
def test_a_tcp_connection_has_a_round_trip():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        rtt_s = round_trip_s(client)
    assert rtt_s is not None
    assert 0 < rtt_s < 1
    assert round_trip_s(client) is None


def test_what_is_no_tcp_connection_has_none():
    one, other = socket.socketpair()
    with one, other:
        assert round_trip_s(one) is None
    assert round_trip_s(None) is None
