"""Two tenants with keys call models through one router at once: each gets what is its own."""

import asyncio
import hashlib
import json

import aiohttp
import numpy as np
import onnxruntime as ort
import pytest

from tests.edge_agent.runtime.loading.graphs import MIXED, WISE, graph_bytes, write_graph
from tests.system.town import REGIONS, Town, wait_until

KEYS = {"acme": "a" * 32, "busy": "b" * 32}
GRAPHS = {
    "softmax": MIXED["softmax over rows"],
    "filter": MIXED["filter over rows"],
    "time": MIXED["time first"],
    "attention": MIXED["attention between rows"],
    "eight": MIXED["eight bits"],
    "mlp": WISE["mlp"],
}
CLIENTS, CALLS_EACH = 32, 4


@pytest.fixture
def town(tmp_path):
    for name, (nodes, shape) in GRAPHS.items():
        write_graph(tmp_path / "packages", graph_bytes(nodes, shape), shape, name=name)
    lines = [
        f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items()
    ]
    (tmp_path / "tenants.keys").write_text("\n".join(lines) + "\n")
    tenants = {name: {"require": "any", "keys_file": "tenants.keys"} for name in KEYS}
    regions = {**REGIONS, "tenants": {**REGIONS["tenants"], **tenants}}
    town = Town(tmp_path, tmp_path / "packages", regions=regions)
    yield town
    town.end()


async def _client(session, url, number, wrong):
    chance = np.random.default_rng(number)
    key = KEYS[sorted(KEYS)[number % 2]]
    for call in range(CALLS_EACH * len(GRAPHS)):
        name = sorted(GRAPHS)[(number + call) % len(GRAPHS)]
        nodes, shape = GRAPHS[name]
        rows = int(chance.integers(1, 4))
        scale = 1e4 if number == 0 else 1.0
        data = (chance.standard_normal((rows, *shape[1:])) * scale).astype(np.float32)
        body = {
            "inputs": [
                {
                    "name": "x",
                    "shape": list(data.shape),
                    "datatype": "FP32",
                    "data": data.ravel().tolist(),
                }
            ]
        }
        headers = {"authorization": f"Bearer {key}"}
        async with session.post(
            f"{url}/v2/models/{name}/infer", data=json.dumps(body), headers=headers
        ) as answer:
            assert answer.status == 200, await answer.text()
            (output,) = (await answer.json())["outputs"]
        right = _bare(nodes, shape).run(["y"], {"x": data})[0]
        got = np.array(output["data"], np.float32).reshape(right.shape)
        if not np.allclose(got, right, rtol=1e-3, atol=1e-3 * min(1.0, float(abs(right).max()))):
            wrong.append(name)


_sessions: dict[int, ort.InferenceSession] = {}


def _bare(nodes, shape):
    key = id(nodes)
    if key not in _sessions:
        _sessions[key] = ort.InferenceSession(
            graph_bytes(nodes, shape), providers=["CPUExecutionProvider"]
        )
    return _sessions[key]


async def test_no_caller_gets_what_another_has_a_part_in(town):
    agent = town.agent("shop", keep_warm=sorted(GRAPHS), packages="../packages")
    wait_until(lambda: "enrolled" in agent.log.read_text())
    wrong: list[str] = []
    async with aiohttp.ClientSession() as session:
        clients = [_client(session, town.router.url, n, wrong) for n in range(CLIENTS)]
        await asyncio.gather(*clients)
    assert wrong == []
    told = [line for line in agent.log.read_text().splitlines() if "batch_proven" in line]
    rows = {
        name: next(line for line in told if f"model={name} " in line).split(" rows=")[1].split()[0]
        for name in GRAPHS
    }
    assert rows == {**dict.fromkeys(GRAPHS, "1"), "mlp": "32"}
