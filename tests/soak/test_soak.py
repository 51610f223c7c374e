"""A minute of the soak, and a moment of it and an overload on one core with 512 MB."""

import asyncio
import time
from collections import Counter

import aiohttp
import pytest

from tests.soak.agent import SoakedAgent
from tests.soak.group import NoGroup, small_group
from tests.soak.soak import SMALL_BYTES, soak

SEED = 1
SLOTS, SERVICE_S = 2, 0.02
CAPACITY_PER_S = SLOTS / SERVICE_S
BODY = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'


async def test_a_minute_of_harm(tmp_path):
    result = await soak(tmp_path, 60.0, SEED)
    assert result["ok"], result
    assert result["requests"]["right"] > 1000
    for agent, deeds in (("steady", 4), ("rough", 6)):
        assert len(set(result["harm"][agent]) - {"not heard"}) == deeds, "everything was tried"


@pytest.fixture
def group():
    try:
        with small_group(SMALL_BYTES) as made:
            yield made
    except NoGroup as why:
        pytest.skip(str(why))


async def test_harm_on_one_core_with_512_mb(tmp_path, group):
    result = await soak(tmp_path, 15.0, SEED, group)
    assert result["ok"], result
    assert result["group"]["killed"] == 0
    assert 0 < result["group"]["most_bytes"] <= SMALL_BYTES


async def play(agent, session, count, per_s):
    """Requests on schedule, whoever answers: of each its status and how long it took."""
    start_s = time.monotonic()

    async def one(number):
        due_s = start_s + number / per_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        began_s = time.monotonic()
        url = f"{agent.url}/v2/models/double/infer"
        async with session.post(url, data=BODY) as answer:
            await answer.read()
        return answer.status, time.monotonic() - began_s

    answers = await asyncio.gather(*(one(number) for number in range(count)))
    return answers, time.monotonic() - start_s


async def test_an_overload_on_one_core_with_512_mb(tmp_path, group):
    """Three times what it can do, open loop, the load outside the group."""
    agent = SoakedAgent(tmp_path / "agent", group, min_service_s=SERVICE_S, slots=SLOTS, queue=8)
    try:
        await agent.start()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await play(agent, session, 50, CAPACITY_PER_S / 2)
            before = agent.rss_bytes()
            answers, took_s = await play(agent, session, 1200, 3 * CAPACITY_PER_S)
            after = agent.rss_bytes()
    finally:
        assert agent.end() == 0
    statuses = Counter(status for status, _ in answers)
    refused_s = sorted(seconds for status, seconds in answers if status == 503)
    told = f"{statuses} in {took_s:.1f} s, refused after {refused_s[len(refused_s) // 2]:.4f} s"
    assert set(statuses) == {200, 503}, told
    assert statuses[200] / took_s >= 0.9 * CAPACITY_PER_S, told
    assert refused_s[len(refused_s) // 2] < 0.01, told
    assert after <= 1.05 * before, (before, after)
    assert group.killed == 0
