"""The six scenes: what is done to the system, and what must then be seen in its logs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import chain

from isochrone.deploy.demo.evidence import outside
from isochrone.deploy.demo.load import Answer, by_chance, closed_loop, evenly, open_loop
from isochrone.deploy.demo.stage import Check, Scene, Stage, all_answered, ids, share_of
from isochrone.deploy.local.layout import (
    AGENTS,
    CAPACITY_PER_S,
    CLOUD,
    CLOUD_MODEL,
    EDGE_MODEL,
    REGION_OF,
    ROUTERS,
)

EU = "eu-west"
US = "us-east"
NEAREST = ROUTERS[EU].nearest
"""The agent that the scenes are unkind to."""
EU_AGENTS = tuple(name for name, place in AGENTS.items() if place.region == EU)
WORKERS = 8
_CALM_PER_S = 0.2 * CAPACITY_PER_S
_SLOW_START_S = 10.0
_SINGLE_PER_S = 0.1 * CAPACITY_PER_S
"""So slow that one call ends before the next: a restarted agent gets one at a time at first."""


async def nearest(stage: Stage) -> Scene:
    """Every held-out image once, half of them through each router, at a calm pace."""
    half = stage.images // 2

    async def play(router: str) -> list[Answer]:
        start = half * list(ROUTERS).index(router)
        calls = stage.calls(router, EDGE_MODEL, range(start, start + half))
        return await open_loop(stage.clients[router].send, calls, evenly(half, _CALM_PER_S))

    by_router = await stage.on_all_routers(play)
    served = {name: await stage.evidence.settled(ids(got)) for name, got in by_router.items()}
    answers = list(chain.from_iterable(by_router.values()))
    shares = [share_of(served[name], ROUTERS[name].nearest, 0.95) for name in by_router]
    return Scene("nearest", answers, _merged(served.values()), [all_answered(answers), *shares])


async def required_region(stage: Stage) -> Scene:
    """A tenant whose data stays in the EU: with all EU agents, with none, and with all again."""
    key = stage.system.layout.key
    before = await _eu_only(stage, 60, key)
    stage.tell("stopping every endpoint in the EU")
    async with asyncio.TaskGroup() as group:
        for name in EU_AGENTS:
            group.create_task(stage.system.part(name).stop())
    await stage.system.settled(dict.fromkeys(EU_AGENTS))
    refusals = await _eu_only(stage, 20, key)
    others = await _eu_only(stage, 20, None)
    stage.tell("starting them again")
    await _start(stage, EU_AGENTS)
    after = await _eu_only(stage, 20, key)

    answers = [*before, *others, *after]
    bound = ids([*before, *refusals, *after])
    served = await stage.evidence.settled(ids(answers))
    strays = outside({name: served.get(name, []) for name in bound}, EU)
    carried = outside(stage.evidence.carried(bound), EU)
    return Scene(
        "required_region",
        answers,
        served,
        [
            all_answered(answers),
            Check(
                f"{strays.total()} of {len(bound)} requests of the EU-only tenant were answered"
                f" outside the EU, {carried.total()} were sent there",
                not strays and not carried,
            ),
            _refused_clearly(refusals),
        ],
        refusals=refusals,
        outside_region=strays.total(),
    )


def _refused_clearly(refusals: Sequence[Answer]) -> Check:
    foreign = [name for name, region in REGION_OF.items() if region != EU]
    clear = [
        answer
        for answer in refusals
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE
        and answer.reasons
        and all(REGION_OF[name] in answer.reasons.get(name, "") for name in foreign)
    ]
    example = next((answer.reasons for answer in clear), None) or {}
    shown = f", for example {foreign[0]}: {example[foreign[0]]}" if example else ""
    return Check(
        f"{len(clear)} of {len(refusals)} got 503 with reasons while the EU was stopped{shown}",
        len(clear) == len(refusals) > 0,
    )


async def cold(stage: Stage) -> Scene:
    """The nearest agent has the model on disk only when a hundred requests come at once."""
    url = f"{stage.system.layout.admin_url(NEAREST)}/v2/repository/models/{EDGE_MODEL}/unload"
    async with stage.system.http.post(url, json={}) as unloaded:
        unloaded.raise_for_status()
    await stage.system.settled({NEAREST: "cold"})
    loads = stage.evidence.loads(NEAREST)
    send = stage.clients[EU].send
    burst = await open_loop(send, stage.calls(EU, EDGE_MODEL, range(100)), [0.0] * 100)
    slowest_s = max(answer.seconds for answer in burst)
    await stage.system.settled({NEAREST: "warm"})
    loads = stage.evidence.loads(NEAREST) - loads
    calls = stage.calls(EU, EDGE_MODEL, range(40))
    after = await open_loop(send, calls, evenly(40, _SINGLE_PER_S))

    answers = [*burst, *after]
    served = await stage.evidence.settled(ids(answers))
    elsewhere = sum(1 for name in ids(burst) if NEAREST not in served[name])
    return Scene(
        "cold",
        answers,
        served,
        [
            all_answered(answers),
            Check(
                f"{elsewhere} of 100 were answered elsewhere, the slowest in {slowest_s:.2f} s",
                elsewhere == 100,
            ),
            Check(f"{loads} load of the model at {NEAREST} (exactly 1)", loads == 1),
            share_of({name: served[name] for name in ids(after)}, NEAREST, 0.95),
        ],
        loads=loads,
    )


async def overloaded(stage: Stage) -> Scene:
    """Twice what the nearest agent can do, by chance and without waiting for answers."""
    per_s = 2 * CAPACITY_PER_S
    fleet_per_s = CAPACITY_PER_S * len(AGENTS)
    stage.tell(
        f"{per_s:.0f} requests/s to {EU}: {per_s / CAPACITY_PER_S:.0%} of {NEAREST},"
        f" {per_s / fleet_per_s:.0%} of the agents together, Ray Serve not counted"
    )
    stage.tell(f"{_SLOW_START_S:.0f} s for the slow start of the agents that were started again")
    await asyncio.sleep(_SLOW_START_S)
    count = round(3 * per_s)
    calls = stage.calls(EU, EDGE_MODEL, range(count))
    answers = await open_loop(stage.clients[EU].send, calls, by_chance(count, per_s, stage.rng))
    served = await stage.evidence.settled(ids(answers))
    spilt = sum(1 for names in served.values() if NEAREST not in names)
    return Scene(
        "overloaded",
        answers,
        served,
        [
            all_answered(answers),
            Check(f"{spilt / count:.0%} spilt to others (at least 30%)", spilt >= 0.3 * count),
            share_of(served, NEAREST, 0.1),  # it was started again, and has most of its slots back
        ],
    )


async def killed(stage: Stage) -> Scene:
    """The nearest agent is killed with requests inside it."""
    per_s = 0.4 * CAPACITY_PER_S * len(EU_AGENTS)
    stage.tell(f"{per_s:.0f} requests/s to {EU}, 40% of what the EU's agents can do")
    count = round(4 * per_s)
    calls = stage.calls(EU, EDGE_MODEL, range(count))
    async with asyncio.TaskGroup() as group:
        playing = group.create_task(
            open_loop(stage.clients[EU].send, calls, by_chance(count, per_s, stage.rng))
        )
        await asyncio.sleep(1.5)
        await _kill_while_busy(stage)
    answers = playing.result()
    carried = stage.evidence.carried(ids(answers))
    served = await stage.evidence.settled(ids(answers), timeout_s=1.0)
    for name, endpoints in served.items():
        if not endpoints and carried[name] == [NEAREST]:  # it died before it wrote that line
            endpoints.append(NEAREST)
    inside = [name for name in carried if NEAREST in carried[name] and {*served[name]} - {NEAREST}]
    stage.tell(f"starting {NEAREST} again")
    await _start(stage, (NEAREST,))
    return Scene(
        "killed",
        answers,
        served,
        [
            all_answered(answers),
            Check(
                f"{len(inside)} requests had reached {NEAREST} and were answered elsewhere"
                " (at least 1)",
                len(inside) > 0,
            ),
        ],
    )


async def cloud(stage: Stage) -> Scene:
    """The larger model lives in the cloud only: every held-out image, half through each router."""
    half = stage.images // 2

    async def play(router: str) -> list[Answer]:
        start = half * list(ROUTERS).index(router)
        calls = stage.calls(router, CLOUD_MODEL, range(start, start + half))
        return await closed_loop(stage.clients[router].send, calls, workers=WORKERS)

    by_router = await stage.on_all_routers(play)
    served = {name: await stage.evidence.settled(ids(got)) for name, got in by_router.items()}
    answers = list(chain.from_iterable(by_router.values()))
    shares = [share_of(served[name], CLOUD, 1.0) for name in by_router]
    return Scene("cloud", answers, _merged(served.values()), [all_answered(answers), *shares])


SCENES: Mapping[str, tuple[Callable[[Stage], Awaitable[Scene]], str]] = {
    "nearest": (nearest, "each router's nearest agent answers"),
    "required_region": (required_region, "data that must stay in the EU stays there"),
    "cold": (cold, "nobody waits for a model that is not loaded"),
    "overloaded": (overloaded, "what is too much for one agent spills to others"),
    "killed": (killed, "an agent dies and nobody notices"),
    "cloud": (cloud, "the larger model is answered by Ray Serve"),
}
"""Every scene in the order of the play, with what it shows."""


async def _eu_only(stage: Stage, count: int, key: str | None) -> list[Answer]:
    """This many requests through each router."""

    async def play(router: str) -> list[Answer]:
        calls = stage.calls(router, EDGE_MODEL, range(count), key=key)
        return await closed_loop(stage.clients[router].send, calls, workers=WORKERS)

    return list(chain.from_iterable((await stage.on_all_routers(play)).values()))


async def _start(stage: Stage, names: Sequence[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(stage.system.part(name).start())
    await stage.system.settled()


async def _kill_while_busy(stage: Stage) -> None:
    """SIGKILL, at an instant when the agent says that it is at work."""
    url = f"http://127.0.0.1:{stage.system.layout.ports[NEAREST]}/isochrone/report"
    for _ in range(500):
        async with stage.system.http.get(url) as answer:
            report = await answer.json()
        if report["in_flight"] >= 2:
            break
    stage.system.part(NEAREST).kill()
    stage.tell(f"killed {NEAREST} with {report['in_flight']} requests inside")


def _merged(parts: Iterable[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    return {name: endpoints for part in parts for name, endpoints in part.items()}
