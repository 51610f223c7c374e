"""Routing against the worst that endpoints and clients do: real processes, a real router.

Times are counted in the router's own units (probe intervals, the ramp), traffic in shares of the
same run, so that a slow machine is slow on both sides of each comparison.
"""

import asyncio
import itertools
import json
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import pytest

from isochrone.deploy.local.ports import free_ports
from isochrone.deploy.local.relay import Fault, Relay, RelaySpec
from isochrone.router.fleet.slowstart import cap
from isochrone.router.geo.network import prior_rtt_s
from isochrone.router.geo.region import Point, distance_km
from isochrone.router.process.clock import monotonic
from tests.system.town import REGIONS, Town
from tests.system.traffic import GOOD, INFER, Answer, Clients, by_chance, evenly, flowing

SLOWING = str(Path(__file__).with_name("slowing.py"))
NOISE_S = 0.3
"""What this machine may add to a time limit: other processes have its cores, too."""


@pytest.fixture
def measured():
    """Notes a figure; `pytest -rA` shows them, and a failure does."""

    def note(name: str, value: object) -> None:
        print(f"{name}: {value}")

    return note


@pytest.fixture
async def session():
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as made:
        yield made


@pytest.fixture
def start_town(tmp_path, store):
    towns = []

    def start(**changes) -> Town:
        towns.append(Town(tmp_path, store, **changes))
        return towns[-1]

    try:
        yield start
    finally:
        for town in towns:
            town.end()


async def start(town: Town, *names: str, **config) -> None:
    """Agents that differ in nothing but their names, started side by side."""
    await asyncio.gather(*(asyncio.to_thread(town.agent, name, **config) for name in names))


@asynccontextmanager
async def relay_to(name: str, delay_s: float = 0.0) -> AsyncIterator[tuple[Relay, str]]:
    """A relay, and the address that what stands behind it is to listen on."""
    front, behind = (f"127.0.0.1:{port}" for port in free_ports(2))
    async with Relay(RelaySpec(name, listen=front, target=behind, delay_s=delay_s)) as relay:
        yield relay, behind


# A new endpoint is as slow as can be.

SLOW_TIMES = 150
QUICK_S = 0.012
FIRST_S = 2.5


async def test_a_new_twin_150_times_slower_gets_hardly_any_traffic(start_town, session, measured):
    town = start_town()
    clients = Clients(town, session)
    await start(town, "old", slots=2, queue=64, min_service_s=QUICK_S)
    await clients.settled("old")
    async with flowing(clients.infer, evenly(per_s=100)) as answers:
        await asyncio.sleep(0.5)
        await start(town, "new", slots=2, queue=64, min_service_s=QUICK_S * SLOW_TIMES)
        seen_s = await clients.warm("old", "new")
        await asyncio.sleep(FIRST_S)
    of_new = [a for a in answers if a.endpoint == "new"]
    in_s = min([seen_s, *(a.sent_s for a in of_new)])
    first = [a for a in answers if in_s <= a.sent_s < in_s + FIRST_S]
    share = sum(a.endpoint == "new" for a in first) / len(first)
    measured("share of the new twin", f"{len(of_new)} of {len(first)}, {share}")
    assert {a.status for a in answers} == {200}
    assert len(first) > 0.8 * 100 * FIRST_S, "this machine could not send"
    assert share <= 0.05


# The endpoint that should be the fastest is dead.

WEST = {"location": {"latitude": 45.8, "longitude": -119.7}, "jurisdiction": "us"}
FAR = {**REGIONS, "regions": {**REGIONS["regions"], "us-west": WEST}}


