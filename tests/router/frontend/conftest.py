"""A whole router in the test's own loop, before endpoints that do what a test tells them."""

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from random import Random
from typing import cast

import aiohttp
import msgspec
import pytest
from blockbuster import BlockBuster

from isochrone.router.app import Router, load
from isochrone.router.config import RouterConfig
from isochrone.router.http.exchange import Exchange
from isochrone.router.http.limits import Limits
from isochrone.router.http.listener import Listener
from isochrone.router.http.sockets import address_of, bind
from isochrone.router.members.store import Store
from isochrone.router.process.clock import monotonic, wall
from isochrone.router.wire.http import first
from isochrone.router.wire.report import (
    LOAD_HEADER,
    WIRE_VERSION,
    CallReport,
    EndpointReport,
    HeldModel,
    ModelState,
    encode_call_report,
)

REGIONS = """
regions:
  eu-west: {location: {latitude: 53.3, longitude: -6.3}, jurisdiction: eu}
  us-east: {location: {latitude: 39.0, longitude: -77.5}, jurisdiction: us}
networks:
  203.0.113.0/24: {region: us-east}
tenants:
  default: {require: any}
  acme: {require: [eu], keys_file: keys}
  narrow: {require: any, models: [other], keys_file: keys}
  small: {require: any, quota: {requests_per_s: 0.1, burst: 2}, keys_file: keys}
models:
  configured: {require: any}
data_classes:
  health: {require: [eu], tenants: [acme]}
"""
KEYS = {"acme": "acme-key", "narrow": "narrow-key", "small": "small-key"}


class Reporting:
    """An exchange whose answers bring a load report, as all of an agent's do."""

    def __init__(self, exchange: Exchange, report: Callable[[], tuple[bytes, bytes]]) -> None:
        self._exchange = exchange
        self._report = report

    def __getattr__(self, name: str):
        return getattr(self._exchange, name)

    def respond(self, status, headers, body) -> None:
        self._exchange.respond(status, self._with_report(headers), body)

    def start(self, status, headers) -> None:
        self._exchange.start(status, self._with_report(headers))

    def _with_report(self, headers):
        return headers if first(headers, LOAD_HEADER) else [*headers, self._report()]


class ScriptedEndpoint:
    """An endpoint whose inference does what `behave` says; it counts what it is asked.

    Its answers bring a load report while it `vouches`.
    """

    def __init__(self, name: str, region: str, tasks: asyncio.TaskGroup) -> None:
        self.name = name
        self.region = region
        self.behave: Callable[[Exchange], None] = self.answer
        self.state = ModelState.WARM
        self.deaf = False
        self.vouches = True
        self.slots = 4
        self.wakes = 0
        self.asked: list[dict[bytes, bytes]] = []
        self.sequence = 0
        self._listener = Listener(self._serve, Limits(), monotonic)
        self._socket = bind("127.0.0.1:0")
        self.url = f"http://{address_of(self._socket)}"
        del tasks

    async def start(self) -> None:
        await self._listener.start(self._socket)

    async def stop(self) -> None:
        await self._listener.drain(0.0)

    def enrolment(self, **changes: object) -> dict:
        """What it says when it joins."""
        return {
            "wire_version": 1,
            "name": self.name,
            "instance": "i1",
            "boot_id": "b1",
            "sequence": 1,
            "url": self.url,
            "region": self.region,
            "slots": 4,
            "models": [{"name": "digits", "version": "1", "state": "warm"}],
            **changes,
        }

    def answer(self, exchange: Exchange, infer_s: float = 0.001) -> None:
        """What a good endpoint says."""
        body = json.dumps({"model_name": "digits", "served_by": self.name}).encode()
        fields = [(b"content-type", b"application/json"), self.report(infer_s)]
        exchange.respond(200, fields, body)

    def report(self, infer_s: float = 0.001) -> tuple[bytes, bytes]:
        self.sequence += 1
        report = CallReport(
            instance=self.name,
            sequence=self.sequence,
            in_flight=0,
            slots=self.slots,
            latency_s=infer_s,
            wait_s=0.0,
            infer_s=infer_s,
            models_generation=1,
        )
        return b"endpoint-load-metrics", encode_call_report(report)

    def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.path == "/isochrone/report":
            if not self.deaf:
                exchange.respond(200, [], self._full_report())
        elif request.path == "/isochrone/wake":
            self.wakes += 1
            self.state = ModelState.WARM
            exchange.respond(202, [], b"{}")
        else:
            self.asked.append(dict(request.headers))
            made = Reporting(exchange, lambda: self.report(0.0)) if self.vouches else exchange
            self.behave(cast(Exchange, made))

    def _full_report(self) -> bytes:
        self.sequence += 1
        return msgspec.json.encode(
            EndpointReport(
                wire_version=WIRE_VERSION,
                name=self.name,
                region=self.region,
                instance=self.name,
                sequence=self.sequence,
                in_flight=0,
                slots=self.slots,
                ready=True,
                draining=False,
                models_generation=1,
                models=(HeldModel("digits", "1", self.state, load_s=0.5),),
            )
        )


