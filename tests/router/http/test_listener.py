"""What is answered, to whom and in which order, over real sockets."""

import asyncio
import json

import pytest

from isochrone.router.http.listener import Limits
from isochrone.router.process.settings import Settings

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


async def test_an_answer_carries_the_listeners_fields(serve, echo):
    talker = await serve(echo)
    client = await talker.connect()
    client.send(b"POST /v2/x%20y?a=%2f HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    status, headers, body = await client.answer()
    assert (status, body) == (200, b"POST /v2/x y a=%2f hi")
    assert headers.keys() == {"content-type", "content-length", "date"}


async def test_the_services_own_framing_fields_are_replaced(serve):
    def service(exchange):
        exchange.respond(
            200, [(b"content-length", b"99"), (b"connection", b"x"), (b"x-kept", b"1")], b"ab"
        )

    client = await (await serve(service)).connect()
    client.send(GET)
    _, headers, body = await client.answer()
    assert body == b"ab"
    assert (headers["content-length"], headers["x-kept"]) == ("2", "1")
    assert "connection" not in headers


async def test_the_request_says_who_sent_it_and_when(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(b"GET / HTTP/1.1\r\nHOST: a\r\nX-Twice: 1\r\nx-twice:  2 \r\n\r\n")
    request = (await recorder.get(0)).request
    assert request.peer == "127.0.0.1"
    assert request.received_s > 0
    assert request.headers == [(b"host", b"a"), (b"x-twice", b"1"), (b"x-twice", b"2")]


async def test_bytes_may_come_one_by_one(serve, echo):
    talker = await serve(echo)
    client = await talker.connect()
    whole = b"POST /p HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    whole += b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\ntrailer: 1\r\n\r\n"
    for byte in whole:
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer())[2] == b"POST /p  abcde"


async def test_pipelined_requests_are_answered_in_order_whoever_is_ready_first(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n for n in range(100)) + LAST)
    for number in range(100):
        exchange = await recorder.get(number)
        assert exchange.request.path == f"/{number}"
        assert len(recorder.seen) == number + 1  # one at a time
        exchange.respond(200, [], exchange.request.path.encode())
    (await recorder.get(100)).respond(200, [], b"/last")
    assert [(await client.answer())[2] for _ in range(100)] == [b"/%d" % n for n in range(100)]
    assert (await client.answer())[1]["connection"] == "close"
    assert await client.rest() == b""


async def test_one_connection_is_answered_one_request_in_each_turn(serve):
    paths = []

    def service(exchange):
        paths.append(exchange.request.path)
        exchange.respond(200, [], b"")

    talker = await serve(service)
    greedy, other = await talker.connect(), await talker.connect()
    for client in (greedy, other):
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await client.answer()
    greedy.send(b"GET /greedy HTTP/1.1\r\nhost: a\r\n\r\n" * 300)
    other.send(b"GET /other HTTP/1.1\r\nhost: a\r\n\r\n")
    await other.answer()
    for _ in range(300):
        await greedy.answer()
    assert paths.count("/greedy") == 300
    assert paths.index("/other") <= 4, "two before it"


async def test_one_body_at_most_waits_for_its_turn(serve, eventually, recorder):
    talker = await serve(recorder)
    client = await talker.connect()
    put = b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000\r\n\r\n" + b"x" * 10000
    client.send(put * 50)
    await recorder.get(0)
    (connection,) = talker.listener._connections
    await eventually(lambda: connection._held)
    assert len(connection._reader.requests) == 1
    for number in range(50):
        (await recorder.get(number)).respond(200, [], b"%d" % number)
        assert (await client.answer())[2] == b"%d" % number


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "keep-alive"),
    ],
    ids=["1.1 is kept", "1.1 with close is not", "1.0 is not", "1.0 with keep-alive is"],
)
async def test_connections_are_kept_as_the_client_says(serve, echo, head, kept):
    client = await (await serve(echo)).connect()
    client.send(head)
    _, headers, _ = await client.answer()
    assert headers.get("connection") == kept
    if kept == "close":
        assert await client.rest() == b""
    else:
        client.send(head)
        assert (await client.answer())[0] == 200


