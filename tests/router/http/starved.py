"""A router's ways and probes where no descriptor is left: run as a process of its own."""

import asyncio
import os
import resource
import sys
from collections.abc import Sequence

from isochrone.router.fleet.ledger import Ledger
from isochrone.router.http.exchange import Exchange
from isochrone.router.http.limits import Limits
from isochrone.router.http.listener import Listener
from isochrone.router.http.sockets import address_of, bind
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import Member, Membership
from isochrone.router.probe.prober import Prober, Probing
from isochrone.router.process.clock import monotonic
from isochrone.router.upstream.event import Answer, End, Lost
from isochrone.router.upstream.upstreams import Upstreams
from isochrone.router.wire.http import Request
from isochrone.router.wire.report import HeldModel, Lease, ModelState, decode_endpoint_report

REPORT = (
    b'{"wire_version":1,"name":"%s","region":"eu","instance":"i","sequence":%d,"in_flight":0,'
    b'"slots":2,"ready":true,"draining":false,"models_generation":1,"models":[]}'
)


class Agent:
    def __init__(self, name: str) -> None:
        self.name = name
        self.sequence = 0

    def serve(self, exchange: Exchange) -> None:
        self.sequence += 1
        report = REPORT % (self.name.encode(), self.sequence)
        assert decode_endpoint_report(report) is not None
        exchange.respond(200, [(b"connection", b"close")], report)


async def called(upstreams: Upstreams, endpoint: Endpoint) -> str:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def heard(events: Sequence[Answer]) -> None:
        last = events[-1]
        if isinstance(last, Lost):
            ended.set_result(last.cause)
        elif isinstance(last, End):
            ended.set_result("answered")

    upstreams.of(endpoint).send(Request("GET", "/isochrone/report", []), heard)
    return await ended


async def main() -> None:
    agents = [Agent("a"), Agent("b")]
    listeners, endpoints = [], []
    for agent in agents:
        listener, listening = Listener(agent.serve, Limits(), monotonic), bind("127.0.0.1:0")
        endpoints.append(Endpoint(agent.name, f"http://{address_of(listening)}", "eu"))
        await listener.start(listening)
        listeners.append(listener)
    held = (HeldModel("m", "1", ModelState.WARM),)
    ledger = Ledger({"eu": 0.01}, "r1")
    membership = Membership([Member(e, 2, held) for e in endpoints], ["eu"], Lease())
    ledger.follow(membership, monotonic())
    condemned: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        upstreams = Upstreams(tasks, monotonic)
        prober = Prober(
            ledger=ledger,
            upstream=upstreams.of,
            condemned=lambda name, _: condemned.append(name),
            heard=lambda _: None,
            clock=monotonic,
            probing=Probing(interval_s=0.05),
        )

        async def sweep(count: int) -> None:
            for _ in range(count):
                prober.sweep(monotonic())
                await asyncio.sleep(0.02)

        await sweep(20)
        assert [site.out for site in ledger.sites()] == [None, None]
        upstreams.drop_idle()
        await asyncio.sleep(0.1)
        taken = use_up()
        outcomes = [await called(upstreams, endpoint) for endpoint in endpoints]
        assert outcomes == ["local", "local"], outcomes
        await sweep(60)
        assert condemned == [], "its own want of descriptors is not the agents' fault"
        assert [site.out for site in ledger.sites()] == [None, None]
        for one in taken:
            os.close(one)
        outcomes = [await called(upstreams, endpoint) for endpoint in endpoints]
        assert outcomes == ["answered", "answered"], outcomes
        await upstreams.close()
    for listener in listeners:
        await listener.drain(0.0)
    print("well")


def use_up() -> list[int]:
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return taken


if __name__ == "__main__":
    most = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main())
