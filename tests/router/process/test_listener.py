"""The listener over real sockets: order, limits, deadlines, back-pressure, drain."""

import asyncio
import json

import pytest

from router.process.exchange import Exchange
from router.process.listener import Limits
from router.process.settings import Settings

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


class Recorder:
    """A service that keeps what it is given, for the test to answer."""

    def __init__(self):
        self.seen = []
        self.gone = []
        self._came = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.watch(gone=lambda: self.gone.append(exchange.request.path))
        self.seen.append(exchange)
        self._came.set()

    async def get(self, number: int) -> Exchange:
        while len(self.seen) <= number:
            self._came.clear()
            await self._came.wait()
        return self.seen[number]


def echo(exchange: Exchange) -> None:
    request = exchange.request
    shown = f"{request.method} {request.path} {request.query} ".encode() + request.body
    exchange.respond(200, [(b"content-type", b"text/plain")], shown)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


async def test_an_answer_carries_the_listeners_fields(serve):
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


async def test_the_request_says_who_sent_it_and_when(serve):
    recorder = Recorder()
    client = await (await serve(recorder)).connect()
    client.send(b"GET / HTTP/1.1\r\nHOST: a\r\nX-Twice: 1\r\nx-twice:  2 \r\n\r\n")
    request = (await recorder.get(0)).request
    assert request.peer == "127.0.0.1"
    assert request.received_s > 0
    assert request.headers == [(b"host", b"a"), (b"x-twice", b"1"), (b"x-twice", b"2")]


async def test_bytes_may_come_one_by_one(serve):
    talker = await serve(echo)
    client = await talker.connect()
    whole = b"POST /p HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    whole += b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\ntrailer: 1\r\n\r\n"
    for byte in whole:
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer())[2] == b"POST /p  abcde"


async def test_pipelined_requests_are_answered_in_order_whoever_is_ready_first(serve):
    recorder = Recorder()
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


async def test_a_flood_of_pipelined_requests_stops_being_read(serve):
    recorder = Recorder()
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET * 400_000)
    await recorder.get(0)
    await until(lambda: client.writer.transport.get_write_buffer_size() > 0)
    (connection,) = talker.listener._connections
    await until(lambda: connection._held)
    assert len(connection._reader.requests) < 300
    client.drop()
    recorder.seen[0].abort()


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
async def test_connections_are_kept_as_the_client_says(serve, head, kept):
    client = await (await serve(echo)).connect()
    client.send(head)
    _, headers, _ = await client.answer()
    assert headers.get("connection") == kept
    if kept == "close":
        assert await client.rest() == b""
    else:
        client.send(head)
        assert (await client.answer())[0] == 200


async def test_head_is_answered_without_a_body(serve):
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
        b"POST /1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
        b"content-length: 2\r\n\r\nab",
    ],
    ids=["without a body", "with a body"],
)
async def test_an_upgrade_is_ignored(serve, upgrade):
    client = await (await serve(echo)).connect()
    client.send(upgrade + LAST)
    assert (await client.answer())[2].split()[1] == b"/1"
    assert (await client.answer())[2] == b"GET /last  "


async def test_a_hundred_is_sent_when_it_is_waited_for(serve):
    client = await (await serve(echo)).connect()
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert (await client.answer())[0] == 100
    client.send(b"ok")
    assert (await client.answer())[2] == b"POST /  ok"


async def test_a_hundred_waits_for_the_answer_before_it(serve):
    recorder = Recorder()
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


