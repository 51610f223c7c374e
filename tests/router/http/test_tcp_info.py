"""What the kernel tells of a connection."""

import socket
import sys

import pytest

from isochrone.router.http.tcp_info import round_trip_s


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
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
