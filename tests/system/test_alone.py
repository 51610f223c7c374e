"""An agent whose router goes away and comes back: clients notice nothing, nothing is lost."""

import json
import re
import shutil
import signal
import time

import aiohttp
import pytest

from tests.system.town import Part, Town, wait_until

BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
).encode()
TWO_RENEWALS_S = 2 * 5.0


@pytest.fixture
def packages(store, tmp_path):
    """Packages of its own, one of which is spoiled after the agent has looked at it."""
    mine = tmp_path / "packages"
    shutil.copytree(store, mine)
    return mine


async def test_a_router_that_goes_and_comes_is_told_all_that_happened(tmp_path, packages):
    town = Town(tmp_path, packages, state_file="router.state")
    folder = tmp_path / "router"
    try:
        agent = town.agent("shop", keep_warm=["double"], state_file="agent.state")
        wait_until(lambda: "enrolled" in agent.log.read_text())
        town.router.signal(signal.SIGKILL)
        spoiled = packages / "talk" / "1" / "model.onnx"
        spoiled.write_bytes(spoiled.read_bytes()[:-1] + b"\0")
        async with aiohttp.ClientSession() as client:
            for _ in range(50):
                async with client.post(f"{agent.url}/v2/models/double/infer", data=BODY) as answer:
                    assert answer.status == 200
            async with client.post(f"{agent.admin}/v2/repository/models/talk/load") as answer:
                assert answer.status == 503
        wait_until(lambda: "not reached" in agent.log.read_text(), 15)
        config = json.loads((folder / "router.yaml").read_text())
        paths = {"regions_file": "../regions.yaml", "state_file": "../router/router.state"}
        again = Part(
            "router", tmp_path / "again", {**config, **paths, "listen": town.router.address}
        )
        town.router.end()
        town.router, began_s = again, time.monotonic()
        wait_until(lambda: "endpoint_in endpoint=shop" in again.log.read_text())
        assert time.monotonic() - began_s < TWO_RENEWALS_S
        wait_until(lambda: "kind=load_failed model=talk" in again.log.read_text())
        assert agent.end() == 0
        assert len(re.findall("kind=load_failed", again.log.read_text())) == 1
    finally:
        town.end()


async def test_an_agent_that_was_killed_says_so_and_tells_what_it_served(tmp_path, packages):
    town = Town(tmp_path, packages)

    def shop():
        return town.agent("shop", state_file=str(tmp_path / "agent.state"), keep_warm=["double"])

    try:
        first = shop()
        first.signal(signal.SIGKILL)
        first.end()
        second = shop()
        async with aiohttp.ClientSession() as client:
            for _ in range(3):
                async with client.post(f"{second.url}/v2/models/double/infer", data=BODY) as answer:
                    assert answer.status == 200
        assert second.end() == 0  # what it served since the last sum is written now
        shop()
        wait_until(lambda: "kind=ended_badly" in town.router.log.read_text(), 15)
        wait_until(lambda: "kind=served model=double count=3" in town.router.log.read_text(), 15)
        assert len(re.findall("kind=ended_badly", town.router.log.read_text())) == 1
    finally:
        town.end()
