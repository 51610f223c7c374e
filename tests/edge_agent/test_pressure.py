"""What is given up, in which order, and when it is taken back; it acts, and it is told."""

import json
import shutil
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.app import Agent
from isochrone.edge_agent.config import AgentConfig
from isochrone.edge_agent.lifecycle import Listening
from isochrone.edge_agent.machine import Limit, Readings
from isochrone.edge_agent.pressure import Pressing, Writing
from isochrone.router.errors import Overloaded
from isochrone.router.wire.http import Request
from isochrone.router.wire.report import ModelState, decode_endpoint_report

GIB = 1 << 30


def used(share, of_bytes=GIB):
    """One limit of which so much is used."""
    return (Limit(round((1 - share) * of_bytes), of_bytes),)


FINE = Readings(used(0.5), 0.0, GIB, 4)
STEPS = {
    "nothing": (FINE, Writing(), []),
    "a disk nearly full": (Readings(used(0.5), 0.0, 1 << 20, 4), Writing(), ["disk: nearly full"]),
    "lines lost": (FINE, Writing(lost_lines=3), ["disk: lines of the log are lost"]),
    "notes wait": (FINE, Writing(failing="full"), ["disk: notes wait in memory"]),
    "a core lost": (Readings(used(0.5), 0.0, GIB, 2), Writing(), ["cores: 2 of 4, 4 slots"]),
    "memory short": (
        Readings(used(0.96), 0.0, GIB, 4),
        Writing(),
        ["memory: idle models are unloaded"],
    ),
    "memory short under one limit of two": (
        Readings(used(0.5, 64 * GIB) + used(0.96), 0.0, GIB, 4),
        Writing(),
        ["memory: idle models are unloaded"],
    ),
    "a large machine that others fill, with enough left": (
        Readings(used(0.985, 64 * GIB), 0.0, GIB, 4),
        Writing(),
        [],
    ),
    "a large machine that is really full": (
        Readings(used(0.9995, 64 * GIB), 0.0, GIB, 4),
        Writing(),
        ["memory: idle models are unloaded", "memory: new calls are refused"],
    ),
    "memory stalls": (
        Readings(used(0.5), 0.2, GIB, 4),
        Writing(),
        ["memory: idle models are unloaded"],
    ),
    "memory full, and the disk": (
        Readings(used(0.99), 0.0, 0, 4),
        Writing(),
        ["disk: nearly full", "memory: idle models are unloaded", "memory: new calls are refused"],
    ),
}


@pytest.mark.parametrize(("readings", "disk", "said"), STEPS.values(), ids=STEPS)
def test_what_is_given_up(readings, disk, said):
    pressing = Pressing(slots=8)
    assert pressing.on(FINE, Writing(), 0.0).degraded == ()
    assert list(pressing.on(readings, disk, 1.0).degraded) == said


def test_lines_are_lost_until_none_was_for_a_minute():
    pressing = Pressing(slots=1)
    assert pressing.on(FINE, Writing(lost_lines=1), 0.0).degraded
    assert pressing.on(FINE, Writing(lost_lines=1), 59.0).degraded
    assert not pressing.on(FINE, Writing(lost_lines=1), 60.0).degraded
    assert pressing.pressure.lost_lines == 1


@given(st.lists(st.floats(0, 1), min_size=1), st.integers(1 << 24, 1 << 40))
def test_who_refuses_shrinks_too_and_no_step_flaps(shares, of_bytes):
    pressing, refused = Pressing(slots=1), False
    for share in shares:
        (limit,) = used(share, of_bytes)
        pressing.on(Readings((limit,), 0.0, GIB, 1), Writing(), 0.0)
        assert pressing.shrinks or not pressing.refuses
        if pressing.refuses is not refused:
            left = limit.left_bytes
            little = left <= 0.02 * of_bytes and left <= 64 << 20
            enough = left > 0.04 * of_bytes or left > 96 << 20
            assert little if pressing.refuses else enough
        refused = pressing.refuses


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_slots_follow_the_cores_and_one_is_left(slots, first, later):
    pressing = Pressing(slots)
    pressing.on(Readings(cores=first), Writing(), 0.0)
    assert pressing.slots == slots
    pressing.on(Readings(cores=later), Writing(), 1.0)
    assert 1 <= pressing.slots <= slots
    assert (pressing.slots == slots) == (later >= first or slots == 1)


