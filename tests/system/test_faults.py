"""Agents that freeze, die and leave; a router that is told to go. Real processes, real signals."""

import asyncio
import json
import signal
import time
from collections import Counter

import aiohttp
import pytest

from isochrone.router.wire.codec import encode_request
from tests.edge_agent.runtime.sized import ones, write_sized
from tests.system.town import Part, Town, wait_until

BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
).encode()


async def fleet(town: Town, client: aiohttp.ClientSession) -> dict[str, str | None]:
    """Why each endpoint is out, or None."""
    async with client.get(f"{town.router.admin}/isochrone/fleet") as response:
        told = await response.json()
    return {endpoint["name"]: endpoint["out"] for endpoint in told["endpoints"]}


async def settled(town: Town, client: aiohttp.ClientSession, **wanted: bool) -> None:
    """Wait until exactly these endpoints are in (True) or out (False)."""
    async with asyncio.timeout(20):
        while {n: out is None for n, out in (await fleet(town, client)).items()} != wanted:  # noqa: ASYNC110  # another process's state
            await asyncio.sleep(0.02)


async def infer(town: Town, client: aiohttp.ClientSession) -> tuple[int, str | None]:
    url = f"{town.router.url}/v2/models/double/infer"
    async with client.post(url, data=BODY) as response:
        await response.read()
        return response.status, response.headers.get("x-isochrone-endpoint")


async def load(town: Town, client: aiohttp.ClientSession, count: int, per_s: float) -> Counter:
    """Requests on schedule, whoever answers; counts (status, endpoint)."""
    start_s = time.monotonic()

    async def one(number: int) -> tuple[int, str | None]:
        await asyncio.sleep(max(0.0, start_s + number / per_s - time.monotonic()))
        return await infer(town, client)

    return Counter(await asyncio.gather(*(one(number) for number in range(count))))


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as session:
        yield session


async def test_an_agent_that_is_killed_with_requests_inside_costs_none(town, client):
    town.agent("one", slots=4, queue=64, min_service_s=0.05)
    town.agent("two", slots=4, queue=64, min_service_s=0.05)
    await settled(town, client, one=True, two=True)
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(load(town, client, 120, per_s=60))
        await asyncio.sleep(0.7)
        town.agents["one"].signal(signal.SIGKILL)
    answers = playing.result()
    assert {status for status, _ in answers} == {200}
    assert {endpoint for _, endpoint in answers} == {"one", "two"}


async def test_a_frozen_agent_is_out_and_comes_back(town, client):
    town.agent("one", slots=4, queue=64, min_service_s=0.02)
    town.agent("two", slots=4, queue=64, min_service_s=0.02)
    await settled(town, client, one=True, two=True)
    town.agents["one"].signal(signal.SIGSTOP)
    try:
        answers = await load(town, client, 60, per_s=60)
        assert {status for status, _ in answers} == {200}
        assert (await fleet(town, client))["one"] == "2 probes missed"
    finally:
        town.agents["one"].signal(signal.SIGCONT)
    await settled(town, client, one=True, two=True)


async def test_an_agent_that_is_told_to_go_finishes_and_leaves(town, client):
    town.agent("one", slots=4, queue=64, min_service_s=0.05)
    town.agent("two", slots=4, queue=64, min_service_s=0.05)
    await settled(town, client, one=True, two=True)
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(load(town, client, 90, per_s=60))
        await asyncio.sleep(0.5)
        town.agents["one"].signal(signal.SIGTERM)
    answers = playing.result()
    assert {status for status, _ in answers} == {200}
    assert town.agents["one"].end() == 0
    await settled(town, client, two=True)


async def test_the_only_agent_finishes_what_it_has_before_it_goes(town, client):
    town.agent("one", slots=2, min_service_s=0.6)
    await settled(town, client, one=True)
    async with asyncio.TaskGroup() as tasks:
        inside = [tasks.create_task(infer(town, client)) for _ in range(2)]
        await asyncio.sleep(0.2)
        town.agents["one"].signal(signal.SIGTERM)
    assert [task.result() for task in inside] == [(200, "one")] * 2
    assert town.agents["one"].end() == 0


async def test_a_router_that_is_told_to_go_drops_nothing(town, client):
    town.agent("one", slots=2, min_service_s=0.3)
    await settled(town, client, one=True)
    async with asyncio.TaskGroup() as tasks:
        inside = [tasks.create_task(infer(town, client)) for _ in range(2)]
        await asyncio.sleep(0.1)
        town.router.signal(signal.SIGTERM)
    assert [task.result() for task in inside] == [(200, "one")] * 2
    assert town.router.end() == 0


async def test_a_hundred_requests_to_a_cold_model_load_it_once(town, client):
    town.agent("one", keep_warm=[], slots=2, queue=200)
    await settled(town, client, one=True)
    answers = Counter(await asyncio.gather(*(infer(town, client) for _ in range(100))))
    assert answers == {(200, "one"): 100}
    assert town.agents["one"].log.read_text().count("model_loaded") == 1


async def test_two_models_with_room_for_one_refuse_no_call_that_has_time(tmp_path, client):
    for name in ("even", "odd"):
        write_sized(tmp_path / "sized", name, 16)
    fields, body = encode_request(ones())
    town = Town(tmp_path, tmp_path / "sized")

    async def call(model: str, after_s: float) -> int:
        await asyncio.sleep(after_s)
        url = f"{town.router.url}/v2/models/{model}/infer"
        headers = {"x-request-timeout-seconds": "60"}
        headers |= {name.decode(): value.decode() for name, value in fields}
        async with client.post(url, data=body, headers=headers) as answer:
            await answer.read()
            return int(answer.status)

    try:
        memory = {"budget_bytes": 28 << 20}
        # calls that run keep their model's memory for two seconds after its eviction has begun
        agent = town.agent("one", keep_warm=[], slots=64, memory=memory, min_service_s=2.0)
        await settled(town, client, one=True)
        calls = [call("even", 0.2 * number) for number in range(40)]
        answers = Counter(await asyncio.gather(*calls, call("odd", 2.0), call("odd", 5.0)))
        assert answers == {200: 42}
        assert agent.log.read_text().count("cause=evicted") >= 1
    finally:
        town.end()


def test_a_second_router_on_the_same_port_says_so(town, tmp_path):
    config = json.loads((tmp_path / "router" / "router.yaml").read_text())
    config["listen"] = town.router.address
    with pytest.raises(AssertionError, match="is in use; choose another"):
        Part("router", tmp_path / "second", {**config, "regions_file": "../regions.yaml"})


def test_every_process_ends_cleanly(town):
    agent = town.agent("one")
    wait_until(lambda: "enrolled" in agent.log.read_text())
    assert agent.end() == 0
    assert town.router.end() == 0