async def test_a_dead_twin_that_should_be_the_faster_costs_nothing(start_town, session, measured):
    assert _prior_s("us-west") >= 9 * _prior_s("eu-west")
    town = start_town(regions=FAR)
    clients = Clients(town, session)
    async with relay_to("far", delay_s=0.01) as (relay, behind):
        far = {"region": "us-west", "listen": behind, "relayed_at": relay.spec.listen}
        await start(town, "far", slots=4, queue=64, **far)
        await start(town, "near", slots=4, queue=64)
        await clients.settled("near", "far")
        async with flowing(clients.infer, evenly(per_s=100)) as answers:
            await clients.warm("near", "far")
            nearer_s = await clients.seen(lambda f: 2 * f["near"]["rtt_s"] < f["far"]["rtt_s"])
            await asyncio.sleep(0.5)
            town.agents["near"].signal(signal.SIGKILL)
            killed_s = monotonic()
            await asyncio.sleep(1.0)
            await _enrol_a_ghost(clients, session)
            await asyncio.sleep(1.0)
    before = Counter(a.endpoint for a in answers if nearer_s < a.sent_s and a.done_s < killed_s)
    measured("tried twice", sum(a.tries > 1 for a in answers))
    measured("failed", sum(a.status != 200 for a in answers))
    assert before["near"] >= 0.9 * before.total()
    assert {a.status for a in answers} == {200}


def _prior_s(region: str) -> float:
    """What a router in eu-west expects of a region that it has never measured."""
    here, there = (Point(**FAR["regions"][name]["location"]) for name in ("eu-west", region))
    return prior_rtt_s(distance_km(here, there))


async def _enrol_a_ghost(clients: Clients, session: aiohttp.ClientSession) -> None:
    """Somebody joins at whose address nobody listens."""
    ghost = {
        "wire_version": 1,
        "name": "ghost",
        "instance": uuid.uuid4().hex,
        "boot_id": "ghost",
        "sequence": 1,
        "url": f"http://127.0.0.1:{free_ports(1)[0]}",
        "region": "eu-west",
        "slots": 4,
        "models": [{"name": "double", "version": "1", "state": "warm"}],
    }
    async with session.post(f"{clients.url}/isochrone/agents", json=ghost) as response:
        assert response.status == 200, await response.text()


# Clients make mistakes.

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
BAD = [
    b"{",
    b"{}",
    *(
        json.dumps({"inputs": [{**X, **wrong}]}).encode()
        for wrong in (
            {"shape": [1, 3], "data": [1, 2, 3]},
            {"shape": [2, 2]},
            {"datatype": "INT32"},
            {"name": "z"},
        )
    ),
]


async def test_a_burst_of_clients_mistakes_opens_no_breaker(start_town, session, measured):
    town = start_town()
    clients = Clients(town, session)
    await start(town, "one", "two", slots=1, queue=64, min_service_s=0.02)
    await clients.settled("one", "two")
    wrong, explain = itertools.cycle(BAD), itertools.cycle("0001")

    async def bad() -> Answer:
        return await clients.infer(next(wrong))

    async def good() -> Answer:
        return await clients.infer(x_isochrone_explain=next(explain))

    async with flowing(bad, evenly(per_s=150)) as refused, flowing(good, evenly(60)) as answers:
        await clients.warm("one", "two")
        await asyncio.sleep(2.0)
        fleet = await clients.fleet()
    why = Counter[str]()
    for answer in answers:
        decision = await clients.decision(answer.request_id)
        why.update(c["reason"] for c in decision["considered"] if c["reason"] is not None)
    served = Counter(a.endpoint for a in answers)
    measured("statuses of the bad", dict(Counter(a.status for a in refused)))
    measured("good served by", dict(served))
    measured("reasons", dict(why))
    assert {a.status for a in refused} == {400}
    assert {a.tries for a in refused} == {1}
    assert {a.status for a in answers} == {200}
    assert {told["out"] for told in fleet.values()} == {None}
    assert [reason for reason in why if not reason.startswith("slow start")] == []
    assert min(served["one"], served["two"]) >= 0.2 * len(answers)


# An agent freezes.

PROBE = {"interval_s": 1.0, "timeout_s": 0.5}


