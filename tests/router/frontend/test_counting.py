"""What a router counts: every try, nobody who has left, and what it was told wrongly."""

import asyncio
from typing import cast

from isochrone.router.dispatch.attempt import Attempt
from isochrone.router.dispatch.request import ATTEMPTS_KEPT, RoutedRequest
from isochrone.router.frontend.decisions import access_line
from isochrone.router.http.exchange import Exchange


def tries_at(router, endpoint):
    """How many tries at an endpoint are counted, by what sent them there."""
    return {
        sample.labels["why"]: sample.value
        for family in router.router.registry.collect()
        for sample in family.samples
        if sample.name == "isochrone_tries_total" and sample.labels["endpoint"] == endpoint
    }


async def test_who_left_with_a_request_under_way_leaves_no_name_behind(
    start_router, start_endpoint
):
    agent, stays = await start_endpoint("agent"), await start_endpoint("stays", "us-east")
    held: list[Exchange] = []
    agent.behave = held.append
    router = await start_router(stays)
    assert (await router.call("POST", "/isochrone/agents", agent.enrolment()))[0] == 200
    await router.settled(lambda: router.router.core.ledger.site("agent").out is None)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(router.infer(x_isochrone_regions="eu-west"))
        await router.settled(lambda: bool(held))
        assert (await router.call("DELETE", "/isochrone/agents/agent"))[0] == 200
        agent.answer(held[0])
    assert asking.result()[0] == 200
    assert tries_at(router, "agent") == {}
    await router.infer()
    assert sum(tries_at(router, "stays").values()) == 1


async def test_tries_beyond_the_kept_ones_are_counted(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    await router.infer(x_request_id="first")
    record = router.router.decisions._kept["first"][0]  # a whole one, to add to
    before = tries_at(router, "edge")
    (one,) = record.attempts
    many = RoutedRequest(router.router.core.runner, cast(Exchange, None), record.query, record.plan)
    for _ in range(ATTEMPTS_KEPT + 10):
        attempt = Attempt(one.scored)
        attempt.why, attempt.outcome = "queued", "busy"
        many.add(attempt)
    assert access_line(many, 0.0).tries == ATTEMPTS_KEPT + 10
    router.router._metrics.ended(many)  # what the dispatcher calls
    assert tries_at(router, "edge") == before | {"queued": ATTEMPTS_KEPT + 10}


async def test_what_was_told_wrongly_is_counted(start_router, start_endpoint):
    router = await start_router(await start_endpoint("eu"), await start_endpoint("us", "us-east"))
    client = "203.0.113.7"  # in us-east: no light comes from eu-west in a millisecond
    samples = [
        {"endpoint": "eu", "rtt_s": 0.001, "client": client},
        {"endpoint": "us", "rtt_s": 0.03, "client": client},
        {"endpoint": "elsewhere", "rtt_s": 0.03, "client": client},
    ]
    assert (await router.call("POST", "/isochrone/measurements", {"samples": samples}))[0] == 204
    sample = router.router.registry.get_sample_value
    assert sample("isochrone_measurements_unknown_total") == 1
    assert sample("isochrone_measurements_misplaced_total") == 1
    names = {"endpoint": "us", "region": "us-east"}
    await router.infer(x_isochrone_regions="us-east")
    assert sample("isochrone_endpoint_rtt_misplaced_total", names) > 0, "it stands on 127.0.0.1"