class RunningRouter:
    """A router and a client for it."""

    def __init__(self, router: Router, url: str, client: aiohttp.ClientSession) -> None:
        self.router = router
        self.url = url
        self._client = client

    async def call(
        self, method: str, path: str, body: bytes | BytesIO | dict | None = None, **headers: str
    ) -> tuple[int, dict, dict[str, str]]:
        """Status, JSON body and header fields of one call."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._client.request(
            method, self.url + path, data=data, headers=fields
        ) as response:
            text = await response.read()
            fields = {name.lower(): value for name, value in response.headers.items()}
            return response.status, json.loads(text) if text else {}, fields

    async def infer(self, model: str = "digits", **headers: str):
        return await self.call("POST", f"/v2/models/{model}/infer", b"opaque", **headers)

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Wait, within two seconds, until the router has come to see it so."""
        async with asyncio.timeout(2):
            while not condition():  # noqa: ASYNC110  # the condition is the router's inner state
                await asyncio.sleep(0.005)


StartRouter = Callable[..., Awaitable[RunningRouter]]
StartEndpoint = Callable[..., Awaitable[ScriptedEndpoint]]


def write_config(folder: Path, scripted: list[ScriptedEndpoint], **changes: object) -> Path:
    """`router.yaml` (JSON is YAML), `regions.yaml` and the keys."""
    proxies = json.dumps(changes.pop("trusted_proxies", []))
    geoip = changes.pop("geoip_database", None)
    lines = [f"trusted_proxies: {proxies}", f"geoip_database: {json.dumps(geoip)}"]
    (folder / "regions.yaml").write_text(REGIONS + "\n".join(lines if geoip else lines[:1]))
    lines = [f"{t} sha256:{sha256(key.encode()).hexdigest()}" for t, key in KEYS.items()]
    (folder / "keys").write_text("\n".join(lines) + "\n")
    config = {
        "name": "r1",
        "region": "eu-west",
        "regions_file": "regions.yaml",
        "probe": {"interval_s": 0.1, "timeout_s": 0.2},
        "endpoints": [
            {"name": e.name, "url": e.url, "region": e.region, "tier": "edge"} for e in scripted
        ],
        **changes,
    }
    path = folder / "router.yaml"
    path.write_text(json.dumps(config))
    return path


@asynccontextmanager
async def running(
    config: RouterConfig, law, rng: Random, *, joined: bool = True
) -> AsyncIterator[RunningRouter]:
    """`joined`: as if it had been there for long, so that every agent has had time to join."""
    store = Store(config.state_file, wall)
    async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as client:
        router = Router(config, law, store, clock=monotonic, wall=wall, rng=rng, tasks=tasks)
        listener = Listener(router.serve, config.limits, monotonic)
        public = bind("127.0.0.1:0")
        url = f"http://{address_of(public)}"
        await listener.start(public)

        async def tick() -> None:
            while True:
                router.tick()
                await asyncio.sleep(0.005)

        background = [tasks.create_task(work) for work in (tick(), router.follow_geoip())]
        made = RunningRouter(router, url, client)
        try:
            if joined:
                router.readiness.joined_s = -math.inf
                await made.settled(lambda: bool(router.readiness))
            yield made
            assert not router.core.housekeeping.failing
        finally:
            await client.close()
            await listener.drain(0.0)
            for task in background:
                task.cancel()
            await router.close()
            store.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture
async def start_endpoint(stack) -> StartEndpoint:
    tasks = await stack.enter_async_context(asyncio.TaskGroup())

    async def start(name: str, region: str = "eu-west") -> ScriptedEndpoint:
        endpoint = ScriptedEndpoint(name, region, tasks)
        await endpoint.start()
        stack.push_async_callback(endpoint.stop)
        return endpoint

    return start


@pytest.fixture
async def start_router(stack, tmp_path) -> StartRouter:
    # once a router serves, nothing of it may hold the event loop
    guard = BlockBuster("isochrone.router")

    async def start(*endpoints: ScriptedEndpoint, **changes: object) -> RunningRouter:
        guard.deactivate()
        joined = bool(changes.pop("joined", True))
        config, law = load(write_config(tmp_path, list(endpoints), **changes))
        router: RunningRouter = await stack.enter_async_context(
            running(config, law, Random(1), joined=joined)
        )
        stack.callback(guard.deactivate)
        if "log" not in changes:  # lines go to the page cache, which is taken not to block
            guard.activate()
        return router

    return start


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
