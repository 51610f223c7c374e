"""A real agent process: small, quick, many callers of a cold model, no room, a crash."""

import asyncio
import json
import os
import re
import signal
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession, TCPConnector
from onnx import TensorProto, helper, numpy_helper

from isochrone.edge_agent.runtime.package.manifest import Declared, SampleTensor
from tests.conftest import model_bytes, write
from tests.edge_agent.runtime.sized import WIDTH, write_sized
from tests.edge_agent.test_agent import body_of, running

MIB = 1 << 20
INFERRED = 'infer_seconds_count{model="wide"}'
RESIDENT_BYTES = 100 * 1000 * 1000


@pytest.fixture
async def http():
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        yield session


def children(pid):
    told = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(one) for one in " ".join(told).split()]


async def infer(agent, http, model="double", body=None):
    url = f"{agent.url}/v2/models/{model}/infer"
    async with http.post(url, data=body or body_of()) as answer:
        return answer.status, answer.headers, json.loads(await answer.read())


async def metric(agent, http, name):
    async with http.get(f"{agent.admin}/metrics") as answer:
        text = await answer.text()
    found = re.search(rf"^isochrone_agent_{re.escape(name)} (.*)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def sized_body():
    part = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [1.0] * WIDTH}
    return json.dumps({"inputs": [part]})


def mapped(pid):
    return Path(f"/proc/{pid}/maps").read_text()


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_an_agent_with_a_small_model_takes_at_most_a_hundred_megabytes(tmp_path, store, http):
    with running(tmp_path, store, keep_warm=["double"]) as agent:
        assert (await infer(agent, http))[0] == 200
        assert resident_bytes(agent.process.pid) <= RESIDENT_BYTES
        libraries = mapped(agent.process.pid)
        assert "onnxruntime" in libraries
        assert "torch" not in libraries


def write_wide(store):
    """For each row of 16 bytes 800 KB."""
    spread = numpy_helper.from_array(np.ones((4, 200_000), np.float32), "w")
    data = model_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 200_000])],
        [spread],
    )
    write(
        store,
        data,
        name="wide",
        inputs=(Declared("x", "FP32", (-1, 4)),),
        outputs=(Declared("y", "FP32", (-1, 200_000)),),
        sample=SampleTensor("x", (1, 4)),
    )


async def deaf_client(url, body):
    """Asks, and does not read the answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /v2/models/wide/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    await loop.sock_sendall(client, head.encode() + body.encode())
    return client


async def test_what_answers_took_is_given_back_when_the_model_runs_again(tmp_path, http):
    packages = tmp_path / "packages"
    write_wide(packages)
    part = {"name": "x", "shape": [5, 4], "datatype": "FP32", "data": [1.0] * 20}
    wished = {"name": "y", "parameters": {"binary_data": True}}
    body = json.dumps({"inputs": [part], "outputs": [wished]})
    with running(tmp_path, packages, keep_warm=["wide"]) as agent:
        before_bytes = resident_bytes(agent.process.pid)
        clients = [await deaf_client(agent.url, body) for _ in range(60)]
        async with asyncio.timeout(30):
            while (await metric(agent, http, INFERRED) or 0) < 40:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert resident_bytes(agent.process.pid) - before_bytes > 100 * MIB, "60 answers of 4 MB"
        for client in clients:
            client.close()
        # onnxruntime's arena holds what outputs took until the model runs without them
        async with asyncio.timeout(30):
            while resident_bytes(agent.process.pid) - before_bytes > 50 * MIB:
                async with http.post(f"{agent.url}/v2/models/wide/infer", data=body) as answer:
                    assert answer.status in (200, 503)
                await asyncio.sleep(1)
        assert await metric(agent, http, "in_flight") == 0


async def test_five_hundred_requests_at_once_to_a_cold_model_cause_one_load(tmp_path, store, http):
    with running(tmp_path, store, min_load_s=0.3) as agent:
        answers = await asyncio.gather(*(infer(agent, http) for _ in range(500)))
        statuses = Counter(status for status, _, _ in answers)
        assert statuses.keys() == {200, 503}
        assert statuses[200] >= 10, "slots and queue"
        assert all("retry-after" in told for status, told, _ in answers if status == 503)
        assert len(agent.events("model_loaded")) == 1
        for name in ("cold_start", "load", "warm_up"):
            assert await metric(agent, http, f'{name}_seconds_count{{model="double"}}') == 1


async def test_a_model_that_cannot_fit_is_refused_with_the_numbers(tmp_path, http):
    packages = tmp_path / "packages"
    write_sized(packages, "large", 16)
    memory = {"budget_bytes": 10 * MIB}
    with running(tmp_path, packages, memory=memory, keep_warm=["large"]) as agent:
        async with http.get(f"{agent.url}/isochrone/report") as answer:
            report = await answer.json()
        assert report["ready"], "it serves what it can"
        assert report["pressure"]["degraded"] == ["keep_warm: large is not warm"]
        status, _, told = await infer(agent, http, "large", sized_body())
        assert (status, told["code"]) == (507, "no_space")
        assert re.search(r"large 1 takes \d+ bytes .* may take 10485760", told["error"])
        wake = {"model": "large"}
        async with http.post(f"{agent.url}/isochrone/wake", json=wake) as answer:
            assert answer.status == 507
        assert await metric(agent, http, "memory_budget_bytes") == 10 * MIB
        assert await metric(agent, http, "memory_taken_bytes") == 0


async def test_a_killed_process_costs_one_answer_and_is_counted(tmp_path, store, http):
    models = {"double": {"isolation": "process"}}
    with running(tmp_path, store, models=models, keep_warm=["double"]) as agent:
        assert (await infer(agent, http))[0] == 200
        (worker,) = children(agent.process.pid)
        os.kill(worker, signal.SIGSTOP)
        async with asyncio.TaskGroup() as group:
            lost = group.create_task(infer(agent, http))
            await asyncio.sleep(0.1)
            os.kill(worker, signal.SIGKILL)
        status, _, told = lost.result()
        assert (status, told["code"]) == (500, "crashed")
        assert (await infer(agent, http))[0] == 200
        assert await metric(agent, http, 'crashes_total{model="double"}') == 1
        assert len(agent.events("model_crashed")) == 1
        assert agent.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


async def test_an_unused_model_leaves_and_comes_back(tmp_path, store, http):
    with running(tmp_path, store, models={"double": {"keep_alive_s": 0.2}}) as agent:
        assert (await infer(agent, http))[0] == 200
        async with asyncio.timeout(10):
            while not agent.events("model_leaves"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert (await infer(agent, http))[0] == 200
        assert agent.events("model_leaves")[0]["cause"] == "idle"
        assert len(agent.events("model_loaded")) == 2