async def test_head_is_answered_without_a_body(serve, echo):
    client = await (await serve(echo)).connect()
    client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
    status, headers, _ = await client.answer("HEAD")
    assert (status, headers["content-length"]) == (200, "8")
    client.send(LAST)
    assert (await client.rest()).endswith(b"\r\n\r\nGET /last  ")


@pytest.mark.parametrize("status", [204, 304])
async def test_bare_statuses_have_no_body(serve, status):
    client = await (await serve(lambda exchange: exchange.respond(status, [], b""))).connect()
    client.send(GET)
    _, headers, _ = await client.answer()
    assert "content-length" not in headers


@pytest.mark.parametrize(
    "upgrade",
    [
        b"GET /1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        (
            b"POST /1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
            b"content-length: 2\r\n\r\nab"
        ),
        (
            b"POST /1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
            b"content-length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: abcdef\r\n\r\n"
        ),
    ],
    ids=["without a body", "with a body", "with a body that looks like a request"],
)
async def test_an_upgrade_is_ignored(serve, echo, upgrade):
    client = await (await serve(echo)).connect()
    client.send(upgrade + LAST)
    assert (await client.answer())[2].split()[1] == b"/1"
    assert (await client.answer())[2] == b"GET /last  "


async def test_a_hundred_is_sent_when_it_is_waited_for(serve, echo):
    client = await (await serve(echo)).connect()
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert (await client.answer())[0] == 100
    client.send(b"ok")
    assert (await client.answer())[2] == b"POST /  ok"


async def test_a_hundred_waits_for_the_answer_before_it(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(
        GET + b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    )
    (await recorder.get(0)).respond(200, [], b"first")
    assert (await client.answer())[2] == b"first"
    assert (await client.answer())[0] == 100
    client.send(b"ok")
    (await recorder.get(1)).respond(200, [], b"second")
    assert (await client.answer())[2] == b"second"


async def test_a_client_that_goes_is_noticed_once(serve, eventually, recorder):
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET)
    exchange = await recorder.get(0)
    assert talker.listener.in_flight == 1
    client.drop()
    await eventually(lambda: recorder.gone)
    assert exchange.gone
    exchange.respond(200, [], b"to nobody")
    exchange.start(200, [])
    exchange.write(b"to nobody")
    exchange.finish()
    exchange.abort()
    assert recorder.gone == ["/"]
    assert (talker.listener.in_flight, talker.listener.connections) == (0, 0)


async def test_an_answered_client_that_goes_concerns_nobody(serve, eventually, recorder):
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET)
    (await recorder.get(0)).respond(200, [], b"")
    await client.answer()
    client.drop()
    await eventually(lambda: talker.listener.connections == 0)
    assert recorder.gone == []


async def test_a_service_that_fails_is_answered_for_and_logged(serve, caplog):
    def service(_):
        raise ZeroDivisionError("secret")

    client = await (await serve(service)).connect()
    client.send(GET)
    status, _, body = await client.answer()
    assert (status, json.loads(body)["code"]) == (500, "internal")
    assert b"secret" not in body
    assert "secret" in caplog.text
    client.send(GET)
    assert (await client.answer())[0] == 500


async def test_no_field_can_end_its_line(serve, caplog):
    def service(exchange):
        exchange.respond(200, [(b"x", b"1\r\nset-cookie: a")], b"")

    client = await (await serve(service)).connect()
    client.send(GET)
    status, headers, _ = await client.answer()
    assert (status, "set-cookie" in headers) == (500, False)
    assert "line end" in caplog.text


async def test_an_exchange_is_answered_once(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.respond(200, [], b"")
    with pytest.raises(RuntimeError, match="once"):
        exchange.respond(200, [], b"")
    with pytest.raises(RuntimeError, match="once"):
        exchange.finish()


def test_limits_can_stand_in_a_configuration_file():
    assert issubclass(Limits, Settings)
    assert Limits().body_bytes == 16 << 20
