"""An agent joins a router that is away, refuses, redirects or answers rubbish, and stays joined."""

import asyncio
import logging
from contextlib import asynccontextmanager
from random import Random

import msgspec
import pytest
from aiohttp import ClientSession, web

from isochrone.edge_agent.enrol import Enroller
from isochrone.router.wire.report import WIRE_VERSION, Enrolment, Lease, decode_enrolment

SOON_S = 10


class Eager(Random):
    """No pause between tries."""

    def uniform(self, a, b):
        assert 0 < a <= b <= 5
        return 0.0


class RouterOfOurs:
    """Answers enrolments from a script, the last entry for ever, and writes down what came."""

    def __init__(self, script):
        self._script = list(script)
        self.joined: asyncio.Queue[Enrolment] = asyncio.Queue()
        self.left: asyncio.Queue[str] = asyncio.Queue()

    async def join(self, request):
        self.joined.put_nowait(decode_enrolment(await request.read()))
        status, body, headers = self._script.pop(0) if self._script[1:] else self._script[0]
        return web.Response(status=status, body=body, headers=headers)

    async def leave(self, request):
        self.left.put_nowait(request.match_info["name"])
        return web.json_response({})


def lease(renew_s=60.0):
    return 200, msgspec.json.encode(Lease(15.0, renew_s)), {}


@asynccontextmanager
async def serving(router, port=0):
    app = web.Application()
    app.router.add_post("/isochrone/agents", router.join)
    app.router.add_delete("/isochrone/agents/{name}", router.leave)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def enrolling(port, host="127.0.0.1"):
    sequence = iter(range(1, 1_000_000))

    def enrolment():
        return Enrolment(
            wire_version=WIRE_VERSION,
            name="edge-1",
            instance="i",
            boot_id="b",
            sequence=next(sequence),
            url="http://127.0.0.1:1",
            region="eu-west",
            slots=2,
            models=(),
        )

    async with ClientSession() as session:
        enroller = Enroller(f"http://{host}:{port}", enrolment, session, Eager())
        task = asyncio.get_running_loop().create_task(enroller.keep())
        try:
            yield enroller
        finally:
            task.cancel()
            await asyncio.wait([task])


class Told(logging.Handler):
    """The levels of what the enroller logs, as they come."""

    def __init__(self):
        super().__init__()
        self.levels: asyncio.Queue[int] = asyncio.Queue()

    def emit(self, record):
        self.levels.put_nowait(record.levelno)


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "isochrone.agent.enrol")
    handler = Told()
    logger = logging.getLogger("isochrone.agent.enrol")
    logger.addHandler(handler)
    yield handler.levels
    logger.removeHandler(handler)


async def soon(awaitable):
    async with asyncio.timeout(SOON_S):
        return await awaitable


async def test_it_joins_renews_and_leaves():
    router = RouterOfOurs([lease(renew_s=0.1)])
    async with serving(router) as port, enrolling(port) as enroller:
        sequences = [(await soon(router.joined.get())).sequence for _ in range(3)]
        assert sequences == sorted(set(sequences))
        await enroller.leave()
        assert await soon(router.left.get()) == "edge-1"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((403, b'{"error":"outside the allowed networks"}', {}), id="refused"),
        pytest.param((503, b"", {}), id="overloaded"),
        pytest.param((200, b"rubbish", {}), id="rubbish"),
        pytest.param((200, b'{"lease_s":15,"renew_s":0}', {}), id="a lease to renew at once"),
        pytest.param((200, b'{"lease_s":15,"renew_s":-1}', {}), id="a lease from the past"),
        pytest.param((200, b'{"lease_s":15,"renew_s":1e9}', {}), id="a lease for ever"),
        pytest.param((302, b"", {"Location": "http://127.0.0.1:1/"}), id="redirected"),
    ],
)
async def test_it_asks_again_until_it_is_let_in_and_tells_once(answer, told):
    router = RouterOfOurs([answer, answer, answer, lease()])
    async with serving(router) as port, enrolling(port):
        for _ in range(4):
            await soon(router.joined.get())
        assert [await soon(told.get()) for _ in range(2)] == [logging.ERROR, logging.INFO]
        assert router.joined.empty()
    assert told.empty()


async def test_a_name_that_cannot_be_one_ends_nothing(told):
    async with enrolling(1, host=f"{'a' * 64}.example") as enroller:
        assert await soon(told.get()) == logging.WARNING
        await enroller.leave()
        assert await soon(told.get()) == logging.INFO


async def test_a_router_that_comes_later_is_joined(unused_tcp_port, told):
    async with enrolling(unused_tcp_port) as enroller:
        assert await soon(told.get()) == logging.WARNING
        await enroller.leave()  # nobody is there to be told: no harm
        router = RouterOfOurs([lease()])
        async with serving(router, unused_tcp_port):
            assert (await soon(router.joined.get())).name == "edge-1"


async def test_a_change_is_told_at_once_and_many_are_told_together():
    router = RouterOfOurs([lease(renew_s=60)])
    async with serving(router) as port, enrolling(port) as enroller:
        await soon(router.joined.get())
        for _ in range(20):
            enroller.renew_soon()
        await soon(router.joined.get())
        enroller.renew_soon()
        await soon(router.joined.get())
        assert router.joined.empty()
