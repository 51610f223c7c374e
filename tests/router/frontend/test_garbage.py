"""What a call leaves behind in the router is freed at once: nothing of it keeps itself alive."""

import asyncio
import logging
from collections import Counter

import pytest
from aiohttp import ClientSession

from isochrone.router.http.exchange import Exchange
from tests.garbage import garbage

MANY = 40


def refuse(exchange: Exchange) -> None:
    exchange.respond(503, [(b"retry-after", b"1")], b"{}")


def fail(exchange: Exchange) -> None:
    exchange.respond(500, [], b"{}")


def break_off(exchange: Exchange) -> None:
    exchange.abort()


def be_silent(exchange: Exchange) -> None:
    """Never answer."""


def tell_a_story(exchange: Exchange) -> None:
    """Begin a stream that does not end."""
    exchange.start(200, [(b"content-type", b"text/event-stream")])
    exchange.write(b"data: once upon a time")


@pytest.fixture(autouse=True)
def nothing_is_logged(monkeypatch):
    """Pytest keeps what it sees logged, errors and all."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)


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
        await router.settled(lambda: not router.router.core.dispatcher.gate.waiting)
    assert found == {}


async def test_calls_that_wait_in_line_leave_nothing(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    await router.infer()
    held: list[Exchange] = []

    def hold(exchange: Exchange) -> None:
        if len(held) >= edge.slots:
            refuse(exchange)
        else:
            held.append(exchange)

    edge.behave = hold
    with garbage() as found:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(together(router))
            await router.settled(lambda: router.router.core.dispatcher.gate.waiting > 0)
            while not asked.done():
                while held:
                    edge.answer(held.pop())
                await asyncio.sleep(0.001)
        assert asked.result() == {200: MANY}
    assert found == {}


async def test_endpoints_that_are_not_there_leave_nothing(start_router, start_endpoint):
    edge, other = await start_endpoint("edge"), await start_endpoint("other")
    router = await start_router(edge, other)
    await together(router)
    await edge.stop()
    with garbage() as found:
        assert (await together(router))[200]
    assert found == {}


async def test_streams_that_nobody_reads_to_the_end_leave_nothing(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    await router.infer()
    edge.behave = tell_a_story
    url = f"{router.url}/v2/models/digits/generate_stream"
    with garbage() as found:
        async with ClientSession() as session:
            for _ in range(MANY):
                async with session.post(url, data=b"opaque") as answer:
                    assert await answer.content.readany()
                    answer.close()
    assert found == {}
