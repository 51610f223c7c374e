"""A real agent process on loopback: real clients, wakes, overload, a broken package, the drain."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from random import Random

import msgspec
import numpy as np
import pytest
import yaml
from aiohttp import ClientSession, web

from isochrone.edge_agent.app import Agent
from isochrone.edge_agent.config import AgentConfig, ModelConfig, check
from isochrone.edge_agent.lifecycle import Drain, Listening
from isochrone.edge_agent.machine import Machine
from isochrone.edge_agent.runtime.engines.frames import Kind
from isochrone.edge_agent.runtime.engines.process_engine import Worker
from isochrone.router.errors import ConfigError
from isochrone.router.wire.http import Request
from isochrone.router.wire.report import (
    LOAD_HEADER,
    WIRE_HEADER,
    WIRE_VERSION,
    Enrolment,
    Lease,
    ModelState,
    decode_call_report,
    decode_endpoint_report,
    decode_enrolment,
)

START_S = 30
BODY_BYTES = 100_000
TOO_LARGE = b"0" * (BODY_BYTES + 1)


class AgentProcess:
    def __init__(self, folder, store, **config):
        self.folder = folder
        self.access_log = folder / "access.jsonl"
        self._log = (folder / "agent.log").open("w+")
        content = {
            "name": "edge-1",
            "region": "eu-west",
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "packages": str(store),
            "access_log": "access.jsonl",
            "log": {"format": "json"},
            **config,
        }
        path = folder / "agent.yaml"
        path.write_text(yaml.safe_dump(content))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "isochrone.edge_agent", str(path)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.url = ""
        self.admin = ""

    def wait_ready(self):
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("ready http://"), self.log()
        self.url = line.split()[1]
        self.admin = self.events("listening")[0]["admin"]
        return self

    @property
    def address(self):
        return self.url.removeprefix("http://")

    def log(self):
        return (self.folder / "agent.log").read_text()

    def events(self, name):
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    def stop(self):
        self.process.terminate()
        return self.process.wait(START_S)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(START_S)
        assert self.process.stdout
        self.process.stdout.close()
        self._log.close()


@contextmanager
def running(folder, store, **config):
    agent = AgentProcess(folder, store, **config)
    try:
        yield agent.wait_ready()
    finally:
        agent.end()


@pytest.fixture(scope="module")
def agent(tmp_path_factory, store):
    more = {"keep_warm": ["double"], "limits": {"body_bytes": BODY_BYTES}}
    with running(tmp_path_factory.mktemp("agent"), store, **more) as agent:
        yield agent


@pytest.fixture
async def http():
    async with ClientSession() as session:
        yield session


def body_of(rows=1):
    data = [[1.0, 2.0]] * rows
    part = {"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [part]})


async def test_a_stream_comes_in_pieces_over_the_wire(agent, http):
    body = {"text_input": "a", "parameters": {"temperature": 0, "max_tokens": 3}}
    async with http.post(f"{agent.url}/v2/models/talk/generate_stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) async for line in answer.content if line.strip()]
    assert [event["text_output"] for event in events] == ["b", "c", "d"]


async def test_a_client_that_leaves_a_stream_gives_its_slot_back(agent, http):
    body = {"text_input": "a", "parameters": {"max_tokens": 1000}}
    async with http.post(f"{agent.url}/v2/models/talk/generate_stream", json=body) as answer:
        await answer.content.readline()
        answer.close()
    await wait_in_flight(agent, http, 0)


async def wait_in_flight(agent, http, count):
    async with asyncio.timeout(10):
        while (await report_of(agent, http)).in_flight != count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)


async def report_of(agent, http):
    async with http.get(f"{agent.url}/isochrone/report") as answer:
        assert answer.status == 200
        report = decode_endpoint_report(await answer.read())
    assert report is not None
    return report


def states(report):
    return {model.name: model.state for model in report.models}


async def test_the_report_tells_everything(agent, http):
    headers = {"x-isochrone-seq": "router-eu=1234"}
    url = f"{agent.url}/v2/models/double/infer"
    async with http.post(url, data=body_of(), headers=headers) as answer:
        call = decode_call_report(answer.headers[LOAD_HEADER.decode()].encode())
    one, two = await report_of(agent, http), await report_of(agent, http)
    assert (one.name, one.ready, one.draining) == ("edge-1", True, False)
    assert call is not None
    assert call.instance == one.instance == two.instance
    assert call.sequence < one.sequence < two.sequence
    assert one.seen == {"router-eu": 1234}
    double = next(model for model in one.models if model.name == "double")
    assert double.state is ModelState.WARM
    assert double.load_s
    assert double.active is None, "an old router asks like this, and refuses what it does not know"


async def test_the_report_says_which_version_is_active(agent, http):
    headers = {WIRE_HEADER.decode(): str(WIRE_VERSION)}
    async with http.get(f"{agent.url}/isochrone/report", headers=headers) as answer:
        report = decode_endpoint_report(await answer.read())
    assert report is not None
    assert {model.active for model in report.models if model.name == "double"} == {True}


async def test_every_request_has_an_id_and_a_line(agent, http):
    url = f"{agent.url}/v2/models/double/infer"
    async with http.post(url, data=body_of(), headers={"x-request-id": "seen-1"}) as answer:
        assert answer.headers["x-request-id"] == "seen-1"
    async with http.post(url, data="{") as answer:
        assert answer.status == 400
        made = answer.headers["x-request-id"]
    lines = [json.loads(line) for line in agent.access_log.read_text().splitlines()]
    told = {line["request_id"]: line["status"] for line in lines}
    assert (told["seen-1"], told[made]) == (200, 400)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("POST", "/v2/models/double/infer", b"\xff", 400, id="rubbish"),
        pytest.param("GET", "/v2/models/double/infer", b"", 405, id="method"),
        pytest.param("GET", "/isochrone/wake", b"", 405, id="wake_with_get"),
        pytest.param("POST", "/isochrone/report", b"", 405, id="report_with_post"),
        pytest.param("POST", "/isochrone/wake", b"{}", 400, id="wake_of_nothing"),
        pytest.param("POST", "/isochrone/wake", b'{"model":"a","x":1}', 400, id="wake_with_more"),
        pytest.param("POST", "/isochrone/wake", b'{"model":"nobody"}', 404, id="unknown_model"),
        pytest.param("GET", "/isochrone/sample", b"", 405, id="sample_with_get"),
        pytest.param("POST", "/isochrone/sample", b"{}", 400, id="sample_of_nothing"),
        pytest.param("POST", "/isochrone/sample", b" " * 65_537, 413, id="long_sample"),
        pytest.param("POST", "/isochrone/wake", b" " * 65_537, 413, id="long_wake"),
        pytest.param("POST", "/isochrone/sample", b'{"model":"nobody"}', 404, id="sample_unknown"),
        pytest.param(
            "POST", "/v2/models/double/infer", b"0" * (BODY_BYTES + 1), 413, id="too_large"
        ),
        pytest.param("GET", "/metrics", b"", 404, id="metrics_on_the_public_side"),
    ],
)
async def test_what_is_wrong_is_refused(agent, http, method, path, body, status):
    async with http.request(method, f"{agent.url}{path}", data=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]


async def test_metrics_and_loading_are_on_the_admin_side(agent, http):
    states_after = {"unload": ModelState.COLD, "load": ModelState.WARM}
    for count, verb in enumerate(("unload", "load", "load", "unload")):
        before = len(agent.events("model_loaded"))
        async with http.post(f"{agent.admin}/v2/repository/models/talk/{verb}") as answer:
            assert answer.status == 200
        assert states(await report_of(agent, http))["talk"] is states_after[verb]
        assert len(agent.events("model_loaded")) - before == (count == 1)
    async with http.get(f"{agent.admin}/metrics") as answer:
        text = await answer.text()
    for name in ("load_seconds_count", "requests_total", "in_flight", "wait_seconds_bucket"):
        assert f"isochrone_agent_{name}" in text
    assert 'isochrone_agent_variant{model="talk",variant="fp32",version="1"} 1.0' in text
    async with http.get(f"{agent.admin}/health") as answer:
        assert await answer.json() == {"phase": "ready", "healthy": True}


async def test_wakes_cause_one_load_and_tell_how_long(tmp_path, store, http):
    with running(tmp_path, store) as agent:
        assert states(await report_of(agent, http))["double"] is ModelState.COLD

        async def wake():
            async with http.post(f"{agent.url}/isochrone/wake", json={"model": "double"}) as answer:
                assert answer.status == 202
                return await answer.json()

        async def infer():
            url = f"{agent.url}/v2/models/double/infer"
            async with http.post(url, data=body_of()) as answer:
                return answer.status

        first = await wake()
        assert first["version"] == "1"
        assert first["expected_s"] > 0
        statuses = await asyncio.gather(*(infer() for _ in range(8)))
        await asyncio.gather(*(wake() for _ in range(20)))
        assert set(statuses) == {200}
        assert await wake() == {
            "model": "double",
            "version": "1",
            "state": "warm",
            "expected_s": 0.0,
        }
        loads = agent.events("model_loaded")
        assert len(loads) == 1
        assert loads[0]["load_s"] > 0


async def sampled(agent, http, model, version=None, **headers):
    body = {"model": model} if version is None else {"model": model, "version": version}
    url = f"{agent.url}/isochrone/sample"
    async with http.post(url, json=body, headers=headers) as answer:
        report = answer.headers.get(LOAD_HEADER.decode(), "")
        return answer.status, await answer.json(), decode_call_report(report.encode())


@pytest.mark.parametrize("model", ["double", "words", "talk"])
async def test_a_model_answers_its_own_sample_like_a_request(agent, http, model):
    async with http.post(f"{agent.admin}/v2/repository/models/{model}/load") as answer:
        assert answer.status == 200
    status, body, report = await sampled(agent, http, model, **{"x-isochrone-seq": "router-us=7"})
    assert (status, body) == (200, {})
    assert report is not None
    assert report.infer_s > 0
    assert (report.seq_seen, report.slots) == (7, 2)
    assert (await sampled(agent, http, model, "1"))[0] == 200


async def test_a_sample_loads_nothing(tmp_path, store, http):
    with running(tmp_path, store) as agent:
        status, body, _ = await sampled(agent, http, "double")
        assert (status, body["code"]) == (503, "unavailable")
        assert states(await report_of(agent, http))["double"] is ModelState.COLD
        assert not agent.events("model_loaded")


async def test_samples_of_a_model_run_one_at_a_time_and_wait_for_a_slot(tmp_path, store, http):
    limits = {"keep_warm": ["double", "words"], "slots": 1, "queue": 4, "min_service_s": 0.3}
    urgent = {"x-isochrone-priority": "1"}
    with running(tmp_path, store, **limits) as agent:
        asked = [sampled(agent, http, name, **urgent) for name in ["double", "words"] * 3]
        answers = await asyncio.gather(*asked)
        assert sorted(status for status, _, _ in answers) == [200, 200, 503, 503, 503, 503]
        refused = {body["code"] for status, body, _ in answers if status == 503}
        assert refused == {"overloaded"}
        waits_s = sorted(report.wait_s for status, _, report in answers if status == 200)
        assert waits_s[0] < 0.2 < waits_s[1]
        assert (await sampled(agent, http, "double"))[0] == 200, "the next one may run"


async def test_more_than_slots_and_queue_is_refused_at_once(tmp_path, store, http):
    limits = {"keep_warm": ["double"], "slots": 1, "queue": 1, "min_service_s": 0.5}
    with running(tmp_path, store, **limits) as agent:
        url = f"{agent.url}/v2/models/double/infer"
        answers = []

        async def infer():
            async with http.post(url, data=body_of()) as answer:
                answers.append((answer.status, answer.headers.get("retry-after")))

        began_s = time.monotonic()
        await asyncio.gather(*(infer() for _ in range(6)))
        assert [status for status, _ in answers] == [503] * 4 + [200] * 2
        assert all(int(after) >= 1 for status, after in answers if status == 503)
        assert time.monotonic() - began_s >= 1.0


async def test_a_broken_package_keeps_nobody_else_from_serving(tmp_path, store, http):
    mixed = tmp_path / "packages"
    shutil.copytree(store, mixed)
    (mixed / "words" / "1" / "model.yaml").write_text("name: words\n")
    flipped = mixed / "talk" / "1" / "model.onnx"
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"\0")
    keep_warm = ["words", "talk", "double"]
    with running(tmp_path, mixed, keep_warm=keep_warm) as agent:
        found = states(await report_of(agent, http))
        assert (found["words"], found["double"]) == (ModelState.ABSENT, ModelState.WARM)
        assert re.search("words/1/model.yaml", agent.events("package_broken")[0]["error"])
        async with http.post(f"{agent.url}/v2/models/double/infer", data=body_of()) as answer:
            assert answer.status == 200
        talk = {"text_input": "a"}
        async with http.post(f"{agent.url}/v2/models/talk/generate", json=talk) as answer:
            assert answer.status == 501
            assert "retry-after" not in answer.headers
            assert str(tmp_path) not in await answer.text()


async def wait_state(agent, http, model, state):
    async with asyncio.timeout(START_S):
        while states(await report_of(agent, http))[model] is not state:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_a_package_that_is_mended_becomes_warm_without_being_asked_for(tmp_path, store, http):
    packages = tmp_path / "packages"
    shutil.copytree(store, packages)
    graph = packages / "talk" / "1" / "model.onnx"
    sound = graph.read_bytes()
    graph.write_bytes(sound[:-1] + b"\0")
    with running(tmp_path, packages, keep_warm=["talk"]) as agent:
        assert states(await report_of(agent, http))["talk"] is ModelState.COLD
        graph.write_bytes(sound)
        await wait_state(agent, http, "talk", ModelState.WARM)


async def test_an_agent_that_loads_ends_when_its_drain_is_over(tmp_path, store, http):
    with running(tmp_path, store, min_load_s=60, drain_s=0.2) as agent:
        for model in ("double", "talk"):
            async with http.post(f"{agent.url}/isochrone/wake", json={"model": model}) as answer:
                assert answer.status == 202
        assert await asyncio.to_thread(agent.stop) == 0
        assert agent.events("stopped")


async def test_an_agent_that_nobody_listens_to_serves_and_ends_well(tmp_path, store, http):
    agent = AgentProcess(tmp_path, store, keep_warm=["double"])
    try:
        assert agent.process.stdout
        agent.process.stdout.close()
        async with asyncio.timeout(START_S):
            while not agent.events("model_loaded"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        agent.url = agent.events("listening")[0]["url"]
        async with http.post(f"{agent.url}/v2/models/double/infer", data=body_of()) as answer:
            assert answer.status == 200
        assert await asyncio.to_thread(agent.stop) == 0
        assert "BrokenPipe" not in agent.log()
    finally:
        agent.end()


@pytest.fixture
async def inside(tmp_path, store):
    """An agent in this process, without sockets, that holds two versions of `double`."""
    packages = tmp_path / "packages"
    shutil.copytree(store / "double", packages / "double")
    shutil.copytree(packages / "double" / "1", packages / "double" / "2")
    manifest = packages / "double" / "2" / "model.yaml"
    manifest.write_text(re.sub("(?m)^version: .*$", "version: '2'", manifest.read_text()))
    config = AgentConfig(name="edge-1", region="eu-west", packages=packages, keep_warm=("double",))
    agent = Agent(config, clock=time.monotonic, wall=lambda: 0.0, rng=Random(1))
    yield agent
    await agent.pool.close()


async def test_a_kernel_that_tells_nothing_keeps_no_agent_from_starting(
    tmp_path, store, monkeypatch
):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_bytes(b"MemTotal: \xff kB\n")
    monkeypatch.setattr(
        "isochrone.edge_agent.app.Machine", lambda folder: Machine(folder, tmp_path)
    )
    config = AgentConfig(name="edge-1", region="eu-west", packages=store)
    agent = Agent(config, clock=time.monotonic, wall=lambda: 0.0, rng=Random(1))
    await agent.pool.load("double")
    await agent.relief.look()
    assert agent.pool.state("double") is ModelState.WARM
    await agent.pool.close()


async def test_no_mistake_of_a_package_ends_the_agent(inside, monkeypatch, caplog):
    async def load(*_):
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(inside.pool, "load", load)
    inside.lifecycle.on(Listening())
    await inside.warm(["double"])
    assert inside.lifecycle.ready
    assert [str(record.exc_info[1]) for record in caplog.records] == ["not foreseen"]


async def test_a_change_of_version_is_noted_and_told_to_routers(inside, monkeypatch):
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(inside, "tell_routers", lambda: told.append(("routers",)))
    kept = asyncio.get_running_loop().create_task(inside.repository.keep(0.0))
    await asyncio.sleep(0)
    await inside.repository.load("double", "2")
    await inside.repository.load("double", "1")
    await inside.repository.rollback("double")
    told.clear()
    inside.repository.arrived(inside.pool.package("double", "1"))
    assert told == [("routers",)]
    kept.cancel()
    await asyncio.wait([kept])
    await inside.notes.write()
    noted = [(one.kind, one.model, one.version) for one in await inside.notes.oldest()]
    assert noted == [("updated", "double", "1"), ("rolled_back", "double", "2")]
    await inside.notes.close()


async def test_a_request_that_is_not_asked_again_is_noted(tmp_path, store, monkeypatch):
    exchange = Worker.exchange

    def dying(worker, frame):
        if frame.kind is Kind.ASK and np.float32(666).tobytes() in frame.body:
            worker.kill()
        return exchange(worker, frame)

    monkeypatch.setattr(Worker, "exchange", dying)
    config = AgentConfig(
        name="edge-1",
        region="eu-west",
        packages=store,
        models={"double": ModelConfig(isolation="process")},
        state_file=tmp_path / "agent.state",
    )
    agent = Agent(config, clock=time.monotonic, wall=lambda: 0.0, rng=Random(1))
    agent.lifecycle.on(Listening())
    body = body_of().replace("2.0", "666.0").encode()
    poison = Request("POST", "/v2/models/double/infer", [], body, received_s=time.monotonic())
    for _ in range(2):
        answer = await agent.public.handle(poison)
        assert answer.status == 500
    await agent.notes.write()
    noted = [(one.kind, one.model, one.version) for one in await agent.notes.oldest()]
    assert noted.count(("quarantined", "double", "1")) == 1
    await agent.pool.close()
    await agent.notes.close()


@pytest.mark.parametrize("what", ["wake", "sample"])
async def test_who_leaves_takes_no_wishes(inside, what):
    inside.lifecycle.on(Listening())
    await inside.warm(["double"])
    asked = Request("POST", f"/isochrone/{what}", [], b'{"model":"double"}')
    assert (await inside.public.handle(asked)).status in (200, 202)
    inside.lifecycle.on(Drain())
    answer = await inside.public.handle(asked)
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "unavailable")


async def test_loading_is_of_the_newest_version_and_unloading_of_all(inside):
    def found():
        return {model.version: model.state for model in inside.pool.held()}

    await inside.pool.load("double", "1")
    kept = asyncio.get_running_loop().create_task(inside.repository.keep(0.0))
    await asyncio.sleep(0)
    for verb, state in (("load", ModelState.WARM), ("unload", ModelState.COLD)):
        order = Request("POST", f"/v2/repository/models/double/{verb}", [], b"")
        assert (await inside.admin.handle(order)).status == 200
        assert found() == {"1": state, "2": state}
    kept.cancel()
    await asyncio.wait([kept])


class RouterOfOurs:
    """Takes enrolments; tells of them, and of leavings, through queues."""

    def __init__(self, renew_s=0.1):
        self._renew_s = renew_s
        self.joined: asyncio.Queue[Enrolment] = asyncio.Queue()
        self.left = asyncio.Event()
        self.let_go = asyncio.Event()

    async def join(self, request):
        self.joined.put_nowait(decode_enrolment(await request.read()))
        return web.json_response(body=msgspec.json.encode(Lease(120.0, self._renew_s)))

    async def leave(self, request):
        del request
        self.left.set()
        await self.let_go.wait()
        return web.json_response({})


@asynccontextmanager
async def listening(router):
    app = web.Application()
    app.router.add_post("/isochrone/agents", router.join)
    app.router.add_delete("/isochrone/agents/edge-1", router.leave)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_what_becomes_of_a_model_is_told_before_the_lease_is_due(tmp_path, store, http):
    router = RouterOfOurs(renew_s=60)
    async with listening(router) as here, asyncio.timeout(START_S):
        with running(tmp_path, store, routers=[{"url": here}]) as agent:
            assert states(await router.joined.get())["double"] is ModelState.COLD
            for verb, state in (("load", ModelState.WARM), ("unload", ModelState.COLD)):
                url = f"{agent.admin}/v2/repository/models/double/{verb}"
                async with http.post(url) as answer:
                    assert answer.status == 200
                while states(await router.joined.get())["double"] is not state:
                    pass


async def test_it_enrols_and_drains_without_losing_what_runs(tmp_path, store, http):
    router = RouterOfOurs()
    seen_at = "http://127.0.0.1:1"
    async with listening(router) as here:
        routers = [{"url": here, "advertise": seen_at}, {"url": "http://127.0.0.1:1"}]
        more = {"keep_warm": ["double"], "min_service_s": 0.2}
        agent = AgentProcess(tmp_path, store, routers=routers, **more)
        try:
            async with asyncio.timeout(START_S):
                await asyncio.to_thread(agent.wait_ready)
                first, second = await router.joined.get(), await router.joined.get()
                assert (first.name, first.url, first.slots) == ("edge-1", seen_at, 2)
                assert first.sequence < second.sequence
                await drain_with_a_call_inside(agent, router, http)
                assert await asyncio.to_thread(agent.process.wait) == 0
        finally:
            agent.end()


async def test_staged_times_are_marked_in_the_report(tmp_path, store, http):
    with running(
        tmp_path, store, keep_warm=["double"], min_service_s=0.02, min_load_s=0.1
    ) as agent:
        async with http.get(f"{agent.url}/isochrone/report") as answer:
            assert (await answer.json())["pressure"]["degraded"] == [
                "staged: a call takes at least 0.02 s (min_service_s)",
                "staged: a load takes at least 0.1 s (min_load_s)",
            ]


async def drain_with_a_call_inside(agent, router, http):
    async def infer():
        url = f"{agent.url}/v2/models/double/infer"
        async with http.post(url, data=body_of()) as answer:
            return answer.status

    async with asyncio.TaskGroup() as tasks:
        inside = tasks.create_task(infer())
        await wait_in_flight(agent, http, 1)
        agent.process.send_signal(signal.SIGTERM)
        await router.left.wait()
        report = await report_of(agent, http)
        assert (report.ready, report.draining) == (False, True)
        async with http.get(f"{agent.url}/v2/health/ready") as answer:
            assert answer.status == 503
        router.let_go.set()
    assert inside.result() == 200


def test_a_used_port_is_told_and_is_no_ready_agent(tmp_path, store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        agent = AgentProcess(tmp_path, store, listen=f"127.0.0.1:{port}")
        try:
            assert agent.process.wait(START_S) == 2
            assert f"127.0.0.1:{port}" in agent.log()
        finally:
            agent.end()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"slotz": 2}, "slotz", id="typo"),
        pytest.param({"slots": 0}, "slots", id="no_slots"),
        pytest.param({"queue": -1}, "queue", id="negative_queue"),
        pytest.param({"listen": "here"}, "listen", id="no_address"),
        pytest.param({"region": "eu west"}, "region", id="no_name"),
        pytest.param({"min_service_s": "20ms"}, "min_service_s", id="unit_in_the_value"),
        pytest.param({"routers": [{"url": "file:///etc"}]}, "routers", id="no_url"),
        pytest.param(
            {"routers": [{"url": "http://a.example:1"}] * 2}, "twice", id="a_router_twice"
        ),
        pytest.param(
            {"listen": "0.0.0.0:8090", "routers": [{"url": "http://a.example:1"}]},
            "advertise",
            id="everywhere_is_no_url",
        ),
    ],
)
def test_a_wrong_configuration_is_told_with_its_key(tmp_path, change, words):
    path = tmp_path / "agent.yaml"
    base = {"name": "edge-1", "region": "eu-west", "packages": "."}
    path.write_text(yaml.safe_dump({**base, **change}))
    with pytest.raises(ConfigError, match=words) as refused:
        check(path)
    assert "agent.yaml" in refused.value.message


def test_the_shipped_configuration_is_a_right_one(pytestconfig):
    config = check(pytestconfig.rootpath / "configs" / "agent.yaml")
    assert config.name == "edge-1"
