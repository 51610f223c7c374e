"""An agent notes how far its direct clients are, and tells its routers."""

import asyncio
import sys
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from isochrone.edge_agent.client_trips import ClientTrips, Teller, noting
from isochrone.router.http.limits import Limits
from isochrone.router.http.listener import Listener
from isochrone.router.http.sockets import address_of, bind
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.report import MEASUREMENTS, Measurement, Measurements

SOON_S = 10


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        pytest.param("203.0.113.7", "203.0.113.0", id="IPv4"),
        pytest.param("::ffff:203.0.113.7", "203.0.113.0", id="IPv4 mapped into IPv6"),
        pytest.param("2001:db8:1:2::3", "2001:db8:1::", id="IPv6"),
        pytest.param("fe80::1%eth0", "fe80::", id="a scope"),
    ],
)
def test_clients_are_noted_by_their_network(peer, network):
    trips = ClientTrips()
    trips.note(peer, 0.02)
    assert trips.take() == {network: 0.02}


def test_the_least_counts_and_is_told_once():
    trips = ClientTrips()
    for rtt_s in (0.06, 0.02, 0.04):
        trips.note("203.0.113.7", rtt_s)
    assert trips.take() == {"203.0.113.0": 0.02}
    assert trips.take() == {}


@pytest.mark.parametrize(("peer", "rtt_s"), [("", 0.1), ("nobody", 0.1), ("10.0.0.1", 0.0)])
def test_what_is_no_round_trip_is_left_out(peer, rtt_s):
    trips = ClientTrips()
    trips.note(peer, rtt_s)
    assert trips.take() == {}


def test_networks_beyond_the_limit_are_left_out():
    trips = ClientTrips(most=3)
    for number in (1, 2, 3, 4, 1):
        trips.note(f"10.0.{number}.1", 0.1 / number)
    assert list(trips.take()) == ["10.0.1.0", "10.0.2.0", "10.0.3.0"]


class RouterOfOurs:
    """Takes measurements, or answers with another status."""

    def __init__(self, status=204):
        self.status = status
        self.told: asyncio.Queue[Measurements] = asyncio.Queue()

    async def take(self, request):
        self.told.put_nowait(read_json(await request.read(), Measurements, "measurements"))
        return web.Response(status=self.status)


@asynccontextmanager
async def serving(router):
    app = web.Application()
    app.router.add_post("/isochrone/measurements", router.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def telling(urls, trips):
    async with ClientSession() as session:
        teller = Teller(urls, "edge-1", trips, session, every_s=0.02)
        task = asyncio.get_running_loop().create_task(teller.keep())
        try:
            yield
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])


async def soon(awaitable):
    async with asyncio.timeout(SOON_S):
        return await awaitable


async def test_every_router_is_told_though_one_is_away_and_one_refuses():
    good, cross, trips = RouterOfOurs(), RouterOfOurs(503), ClientTrips()
    async with (
        serving(good) as one,
        serving(cross) as other,
        telling(["http://127.0.0.1:1", other, one], trips),
    ):
        for rtt_s in (0.02, 0.03):
            trips.note("203.0.113.7", rtt_s)
            for router in (good, cross):
                (told,) = (await soon(router.told.get())).samples
                assert told == Measurement("edge-1", rtt_s, "203.0.113.0")
    assert good.told.empty()
    assert cross.told.empty()


async def test_many_networks_go_in_several_messages():
    router, trips = RouterOfOurs(), ClientTrips()
    for number in range(MEASUREMENTS + 1):
        trips.note(f"10.0.{number}.1", 0.02)
    async with serving(router) as url, telling([url], trips):
        sizes = [len((await soon(router.told.get())).samples) for _ in range(2)]
    assert sizes == [MEASUREMENTS, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize(
    ("method", "path", "headers", "noted"),
    [
        pytest.param("POST", "/v2/models/m/infer", {}, True, id="a client's call"),
        pytest.param(
            "POST", "/v2/models/m/infer", {"x-isochrone-seq": "r.1=2"}, False, id="a router's call"
        ),
        pytest.param("GET", "/isochrone/report", {}, False, id="a probe"),
        pytest.param("GET", "/v2/health/ready", {}, False, id="a health check"),
    ],
)
async def test_only_what_clients_ask_by_themselves_is_noted(method, path, headers, noted):
    trips = ClientTrips()
    service = noting(lambda exchange: exchange.respond(200, [], b"{}"), trips)
    listener, public = Listener(service, Limits(), monotonic), bind("127.0.0.1:0")
    await listener.start(public)
    url = f"http://{address_of(public)}{path}"
    async with ClientSession() as http, http.request(method, url, headers=headers) as answer:
        assert answer.status == 200
    await listener.drain(0)
    taken = trips.take()
    assert list(taken) == (["127.0.0.0"] if noted else [])
    assert all(0 < rtt_s < 1 for rtt_s in taken.values())
