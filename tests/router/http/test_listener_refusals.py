"""What a listener does not take: bad bytes, too many, too slow."""

import asyncio
import json

import pytest

from isochrone.router.http.limits import Limits

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


POST = b"POST / HTTP/1.1\r\nhost: a\r\n"
HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

REFUSED = {
    "two lengths": (400, POST + b"content-length: 1\r\ncontent-length: 1\r\n\r\na"),
    "a signed length": (400, POST + b"content-length: +5\r\n\r\nhello"),
    "a length that overflows": (400, POST + b"content-length: 99999999999999999999\r\n\r\n"),
    "length and chunks": (
        400,
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunks and length": (
        400,
        POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    "a coding before chunked": (400, POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "another coding": (400, POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunks in 1.0": (
        400,
        b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "a bad chunk size": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk that is too long": (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    "a bare line feed in a chunk": (400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    "a chunk that is far too long": (413, CHUNKED + b"ffffffffffffffff\r\n"),
    "its size before its line ends": (413, CHUNKED + b"0000ffffffff"),
    "chunks that are too long together": (413, CHUNKED + b"3\r\nabc\r\nfff\r\n"),
    "a size that overflows": (413, CHUNKED + b"1" * 40 + b"\r\n"),
    "an underscore in a name": (400, HEAD + b"x_isochrone_regions: eu\r\n\r\n"),
    "two hosts": (400, HEAD + b"host: a\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "a host that is none": (400, b"GET / HTTP/1.1\r\nhost: a/b@c\r\n\r\n"),
    "a folded field": (400, HEAD + b" b\r\n\r\n"),
    "space before the colon": (400, b"GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
    "a bad field name": (400, HEAD + b"x(y): a\r\n\r\n"),
    "NUL in a value": (400, HEAD + b"x: a\0b\r\n\r\n"),
    "bare line feeds": (400, b"GET / HTTP/1.1\nhost: a\n\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/1.7": (400, b"GET / HTTP/1.7\r\nhost: a\r\n\r\n"),
    "the preface of HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "an unknown method": (400, b"BREW / HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a tunnel": (501, b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    "an upgrade with chunks": (
        400,
        POST + b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n\r\n",
    ),
    "another expectation": (417, POST + b"expect: x\r\ncontent-length: 1\r\n\r\na"),
    "an encoded slash": (400, b"GET /a%2Fb HTTP/1.1\r\nhost: a\r\n\r\n"),
    "an encoded NUL": (400, b"GET /a%00b HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a path that is not UTF-8": (400, b"GET /a%ff HTTP/1.1\r\nhost: a\r\n\r\n"),
    "dot segments": (400, b"GET /v2/%2e%2e/x HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a fragment": (400, b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a head that is too large": (431, HEAD + b"x: %b\r\n" % (b"y" * 100) * 50 + b"\r\n"),
    "one field without end": (431, HEAD + b"x: " + b"y" * 20_000),
    "a target without end": (431, b"GET /" + b"y" * 20_000),
    "a long body": (413, POST + b"content-length: 4097\r\n\r\n"),
    "a long body that is waited for": (
        413,
        POST + b"expect: 100-continue\r\ncontent-length: 4097\r\n\r\n",
    ),
    "long chunks": (413, CHUNKED + b"400\r\n%b\r\n" % (b"z" * 1024) * 5),
    "a chunk extension without end": (431, CHUNKED + b"1;" + b"x" * 20_000),
    "trailers without end": (431, CHUNKED + b"0\r\n" + b"x: y\r\n" * 4000),
}


@pytest.mark.parametrize(("status", "data"), REFUSED.values(), ids=REFUSED.keys())
async def test_is_refused_with_one_answer_and_a_close(serve, recorder, status, data):
    talker = await serve(recorder, body_bytes=4096, header_bytes=4096)
    client = await talker.connect()
    client.send(data)
    found, headers, body = await client.answer()
    assert found == status
    assert headers["connection"] == "close"
    assert headers["x-request-id"]
    assert json.loads(body).keys() == {"error", "code"}
    client.send(GET)
    assert await client.rest() == b""
    assert recorder.seen == []


@pytest.mark.parametrize(("named", "kept"), [("mine-1", True), ("not an id", False)])
async def test_a_refusal_carries_the_id_that_the_request_named(serve, echo, named, kept):
    client = await (await serve(echo, body_bytes=10)).connect()
    client.send(POST + b"x-request-id: %b\r\ncontent-length: 11\r\n\r\n" % named.encode())
    status, headers, _ = await client.answer()
    assert status == 413
    assert (headers["x-request-id"] == named) is kept


@pytest.mark.parametrize(
    "fields", [b"", b"content-length: 9\r\n"], ids=["until the end", "with a length"]
)
async def test_an_answer_to_http_1_0_that_is_cut_is_a_reset(serve, recorder, fields):
    client = await (await serve(recorder)).connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    exchange = await recorder.get(0)
    exchange.start(200, [(b"content-length", b"9")] if fields else [])
    exchange.write(b"part")
    await client.reader.readuntil(b"part")
    exchange.abort()
    with pytest.raises(ConnectionResetError):
        await client.rest()


async def test_an_answer_to_http_1_0_that_a_drain_cuts_is_a_reset(serve, recorder):
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    exchange = await recorder.get(0)
    exchange.start(200, [])
    exchange.write(b"part")
    await client.reader.readuntil(b"part")
    assert await talker.listener.drain(0.0) == 1
    with pytest.raises(ConnectionResetError):
        await client.rest()


async def test_rubbish_after_a_request_is_refused_after_its_answer(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(GET + b"rubbish\r\n\r\n")
    (await recorder.get(0)).respond(200, [], b"fine")
    assert (await client.answer())[2] == b"fine"
    assert (await client.answer())[0] == 400
    assert await client.rest() == b""


async def test_nothing_after_the_last_request_is_looked_at(serve, echo):
    answers = await (await serve(echo)).ask(LAST + GET + b"rubbish")
    assert answers.count(b"HTTP/1.1 ") == 1


async def test_a_refused_client_that_still_sends_gets_its_answer(serve, echo):
    talker = await serve(echo, body_bytes=1000)
    client = await talker.connect()
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000)
    assert (await client.answer())[0] == 413


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
        GET + b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
    ids=["in its head", "in its body", "in the second"],
)
async def test_a_request_that_stops_coming_is_refused_in_time(serve, echo, data):
    answers = await (await serve(echo, header_s=0.1, body_s=0.1)).ask(data)
    assert answers.count(b"HTTP/1.1 408 ") == 1
    assert b'"code":"timeout"' in answers


@pytest.mark.parametrize("data", [b"", GET], ids=["never asks", "asks no more"])
async def test_a_silent_client_is_sent_away_without_a_word(serve, echo, data):
    answers = await (await serve(echo, header_s=0.1, idle_s=0.1)).ask(data)
    assert answers.count(b"HTTP/1.1 ") == (1 if data else 0)


async def test_line_ends_alone_keep_no_connection_open(serve, tasks, echo):
    client = await (await serve(echo, header_s=0.1)).connect()

    async def rest():
        try:
            return await client.rest()
        except ConnectionResetError:  # the last line end met a closed door
            return b""

    reading = tasks.create_task(rest())
    while not reading.done():
        client.send(b"\r\n")
        await asyncio.sleep(0.01)
    assert reading.result() == b""


async def test_a_slow_service_is_no_slow_client(serve, recorder):
    client = await (await serve(recorder, header_s=0.05, body_s=0.05, idle_s=0.05)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    await asyncio.sleep(0.2)
    exchange.respond(200, [], b"late")
    assert (await client.answer())[2] == b"late"


async def test_one_client_too_many_is_told_so(serve, echo):
    talker = await serve(echo, connections=1)
    first = await talker.connect()
    first.send(GET)
    await first.answer()
    refused = await talker.ask(b"")
    assert b"HTTP/1.1 503 " in refused
    assert b"\r\nretry-after: 1\r\n" in refused
    first.send(GET)
    assert (await first.answer())[0] == 200
    assert talker.listener.connections == 1


async def test_a_flood_of_pipelined_requests_stops_being_read(serve, eventually, recorder):
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET * 400_000)
    await recorder.get(0)
    await eventually(lambda: client.writer.transport.get_write_buffer_size() > 0)
    (connection,) = talker.listener._connections
    await eventually(lambda: connection._held)
    assert len(connection._reader.requests) < 300
    client.drop()
    recorder.seen[0].abort()


def post(length: int, sent: int | None = None) -> bytes:
    body = b"b" * (length if sent is None else sent)
    return POST + b"content-length: %d\r\n\r\n" % length + body


async def test_bodies_are_held_up_to_a_sum_and_what_is_over_is_told_to_come_back(serve, recorder):
    talker = await serve(recorder, body_bytes=1000, in_flight_bytes=1500)
    first, second = await talker.connect(), await talker.connect()
    first.send(post(1000))
    exchange = await recorder.get(0)
    second.send(post(1000, sent=501))
    status, fields, body = await second.answer()
    assert (status, fields["retry-after"]) == (503, "1")
    assert json.loads(body)["code"] == "overloaded"
    assert talker.listener.room.held_bytes == 1000
    exchange.respond(200, [], b"")
    assert (await first.answer())[0] == 200
    for number in range(1, 4):  # answered: its room is free again
        first.send(post(1000))
        (await recorder.get(number)).respond(200, [], b"")
        assert (await first.answer())[0] == 200


async def held(talker, count_bytes: int) -> None:
    """Wait until the bodies that are held come to so much."""
    async with asyncio.timeout(2):
        while talker.listener.room.held_bytes != count_bytes:  # noqa: ASYNC110  # inner state
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("sent", [300, 1000], ids=["half a body", "a whole one"])
async def test_who_leaves_gives_the_room_of_its_body_back(serve, recorder, sent):
    talker = await serve(recorder, body_bytes=1000, in_flight_bytes=1000)
    client = await talker.connect()
    client.send(post(1000, sent))
    await held(talker, sent)
    client.drop()
    await held(talker, 0)


async def test_announcing_a_body_takes_no_room(serve, recorder):
    talker = await serve(recorder, body_bytes=1000, in_flight_bytes=1000)
    slow, quick = await talker.connect(), await talker.connect()
    slow.send(post(1000, sent=0))
    quick.send(post(1000))
    (await recorder.get(0)).respond(200, [], b"")
    assert (await quick.answer())[0] == 200


def test_one_body_must_have_room():
    with pytest.raises(ValueError, match="in_flight_bytes"):
        Limits(body_bytes=1001, in_flight_bytes=1000)