class OurMachine:
    """Tells what the test says."""

    def __init__(self):
        self.readings = Readings(cores=2)

    def read(self):
        return self.readings

    def memory_limit_bytes(self):
        return GIB


@pytest.fixture
async def agent(tmp_path, store, monkeypatch):
    """An agent without sockets, on a machine of ours."""
    machine = OurMachine()
    monkeypatch.setattr("isochrone.edge_agent.app.Machine", lambda *_: machine)
    packages = tmp_path / "packages"
    shutil.copytree(store, packages)
    config = AgentConfig(name="e", region="eu", packages=packages, keep_warm=("double",), slots=2)
    made = Agent(config, clock=time.monotonic, wall=lambda: 0.0, rng=Random(1))
    made.lifecycle.on(Listening())
    await made.warm(["double", "words", "talk"])
    yield made, machine
    await made.pool.close()
    await made.notes.close()


BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
).encode()


async def asked(agent, method, path, body=b""):
    return await agent.public.handle(Request(method, path, [], body, received_s=time.monotonic()))


def warm(agent):
    return {held.name for held in agent.pool.held() if held.state is ModelState.WARM}


async def test_what_is_idle_is_unloaded_one_at_a_time_and_what_is_kept_warm_stays(agent):
    agent, machine = agent
    machine.readings = Readings(used(0.96), 0.0, GIB, 2)
    for left in (2, 1, 1):
        await agent.relief.look()
        assert len(warm(agent)) == left
    assert warm(agent) == {"double"}
    assert (await asked(agent, "POST", "/v2/models/double/infer", BODY)).status == 200


async def test_a_kernel_that_tells_it_otherwise_ends_nothing(agent):
    agent, machine = agent
    machine.readings = Readings(used(0.99), 0.0, GIB, 2)
    await agent.relief.look()

    def read():
        raise ValueError("max")

    machine.read = read
    await agent.relief.look()
    assert agent.pressing.refuses, "what was known holds"


async def test_full_memory_refuses_new_calls_and_answers_all_else(agent):
    agent, machine = agent
    machine.readings = Readings(used(0.99), 0.0, GIB, 2)
    await agent.relief.look()
    refused = await asked(agent, "POST", "/v2/models/double/infer", BODY)
    assert (refused.status, json.loads(refused.body)["code"]) == (503, Overloaded.code)
    assert (b"retry-after", b"1") in refused.headers
    assert (await asked(agent, "POST", "/isochrone/wake", b'{"model":"talk"}')).status == 503
    assert (await asked(agent, "GET", "/v2/health/live")).status == 200
    report = decode_endpoint_report((await asked(agent, "GET", "/isochrone/report")).body)
    assert report is not None
    assert report.pressure.memory_used_share == pytest.approx(0.99)
    assert "memory: new calls are refused" in report.pressure.degraded
    machine.readings = Readings(used(0.5), 0.0, GIB, 2)
    await agent.relief.look()
    assert (await asked(agent, "POST", "/v2/models/double/infer", BODY)).status == 200


async def test_a_core_that_is_taken_away_takes_slots_and_the_routers_hear_of_it(agent, monkeypatch):
    agent, machine = agent
    told = []
    monkeypatch.setattr(
        agent, "_enrollers", [type("E", (), {"renew_soon": lambda _: told.append(1)})()]
    )
    await agent.relief.look()
    assert (agent.gate.slots, told) == (2, [])
    machine.readings = Readings(used(0.5), 0.0, GIB, 1)
    await agent.relief.look()
    enrolment = agent.report.enrolment_at("http://127.0.0.1:1")()
    assert (agent.gate.slots, enrolment.slots, agent.report.full().slots, told) == (1, 1, 1, [1])
    machine.readings = Readings(used(0.5), 0.0, GIB, 2)
    await agent.relief.look()
    assert (agent.gate.slots, told) == (2, [1, 1])


@pytest.mark.parametrize(
    ("played_s", "slots"), [(0.0, 3), (0.1, 64)], ids=["one machine", "several on one"]
)
def test_no_more_runs_go_on_at_once_than_there_are_cores(played_s, slots):
    config = AgentConfig(
        name="e", region="eu", packages=Path(), slots=64, threads=16, min_service_s=played_s
    )
    assert (config.slots_on(2.5), config.threads_on(2.5)) == (slots, 3)
    assert (config.slots_on(200.0), config.threads_on(200.0)) == (64, 16)
