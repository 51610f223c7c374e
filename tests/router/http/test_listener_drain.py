"""How a listener ends."""

import asyncio

import pytest

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def test_drain_finishes_what_runs_and_closes_what_idles(serve, tasks, recorder):
    talker = await serve(recorder)
    idle, busy = await talker.connect(), await talker.connect()
    idle.send(GET)
    (await recorder.get(0)).respond(200, [], b"")
    await idle.answer()
    busy.send(GET)
    exchange = await recorder.get(1)
    draining = tasks.create_task(talker.listener.drain(5))
    assert await idle.rest() == b""
    with pytest.raises(OSError):  # noqa: PT011  # refused or reset, as the system likes
        await talker.connect()
    exchange.respond(200, [], b"whole")
    _, headers, body = await busy.answer()
    assert (headers["connection"], body) == ("close", b"whole")
    assert await draining == 0


async def test_drain_waits_for_a_request_that_is_half_here(serve, eventually, tasks, echo):
    talker = await serve(echo)
    client = await talker.connect()
    client.send(GET[:10])
    await eventually(lambda: any(c.busy for c in talker.listener._connections))
    draining = tasks.create_task(talker.listener.drain(5))
    await asyncio.sleep(0)
    client.send(GET[10:])
    assert (await client.answer())[1]["connection"] == "close"
    assert await draining == 0


async def test_drain_counts_what_it_cuts(serve, recorder):
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET)
    await recorder.get(0)
    assert await talker.listener.drain(0.05) == 1
    assert recorder.gone == ["/"]
    assert (talker.listener.connections, talker.listener.in_flight) == (0, 0)
