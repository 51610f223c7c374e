"""What a call leaves behind in the router is freed at once: nothing of it keeps itself alive."""

import asyncio
from collections import Counter

from router.process.exchange import Exchange
from tests.garbage import garbage

MANY = 40
NO_RETRIES = {"x-request-timeout-seconds": "5"}


def refuse(exchange: Exchange) -> None:
    exchange.respond(503, [], b"{}")


def fail(exchange: Exchange) -> None:
    exchange.respond(500, [], b"{}")


def break_off(exchange: Exchange) -> None:
    exchange.abort()


def be_silent(exchange: Exchange) -> None:
    """Never answer."""


async def together(router, **headers: str) -> Counter[int]:
    """The answers to many at once, by status."""
    answers = await asyncio.gather(*(router.infer(**headers) for _ in range(MANY)))
    return Counter(status for status, _, _ in answers)


async def test_calls_that_are_answered_leave_nothing(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    await router.infer()
    with garbage() as found:
        for _ in range(MANY):
            assert (await router.infer())[0] == 200
        assert await together(router) == {200: MANY}
    assert found == {}


async def test_calls_that_fail_at_endpoints_leave_nothing(start_router, start_endpoint):
    edge, other = await start_endpoint("edge"), await start_endpoint("other")
    router = await start_router(edge, other)
    await router.infer()
    for behave in (refuse, fail, break_off):
        with garbage() as found:
            edge.behave = behave
            assert set(await together(router)) <= {200, 502, 503}
        assert found == {}, behave.__name__


async def test_calls_that_nobody_answers_leave_nothing(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    await router.infer()
    edge.behave = be_silent
    with garbage() as found:
        assert set(await together(router, x_request_timeout_seconds="0.2")) <= {503, 504}
        assert await together(router, x_request_timeout_seconds="1e-6") == {504: MANY}
    assert found == {}


async def test_calls_that_nobody_waits_for_leave_nothing(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    await router.infer()
    edge.behave = be_silent
    with garbage() as found:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(router.infer()) for _ in range(MANY)]
            await router.settled(lambda: len(edge.asked) > edge.slots)
            for call in asked:
                call.cancel()
        await router.settled(lambda: not router.router.dispatcher.gate.waiting)
    assert found == {}