async def test_a_frozen_agent_is_out_within_two_probe_intervals(start_town, session, measured):
    town = start_town(probe=PROBE)
    clients = Clients(town, session)
    await start(town, "one", "two", slots=1, queue=64, min_service_s=0.01)
    await clients.settled("one", "two")
    async with flowing(clients.infer, by_chance(60, Random(4))) as answers:
        await clients.warm("one", "two")
        await asyncio.sleep(0.5)
        town.agents["one"].signal(signal.SIGSTOP)
        try:
            frozen_s = monotonic()
            out_s = await clients.settled("two")
            await asyncio.sleep(frozen_s + 2 * PROBE["interval_s"] + 0.5 - monotonic())
        finally:
            town.agents["one"].signal(signal.SIGCONT)
            thawed_s = monotonic()
        in_s = await clients.settled("one", "two")
        await asyncio.sleep(0.5)
    sent_there = [a for a in answers if await _was_tried(clients, a, "one")]
    measured("out after", out_s - frozen_s)
    measured("in after", in_s - thawed_s)
    while_frozen = [a.sent_s - frozen_s for a in sent_there if frozen_s < a.sent_s < thawed_s]
    measured("sent there while frozen", len(while_frozen))
    measured("the last after", max(while_frozen, default=None))
    assert {a.status for a in answers} == {200}
    assert out_s - frozen_s <= 2 * PROBE["interval_s"] + NOISE_S
    assert max(while_frozen, default=0.0) <= 2 * PROBE["interval_s"] + NOISE_S
    assert in_s - thawed_s <= 2 * PROBE["interval_s"] + NOISE_S
    assert any(a.sent_s > thawed_s and a.endpoint == "one" for a in answers)


async def _was_tried(clients: Clients, answer: Answer, endpoint: str) -> bool:
    decision = await clients.decision(answer.request_id)
    return endpoint in {attempt["endpoint"] for attempt in decision["attempts"]}


# The way to an agent falls silent.


async def test_an_agent_that_nobody_reaches_serves_its_own_clients_and_comes_back(
    start_town, session, measured
):
    town = start_town(probe=PROBE)
    clients = Clients(town, session)
    async with relay_to("one") as (relay, behind):
        one = {"listen": behind, "relayed_at": relay.spec.listen}
        busy = {"slots": 1, "queue": 64, "min_service_s": 0.02}
        await start(town, "one", **busy, **one)
        await start(town, "two", **busy)
        await clients.settled("one", "two")
        async with flowing(clients.infer, by_chance(40, Random(4))) as answers:
            await clients.warm("one", "two")
            await asyncio.sleep(0.5)
            await relay.fail(Fault.FREEZE)
            silent_s = monotonic()
            out_s = await clients.settled("two")
            async with session.post(f"http://{behind}{INFER}", data=GOOD) as own:
                assert own.status == 200, await own.text()
            await asyncio.sleep(1.0)
            await relay.fail(Fault.NONE)
            back_s = monotonic()
            in_s = await clients.settled("one", "two")
            await asyncio.sleep(0.5)
    measured("out after", out_s - silent_s)
    measured("in after", in_s - back_s)
    assert {a.status for a in answers} == {200}
    assert out_s - silent_s <= 2 * PROBE["interval_s"] + NOISE_S
    assert any(a.sent_s > in_s and a.endpoint == "one" for a in answers)


# Everything is slow for a while, and clients do not give up.

SERVICE_S = 0.1
SLOTS = 5
LOAD = 0.9
PATIENCE_S = 0.5
TRIES = 3
WINDOW_S = 3.0
SLOW_S = 10.0
RECOVERED_S = 30.0