REFUSED = {
    "two lengths": (400, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na"),
    "a signed length": (400, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello"),
    "a length that overflows": (400, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n"),
    "length and chunks": (400, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunks and length": (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
    "a coding before chunked": (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "another coding": (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunks in 1.0": (400, b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a bad chunk size": (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk that is too long": (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
    "a bare line feed in a chunk": (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "a host that is none": (400, b"GET / HTTP/1.1\r\nhost: a/b@c\r\n\r\n"),
    "a folded field": (400, b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n"),
    "space before the colon": (400, b"GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
    "a bad field name": (400, b"GET / HTTP/1.1\r\nhost: a\r\nx(y): a\r\n\r\n"),
    "NUL in a value": (400, b"GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n"),
    "bare line feeds": (400, b"GET / HTTP/1.1\nhost: a\n\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/1.7": (400, b"GET / HTTP/1.7\r\nhost: a\r\n\r\n"),
    "the preface of HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "an unknown method": (400, b"BREW / HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a tunnel": (501, b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    "another expectation": (417, b"POST / HTTP/1.1\r\nhost: a\r\nexpect: x\r\ncontent-length: 1\r\n\r\na"),
    "an encoded slash": (400, b"GET /a%2Fb HTTP/1.1\r\nhost: a\r\n\r\n"),
    "an encoded NUL": (400, b"GET /a%00b HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a path that is not UTF-8": (400, b"GET /a%ff HTTP/1.1\r\nhost: a\r\n\r\n"),
    "dot segments": (400, b"GET /v2/%2e%2e/x HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a fragment": (400, b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a head that is too large": (431, b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: %b\r\n" % (b"y" * 100) * 50 + b"\r\n"),
    "one field without end": (431, b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 20_000),
    "a target without end": (431, b"GET /" + b"y" * 20_000),
    "a long body": (413, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4097\r\n\r\n"),
    "a long body that is waited for": (413, b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4097\r\n\r\n"),
    "long chunks": (413, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + b"400\r\n%b\r\n" % (b"z" * 1024) * 5),
    "a chunk extension without end": (431, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 20_000),
    "trailers without end": (431, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 4000),
}  # fmt: skip  # a table reads better than wrapped lines


@pytest.mark.parametrize(("status", "data"), REFUSED.values(), ids=REFUSED.keys())
async def test_is_refused_with_one_answer_and_a_close(serve, status, data):
    recorder = Recorder()
    talker = await serve(recorder, body_bytes=4096, header_bytes=4096)
    client = await talker.connect()
    client.send(data)
    found, headers, body = await client.answer()
    assert found == status
    assert headers["connection"] == "close"
    assert json.loads(body).keys() == {"error", "code"}
    client.send(GET)
    assert await client.rest() == b""
    assert recorder.seen == []


async def test_rubbish_after_a_request_is_refused_after_its_answer(serve):
    recorder = Recorder()
    client = await (await serve(recorder)).connect()
    client.send(GET + b"rubbish\r\n\r\n")
    (await recorder.get(0)).respond(200, [], b"fine")
    assert (await client.answer())[2] == b"fine"
    assert (await client.answer())[0] == 400
    assert await client.rest() == b""


async def test_nothing_after_the_last_request_is_looked_at(serve):
    answers = await (await serve(echo)).ask(LAST + GET + b"rubbish")
    assert answers.count(b"HTTP/1.1 ") == 1


async def test_a_refused_client_that_still_sends_gets_its_answer(serve):
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
async def test_a_request_that_stops_coming_is_refused_in_time(serve, data):
    answers = await (await serve(echo, header_s=0.1, body_s=0.1)).ask(data)
    assert answers.count(b"HTTP/1.1 408 ") == 1
    assert b'"code":"timeout"' in answers


@pytest.mark.parametrize("data", [b"", GET], ids=["never asks", "asks no more"])
async def test_a_silent_client_is_sent_away_without_a_word(serve, data):
    answers = await (await serve(echo, header_s=0.1, idle_s=0.1)).ask(data)
    assert answers.count(b"HTTP/1.1 ") == (1 if data else 0)


async def test_line_ends_alone_keep_no_connection_open(serve):
    client = await (await serve(echo, header_s=0.1)).connect()
    reading = asyncio.ensure_future(client.rest())  # noqa: TID251  # awaited below
    while not reading.done():
        client.send(b"\r\n")
        await asyncio.sleep(0.01)
    assert reading.exception() is not None or reading.result() == b""


async def test_a_slow_service_is_no_slow_client(serve):
    recorder = Recorder()
    client = await (await serve(recorder, header_s=0.05, body_s=0.05, idle_s=0.05)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    await asyncio.sleep(0.2)
    exchange.respond(200, [], b"late")
    assert (await client.answer())[2] == b"late"


async def test_one_client_too_many_is_told_so(serve):
    talker = await serve(echo, connections=1)
    first = await talker.connect()
    first.send(GET)
    await first.answer()
    assert b"HTTP/1.1 503 " in await talker.ask(b"")
    first.send(GET)
    assert (await first.answer())[0] == 200
    assert talker.listener.connections == 1


async def test_a_client_that_goes_is_noticed_once(serve):
    recorder = Recorder()
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET)
    exchange = await recorder.get(0)
    assert talker.listener.in_flight == 1
    client.drop()
    await until(lambda: recorder.gone)
    assert exchange.gone
    exchange.respond(200, [], b"to nobody")
    exchange.start(200, [])
    exchange.write(b"to nobody")
    exchange.finish()
    exchange.abort()
    assert recorder.gone == ["/"]
    assert (talker.listener.in_flight, talker.listener.connections) == (0, 0)


async def test_an_answered_client_that_goes_concerns_nobody(serve):
    recorder = Recorder()
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET)
    (await recorder.get(0)).respond(200, [], b"")
    await client.answer()
    client.drop()
    await until(lambda: talker.listener.connections == 0)
    assert recorder.gone == []


async def test_a_service_that_fails_is_answered_for_and_logged(serve, caplog):
    def service(exchange):
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


async def test_an_exchange_is_answered_once(serve):
    recorder = Recorder()
    client = await (await serve(recorder)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.respond(200, [], b"")
    with pytest.raises(RuntimeError, match="once"):
        exchange.respond(200, [], b"")
    with pytest.raises(RuntimeError, match="once"):
        exchange.finish()


async def test_a_stream_arrives_chunk_by_chunk(serve):
    recorder = Recorder()
    client = await (await serve(recorder)).connect()
    client.send(GET + LAST)
    exchange = await recorder.get(0)
    exchange.start(200, [(b"content-type", b"text/event-stream")])
    assert b"transfer-encoding: chunked" in await client.reader.readuntil(b"\r\n\r\n")
    chunks = client.chunks()
    for part in (b"data: 1\n\n", b"data: 2\n\n"):
        exchange.write(part)
        exchange.write(b"")  # would end a chunked body
        assert await anext(chunks) == part
    exchange.finish()
    assert await anext(chunks, None) is None
    assert (await recorder.get(1)).request.path == "/last"


async def test_a_stream_with_a_length_keeps_it(serve):
    recorder = Recorder()
    client = await (await serve(recorder)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.start(200, [(b"content-length", b"4")])
    exchange.write(b"ab")
    exchange.write(b"cd")
    exchange.finish()
    assert (await client.answer())[2] == b"abcd"


async def test_a_stream_to_http_1_0_ends_with_the_connection(serve):
    recorder = Recorder()
    client = await (await serve(recorder)).connect()
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    exchange = await recorder.get(0)
    exchange.start(200, [])
    exchange.write(b"abc")
    exchange.finish()
    _, headers, body = await client.answer()
    assert (headers["connection"], body) == ("close", b"abc")


@pytest.mark.parametrize("parts", [[b"abc"], [b"abc", b"def"]], ids=["too little", "too much"])
async def test_a_stream_that_breaks_its_length_is_cut(serve, parts):
    recorder = Recorder()
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.start(200, [(b"content-length", b"4")])
    for part in parts:
        exchange.write(part)
    exchange.finish()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await client.answer()
    assert talker.listener.in_flight == 0
    assert recorder.gone == []


async def test_an_aborted_stream_can_be_told_from_a_whole_one(serve):
    recorder = Recorder()
    client = await (await serve(recorder)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.start(200, [])
    exchange.write(b"abc")
    exchange.abort()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
        await client.answer()


async def test_a_slow_reader_pauses_the_stream_and_resumes_it(serve):
    recorder = Recorder()
    client = await (await serve(recorder, write_buffer_bytes=65536)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    paused, resumed = asyncio.Event(), asyncio.Event()
    exchange.watch(gone=lambda: None, pause=paused.set, resume=resumed.set)
    exchange.start(200, [])
    written = 0
    while not paused.is_set():
        exchange.write(b"x" * 65536)
        written += 65536
        await asyncio.sleep(0)
    answer = asyncio.ensure_future(client.answer())  # noqa: TID251  # awaited below
    await resumed.wait()
    exchange.finish()
    assert len((await answer)[2]) == written


async def test_a_client_that_reads_nothing_is_dropped(serve):
    recorder = Recorder()
    talker = await serve(recorder, write_buffer_bytes=65536, idle_s=0.1)
    client = await talker.connect()
    client.writer.transport.pause_reading()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.start(200, [])
    for _ in range(200):
        exchange.write(b"x" * 65536)
    await until(lambda: recorder.gone)
    assert talker.listener.connections == 0


async def test_drain_finishes_what_runs_and_closes_what_idles(serve):
    recorder = Recorder()
    talker = await serve(recorder)
    idle, busy = await talker.connect(), await talker.connect()
    idle.send(GET)
    (await recorder.get(0)).respond(200, [], b"")
    await idle.answer()
    busy.send(GET)
    exchange = await recorder.get(1)
    draining = asyncio.ensure_future(talker.listener.drain(5))  # noqa: TID251  # awaited below
    assert await idle.rest() == b""
    with pytest.raises(OSError):  # noqa: PT011  # refused or reset, as the system likes
        await talker.connect()
    exchange.respond(200, [], b"whole")
    _, headers, body = await busy.answer()
    assert (headers["connection"], body) == ("close", b"whole")
    assert await draining == 0


async def test_drain_waits_for_a_request_that_is_half_here(serve):
    talker = await serve(echo)
    client = await talker.connect()
    client.send(GET[:10])
    await until(lambda: any(c.busy for c in talker.listener._connections))
    draining = asyncio.ensure_future(talker.listener.drain(5))  # noqa: TID251  # awaited below
    await asyncio.sleep(0)
    client.send(GET[10:])
    assert (await client.answer())[1]["connection"] == "close"
    assert await draining == 0


async def test_drain_counts_what_it_cuts(serve):
    recorder = Recorder()
    talker = await serve(recorder)
    client = await talker.connect()
    client.send(GET)
    await recorder.get(0)
    assert await talker.listener.drain(0.05) == 1
    assert recorder.gone == ["/"]
    assert (talker.listener.connections, talker.listener.in_flight) == (0, 0)


def test_limits_can_stand_in_a_configuration_file():
    assert issubclass(Limits, Settings)
    assert Limits().body_bytes == 16 << 20
