"""A client that sends nothing more gets its answers (RFC 9112 §9.6); one that has gone is seen."""

import asyncio

import pytest

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\n"


async def half_closed(serve, service, data, **limits):
    client = await (await serve(service, **limits)).connect()
    client.send(data)
    client.writer.write_eof()
    return client


async def final(client):
    """The next answer that is no interim one."""
    while (answer := await client.answer())[0] == 100:
        pass
    return answer


async def test_an_answer_given_at_once(serve, echo):
    client = await half_closed(serve, echo, GET)
    status, headers, body = await client.answer()
    assert (status, body) == (200, b"GET /  ")
    assert await client.rest() == b""
    assert headers.get("connection", "close") == "close"


@pytest.mark.parametrize("head", [GET, GET_1_0])
async def test_an_answer_that_takes_its_time(serve, recorder, head):
    client = await half_closed(serve, recorder, head)
    exchange = await recorder.get(0)
    await asyncio.sleep(0.2)
    assert recorder.gone == []
    exchange.respond(200, [], b"late")
    status, headers, body = await final(client)
    assert (status, headers["connection"], body) == (200, "close", b"late")
    assert await client.rest() == b""


async def test_nothing_is_put_before_the_answer_of_a_client_of_http_1_0(serve, recorder):
    client = await half_closed(serve, recorder, GET_1_0)
    exchange = await recorder.get(0)
    await asyncio.sleep(0.1)
    exchange.respond(200, [], b"late")
    assert (await client.answer())[0] == 200


async def test_a_stream(serve, recorder):
    client = await half_closed(serve, recorder, GET)
    exchange = await recorder.get(0)
    exchange.start(200, [])
    exchange.write(b"one")
    await asyncio.sleep(0.05)
    exchange.write(b"two")
    exchange.finish()
    assert (await final(client))[2] == b"onetwo"


async def test_every_pipelined_request(serve, recorder):
    client = await half_closed(serve, recorder, GET * 3)
    for number in range(3):
        (await recorder.get(number)).respond(200, [], b"%d" % number)
        assert (await final(client))[2] == b"%d" % number
    assert await client.rest() == b""


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(b"GET / HTTP/1.1\r\nho", id="in a head"),
        pytest.param(POST + b"content-length: 9\r\n\r\nabc", id="in a body"),
        pytest.param(POST + b"transfer-encoding: chunked\r\n\r\n3\r\nab", id="in a chunk"),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
async def test_a_request_that_is_not_whole_is_refused(serve, recorder, before, cut):
    client = await half_closed(serve, recorder, GET * before + cut)
    for number in range(before):
        (await recorder.get(number)).respond(200, [], b"")
        assert (await final(client))[0] == 200
    status, _, body = await client.answer()
    assert status == 400
    assert b"before the request was whole" in body
    assert await client.rest() == b""
    assert len(recorder.seen) == before


async def test_a_client_that_has_closed_both_ways_is_noticed(serve, eventually, recorder):
    talker = await serve(recorder, idle_s=0.4)
    client = await talker.connect()
    client.send(GET * 2)
    exchange = await recorder.get(0)
    client.writer.close()
    await eventually(lambda: recorder.gone)
    assert exchange.gone
    await eventually(lambda: not talker.listener.connections)
    assert len(recorder.seen) == 1


async def test_a_client_that_has_closed_both_ways_is_noticed_without_the_listeners_sweep(
    serve, eventually, recorder
):
    talker = await serve(recorder, idle_s=3600.0, header_s=3600.0, body_s=3600.0)
    talker.listener._sweeping.cancel()
    client = await talker.connect()
    client.send(GET)
    exchange = await recorder.get(0)
    client.writer.close()
    await eventually(lambda: recorder.gone)
    assert exchange.gone


async def test_an_idle_client_that_closes_is_let_go(serve, eventually, echo):
    talker = await serve(echo)
    client = await talker.connect()
    client.send(GET)
    await client.answer()
    client.writer.write_eof()
    assert await client.rest() == b""
    await eventually(lambda: not talker.listener.connections)