@dataclass(frozen=True, slots=True)
class Call:
    """What a client wanted at `asked_s`, and whether it got it at last."""

    asked_s: float
    ok: bool
    tries: int


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"x_request_timeout_seconds": str(PATIENCE_S)}, id="they say how long"),
        pytest.param({}, id="they say nothing"),
    ],
)
async def test_clients_that_retry_do_not_keep_an_overload_alive(
    start_town, session, measured, told
):
    town = start_town()
    clients = Clients(town, session)
    # without a staged time, slots end at this machine's cores
    town_of_five = {"slots": SLOTS, "min_service_s": SERVICE_S}
    await start(town, "one", "two", program=(SLOWING, str(SERVICE_S)), **town_of_five)
    await clients.settled("one", "two")
    rng = Random(5)

    async def call() -> Call:
        asked_s = monotonic()
        for number in range(1, TRIES + 1):
            answer = await clients.infer(timeout_s=PATIENCE_S, **told)
            if answer.status == 200:
                return Call(asked_s, True, number)
            await asyncio.sleep(rng.uniform(0.05, 0.1))
        return Call(asked_s, False, TRIES)

    longest_s = TRIES * (PATIENCE_S + 0.1)
    await clients.served_per_s(2 * SLOTS, for_s=1.0)
    await clients.warm("one", "two")
    most_per_s = await clients.served_per_s(2 * SLOTS, for_s=2.0)
    measured("served per second at most", most_per_s)
    async with flowing(call, by_chance(LOAD * most_per_s, rng)) as calls:
        await asyncio.sleep(0.5)
        before_s = monotonic()
        await asyncio.sleep(WINDOW_S)
        slow_s = monotonic()
        for agent in town.agents.values():
            agent.signal(signal.SIGUSR1)
        await asyncio.sleep(SLOW_S)
        for agent in town.agents.values():
            agent.signal(signal.SIGUSR2)
        end_s = monotonic()
        goodput: list[float] = []
        while monotonic() < end_s + RECOVERED_S:
            from_s = end_s + len(goodput) * WINDOW_S
            await asyncio.sleep(from_s + WINDOW_S + longest_s - monotonic())
            goodput.append(_goodput(calls, from_s, from_s + WINDOW_S))
            if goodput[-1] >= 0.95 * _goodput(calls, before_s, slow_s):
                break
    before, during = _goodput(calls, before_s, slow_s), _goodput(calls, slow_s, end_s)
    measured("goodput before, during, after", [before, during, *goodput])
    assert before >= 0.9, "this machine could not serve"
    assert during < 0.9, "it was no overload"
    assert goodput[-1] >= 0.95 * before


def _goodput(calls: list[Call], from_s: float, to_s: float) -> float:
    """The share of what was asked between two instants that was answered."""
    asked = [call for call in calls if from_s <= call.asked_s < to_s]
    return sum(call.ok for call in asked) / len(asked)


# One of two endpoints refuses connections for a while.

WATCHED = {"interval_s": 0.5, "timeout_s": 0.25}
AWAY_S = 5.0
"""As many probe intervals as ten seconds are with the interval that a router has by default."""
MANY = 31
"""So many slots that the ramp frees one more each second: its course shows long before its end."""
LONG_S = 0.25
GROWTH_S = 4


async def test_an_endpoint_that_refuses_costs_nothing_and_comes_back(start_town, session, measured):
    town = start_town(probe=WATCHED)
    clients = Clients(town, session)
    many = {"slots": MANY, "queue": 64, "min_service_s": LONG_S, "keep_warm": ["double"]}
    async with relay_to("one") as (relay, behind):
        one = {"listen": behind, "relayed_at": relay.spec.listen}
        await start(town, "one", **many, **one)
        await start(town, "two", **many)
        await clients.settled("one", "two")
        async with flowing(clients.infer, evenly(per_s=0.4 * 2 * MANY / LONG_S)) as answers:
            await clients.warm("one", "two")
            await asyncio.sleep(0.5)
            await relay.fail(Fault.REFUSE)
            gone_s = monotonic()
            await asyncio.sleep(AWAY_S)
            await relay.fail(Fault.NONE)
            back_s = monotonic()
            in_s = await clients.settled("one", "two")
            await asyncio.sleep(GROWTH_S)
    measured("in after", in_s - back_s)
    measured("statuses", dict(Counter(a.status for a in answers)))
    measured("tried twice", sum(a.tries > 1 for a in answers))
    measured("asked while it was away", sum(gone_s < a.sent_s < back_s for a in answers))
    assert {a.status for a in answers} == {200}
    assert in_s - back_s <= 2 * WATCHED["interval_s"] + NOISE_S
    for second in range(GROWTH_S):
        since_s = in_s + second + LONG_S  # what was sent in that second is answered one service on
        served = sum(a.endpoint == "one" and since_s <= a.done_s < since_s + 1 for a in answers)
        least, most = (cap(MANY, second + late) / LONG_S for late in (0.0, 1.0))
        measured(f"served in second {second}", f"{served}, by the ramp {least:g} to {most:g}")
        assert 0.5 * least <= served <= most + 1
