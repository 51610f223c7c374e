"""A wall clock that jumps by days, back and forth, with every reading: nobody notices."""

import asyncio
import json
import time
from itertools import cycle
from random import Random

import pytest

from isochrone.edge_agent.app import Agent
from isochrone.edge_agent.config import AgentConfig
from isochrone.edge_agent.front import Front
from isochrone.edge_agent.lifecycle import Listening
from isochrone.router.process.access_log import AccessLog
from isochrone.router.wire.http import Request

TWO_DAYS_S = 2 * 86_400.0
NOW_S = 1_800_000_000.0
BODY = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'


@pytest.fixture
def jumping():
    instants = cycle([NOW_S, NOW_S + TWO_DAYS_S, NOW_S - TWO_DAYS_S])
    return lambda: next(instants)


async def test_requests_deadlines_queue_and_notes_run_on_as_before(tmp_path, store, jumping):
    config = AgentConfig(
        name="e",
        region="eu",
        packages=store,
        keep_warm=("double",),
        slots=1,
        queue=64,
        min_service_s=0.02,
        state_file=tmp_path / "agent.state",
    )
    log = AccessLog(tmp_path / "access.jsonl")
    agent = Agent(config, clock=time.monotonic, wall=jumping, rng=Random(1))
    front = Front(agent.public.handle, agent.answered, log, time.monotonic, jumping, Random(2))
    agent.lifecycle.on(Listening())
    await agent.warm(["double"])

    async def infer(timeout_s):
        headers = [(b"x-request-timeout-seconds", str(timeout_s).encode())]
        path = "/v2/models/double/infer"
        request = Request("POST", path, headers, BODY, received_s=time.monotonic())
        return (await front.handle(request)).status

    assert set(await asyncio.gather(*(infer(5) for _ in range(20)))) == {200}
    late = await asyncio.gather(*(infer(0.05) for _ in range(10)))
    assert {200} < set(late) <= {200, 503, 504}, "deadlines pass when they should"
    assert await agent.notes.write()
    await agent.relief.look()
    await agent.pool.close()
    await agent.notes.close()
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
    assert {line["time"] for line in lines} == {NOW_S, NOW_S + TWO_DAYS_S, NOW_S - TWO_DAYS_S}
    assert all(0 <= line["seconds"] < 10 for line in lines)
