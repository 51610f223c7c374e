"""An agent whose router goes away and comes back: clients notice nothing, nothing is lost."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.system.town import START_S, Part, Town, wait_until

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
                assert answer.status == 501
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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def pressed(agent, client, condition):
    """The pressure that the agent reports, once it is such."""
    while True:
        async with client.get(f"{agent.url}/isochrone/report") as answer:
            pressure = (await answer.json())["pressure"]
        if condition(pressure):
            return pressure
        await asyncio.sleep(0.05)


async def infer(agent, client):
    async with client.post(f"{agent.url}/v2/models/double/infer", data=BODY) as answer:
        assert answer.status == 200
        return (await answer.json())["outputs"][0]["data"]


async def test_a_full_disk_costs_lines_and_no_answer_and_is_said(tmp_path, packages, small_disk):
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    town = Town(tmp_path, packages)
    files = {name: str(small_disk / name) for name in ("access_log", "state_file")}
    try:
        agent = town.agent("shop", keep_warm=["double"], slots=2, **files)
        async with aiohttp.ClientSession() as client, asyncio.timeout(START_S):
            for _ in range(20):
                assert await infer(agent, client) == [2.0, 4.0]
            wanted = {
                "disk: nearly full",
                "disk: lines of the log are lost",
                "disk: notes wait in memory",
            }
            told = await pressed(agent, client, lambda it: set(it.get("degraded", ())) == wanted)
            assert told["lost_lines"] >= 20
            async with client.get(f"{agent.admin}/metrics") as answer:
                assert "isochrone_agent_degraded 3.0" in await answer.text()
            (small_disk / "filler").unlink()
            waiting = "disk: notes wait in memory"
            await pressed(agent, client, lambda it: waiting not in it["degraded"])
        assert agent.end() == 0
        assert b"ended_badly" not in (small_disk / "state_file").read_bytes()
    finally:
        town.end()


def take_cores(pid):
    """All but one; returns how many there were."""
    cores = os.sched_getaffinity(pid)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {min(cores)})
    return len(cores)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be taken from one")
async def test_a_core_that_is_taken_away_is_seen_by_the_router(tmp_path, packages):
    town = Town(tmp_path, packages)
    try:
        agent = town.agent("shop", keep_warm=["double"], slots=8, threads=1)
        async with aiohttp.ClientSession() as client, asyncio.timeout(START_S):
            await pressed(agent, client, lambda it: "cores" in it)
            cores = take_cores(agent.process.pid)
            await pressed(agent, client, lambda it: it.get("degraded"))
            assert await infer(agent, client) == [2.0, 4.0]
            async with client.get(f"{agent.url}/isochrone/report") as answer:
                assert (await answer.json())["slots"] == max(1, min(8, cores) // cores)
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
        url = f"{town.router.admin}/isochrone/journal"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            entries = (await answer.json())["entries"]
        assert [(entry["agent"], entry["kind"]) for entry in entries[-2:]] == [
            ("shop", "served"),
            ("shop", "ended_badly"),
        ]
    finally:
        town.end()
