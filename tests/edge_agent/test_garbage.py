"""What calls and loads leave behind is freed at once: nothing of it keeps itself alive."""

import asyncio
import gzip
import json
import logging
from collections import Counter
from contextlib import suppress

import pytest
from aiohttp import ClientError, ClientSession

from isochrone.edge_agent.app import serve
from isochrone.edge_agent.config import AdminConfig, AgentConfig
from isochrone.edge_agent.runtime.engines.onnx_engine import OnnxModel
from isochrone.edge_agent.runtime.engines.text_model import TextModel
from isochrone.router.errors import Unavailable
from tests.conftest import write_double, write_talk
from tests.garbage import garbage

START_S = 30.0
TIMEOUT = "x-request-timeout-seconds"
MANY = 40
SHORT, LONG = 1, 3000
TALK = json.dumps({"text_input": "a", "parameters": {"max_tokens": 100}})


class Client:
    """Asks an agent that runs in this process."""

    def __init__(self, session, public, admin):
        self._session = session
        self._public = public
        self._admin = admin

    async def infer(self, rows=SHORT, width=2, timeout_s=START_S, *, packed=False):
        tensor = {"name": "x", "shape": [rows, width], "datatype": "FP32"}
        body = json.dumps({"inputs": [{**tensor, "data": [1.0] * rows * width}]}).encode()
        more = {"content-encoding": "gzip"} if packed else {}
        return await self.post(
            "double/infer", gzip.compress(body) if packed else body, timeout_s, **more
        )

    async def post(self, path, body, timeout_s=START_S, **more):
        headers = {TIMEOUT: f"{timeout_s}", **more}
        url = f"{self._public}/v2/models/{path}"
        async with self._session.post(url, data=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def begin(self, path, body):
        """Leave after the first bytes of an answer."""
        async with self._session.post(f"{self._public}/v2/models/{path}", data=body) as answer:
            assert await answer.content.readany()
            answer.close()

    async def order(self, verb, version=None):
        url = f"{self._admin}/v2/repository/models/double/{verb}"
        body = {"parameters": {"version": version}} if version else {}
        async with self._session.post(url, json=body) as answer:
            return answer.status

    async def is_ready(self):
        with suppress(ClientError):
            async with self._session.get(f"{self._public}/v2/health/ready") as answer:
                return answer.status == 200
        return False


@pytest.fixture(autouse=True)
def nothing_is_logged(monkeypatch):
    """Pytest keeps what it sees logged, errors and all."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)


@pytest.fixture
async def client(tmp_path, unused_tcp_port_factory):
    write_double(tmp_path)
    write_talk(tmp_path)
    public, admin = (f"127.0.0.1:{unused_tcp_port_factory()}" for _ in range(2))
    config = AgentConfig(
        name="e",
        region="eu",
        packages=tmp_path,
        listen=public,
        admin=AdminConfig(listen=admin),
        keep_warm=("double",),
        slots=1,
        queue=8,
        drain_s=1.0,
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks, ClientSession() as session:
        agent = tasks.create_task(serve(config, stop))
        client = Client(session, f"http://{public}", f"http://{admin}")
        async with asyncio.timeout(START_S):
            while not await client.is_ready():  # noqa: ASYNC110  # its inner state
                await asyncio.sleep(0.01)
        yield client
        stop.set()
        assert await agent == 0


async def together(*calls):
    return Counter(await asyncio.gather(*calls))


async def test_calls_that_are_answered_leave_nothing(client):
    with garbage() as found:
        for rows in (SHORT, LONG):
            for _ in range(MANY):
                assert await client.infer(rows) == 200
        assert (await together(*(client.infer() for _ in range(8))))[200]
    assert found == {}


async def test_calls_that_are_refused_leave_nothing(client):
    with garbage() as found:
        assert (await together(*(client.infer(LONG) for _ in range(MANY))))[503]
        assert (await together(*(client.infer(LONG, timeout_s=1e-3) for _ in range(8))))[504]
        assert await client.infer(width=3) == 400
        assert await client.post("double/infer", "{") == 400
        assert await client.post("nothing/infer", "{}") == 404
    assert found == {}


async def test_calls_that_nobody_waits_for_leave_nothing(client):
    with garbage() as found:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(client.infer(LONG)) for _ in range(MANY)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for call in asked:
                call.cancel()
        assert await client.infer() == 200
    assert found == {}


async def test_calls_that_fail_leave_nothing(client, monkeypatch):
    monkeypatch.setattr(OnnxModel, "compute", lambda *_: 1 // 0)
    with garbage() as found:
        for more in ({}, {"rows": LONG}, {"packed": True}):
            assert await together(*(client.infer(**more) for _ in range(4))) == {500: 4}
    assert found == {}


@pytest.mark.parametrize("path", ["talk/generate", "talk/generate_stream"])
async def test_calls_that_share_no_run_leave_nothing(client, monkeypatch, path):
    assert await client.post(path, TALK) == 200
    with garbage() as found:
        assert await together(*(client.post(path, TALK) for _ in range(4))) == {200: 4}
        assert (await together(*(client.post(path, TALK, 1e-3) for _ in range(8))))[504]
        with monkeypatch.context() as broken:
            broken.setattr(TextModel, "_prompt", lambda *_: 1 // 0)
            assert await together(*(client.post(path, TALK) for _ in range(4))) == {500: 4}
    assert found == {}


async def test_streams_that_nobody_reads_to_the_end_leave_nothing(client):
    assert await client.post("talk/generate", TALK) == 200
    with garbage() as found:
        for _ in range(4):
            await client.begin("talk/generate_stream", TALK)
        assert await client.post("talk/generate", TALK) == 200
    assert found == {}


async def test_streams_that_break_off_leave_nothing(client, monkeypatch):
    assert await client.post("talk/generate", TALK) == 200
    first = TextModel._logits

    async def only_first(model, ids):
        if len(ids) > model._generate.context:
            raise Unavailable("enough")
        return await first(model, ids)

    monkeypatch.setattr(TextModel, "_logits", only_first)
    with garbage() as found:
        for _ in range(4):
            assert await client.post("talk/generate_stream", TALK) == 200
    assert found == {}


async def test_loads_leave_nothing(client):
    with garbage() as found:
        for _ in range(3):
            assert await client.order("unload") == 200
            assert await client.order("load") == 200
    assert found == {}


async def test_loads_that_fail_leave_nothing(client, tmp_path):
    (file,) = tmp_path.glob("double/1/*.onnx")
    whole = file.read_bytes()
    with garbage() as found:
        assert await client.order("unload") == 200
        file.write_bytes(whole[:-1] + b"x")
        assert await client.order("load") == 501
        assert await client.order("load", "1") == 501
        assert await client.order("load", "9") == 404
        file.write_bytes(whole)
        async with asyncio.timeout(START_S):
            while await client.order("load") != 200:  # noqa: ASYNC110  # it backs off
                await asyncio.sleep(0.05)
    assert found == {}
