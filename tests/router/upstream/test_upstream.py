"""The HTTP/1.1 upstream against endpoints that answer with raw bytes, well and badly."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import BadRequest
from isochrone.router.process.clock import monotonic
from isochrone.router.upstream.event import Cause, Chunk, End, Head, Lost
from isochrone.router.upstream.http_call import (
    JOINED_BYTES,
    HttpCall,
    UpstreamConnection,
    encode_head,
)
from isochrone.router.upstream.response_reader import ResponseReader
from isochrone.router.upstream.upstream import HttpUpstream
from isochrone.router.wire.http import Request

GET = Request("GET", "/v2/x", [])
CHUNKED = b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Heard:
    """The events of one call."""

    def __init__(self):
        self.events = []
        self._more = asyncio.Event()

    def __call__(self, events):
        self.events += events
        self._more.set()

    async def until(self, condition):
        while not condition(self.events):
            self._more.clear()
            await self._more.wait()

    async def end(self):
        """All events up to the last; chunks joined."""
        await self.until(lambda events: events and isinstance(events[-1], End | Lost))
        return self.events

    @property
    def body(self):
        return b"".join(e.data for e in self.events if isinstance(e, Chunk))


class Visit:
    """One connection at the endpoint."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def request(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next((int(x.split(":")[1]) for x in lines if x.startswith("content-length")), 0)
        return head + await self.reader.readexactly(length)

    def reply(self, data):
        self.writer.write(data)

    async def gone(self):
        """The other side has closed."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def close(self):
        self.writer.close()

    def reset(self):
        self.writer.transport.abort()


class Endpoint:
    """A raw server: each connection is a `Visit` that the test plays."""

    def __init__(self, port, visits, stack, tasks):
        self.port = port
        self.visits = visits
        self._stack = stack
        self._tasks = tasks

    def upstream(self, host="127.0.0.1", **options):
        options.setdefault("clock", monotonic)
        way = HttpUpstream(f"http://{host}:{self.port}", tasks=self._tasks, **options)
        self._stack.push_async_callback(way.close)
        return way

    async def visit(self):
        return await self.visits.get()

    async def exchange(self, upstream, answer=OK, request=GET):
        """One whole call over whichever connection is new."""
        heard = Heard()
        upstream.send(request, heard)
        visit = await self.visit()
        await visit.request()
        visit.reply(answer)
        await heard.end()
        return visit, heard


@pytest.fixture
async def endpoint():
    visits: asyncio.Queue[Visit] = asyncio.Queue()

    def visited(reader, writer):
        stack.callback(writer.close)
        visits.put_nowait(Visit(reader, writer))

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        server = await asyncio.start_server(visited, "127.0.0.1", 0)
        stack.callback(server.close)
        yield Endpoint(server.sockets[0].getsockname()[1], visits, stack, tasks)


async def test_a_request_is_written_for_this_hop(endpoint):
    upstream, heard = endpoint.upstream(), Heard()
    headers = [
        (b"host", b"elsewhere"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"99"),
        (b"expect", b"100-continue"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
    ]
    upstream.send(Request("POST", "/v2/é x", headers, b"body", query="a=%2f"), heard)
    visit = await endpoint.visit()
    host = b"127.0.0.1:%d" % endpoint.port
    assert await visit.request() == (
        b"POST /v2/%C3%A9%20x?a=%2f HTTP/1.1\r\nhost: " + host + b"\r\n"
        b"x-a: 1\r\nx-a: 2\r\ncontent-length: 4\r\n\r\nbody"
    )
    visit.reply(OK)
    assert await heard.end() == [
        Head(200, [(b"content-length", b"2")]),
        Chunk(b"ok"),
        End(),
    ]


async def test_a_connection_is_kept_and_costs_no_task(endpoint):
    upstream = endpoint.upstream()
    visit, _ = await endpoint.exchange(upstream)
    before = len(asyncio.all_tasks())
    for _ in range(3):
        heard = Heard()
        upstream.send(GET, heard)
        assert heard.events == []  # never before send returns
        assert len(asyncio.all_tasks()) == before
        await visit.request()
        visit.reply(OK)
        await heard.end()
    assert endpoint.visits.empty()


async def test_requests_at_once_have_connections_of_their_own(endpoint):
    upstream = endpoint.upstream(max_idle=1)
    calls = [Heard(), Heard()]
    for heard in calls:
        upstream.send(GET, heard)
    visits = [await endpoint.visit(), await endpoint.visit()]
    for visit, heard in zip(visits, calls, strict=True):
        await visit.request()
        visit.reply(OK)
        assert (await heard.end())[-1] == End()
    assert await visits[1].gone() == b""  # one too many to keep


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:  0 \r\n\r\n", b""),
        (CHUNKED + b"5;x\r\nhello\r\n0\r\nt: 1\r\n\r\n", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (b"HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n", b""),
    ],
    ids=["a length", "no body", "chunks", "interim answers first", "204", "304 with a length"],
)
async def test_an_answer_byte_by_byte_is_the_same_and_keeps_the_connection(endpoint, answer, body):
    upstream, heard = endpoint.upstream(), Heard()
    upstream.send(GET, heard)
    visit = await endpoint.visit()
    await visit.request()
    for byte in answer:
        visit.reply(bytes([byte]))
        await asyncio.sleep(0)
    events = await heard.end()
    assert [type(e) for e in events if not isinstance(e, Chunk)] == [Head, End]
    assert heard.body == body
    again = Heard()
    upstream.send(GET, again)
    await visit.request()
    visit.reply(OK)
    assert (await again.end())[-1] == End()


async def test_an_answer_to_head_has_no_body_whatever_its_length(endpoint):
    upstream = endpoint.upstream()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"
    visit, heard = await endpoint.exchange(upstream, answer, Request("HEAD", "/", []))
    assert heard.events == [Head(200, [(b"content-length", b"500")]), End()]
    again = Heard()
    upstream.send(GET, again)
    await visit.request()
    visit.reply(OK)
    await again.end()
    assert again.body == b"ok"


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"],
    ids=["1.1", "1.0"],
)
async def test_an_answer_without_framing_ends_at_the_close(endpoint, head):
    upstream, heard = endpoint.upstream(), Heard()
    upstream.send(GET, heard)
    visit = await endpoint.visit()
    await visit.request()
    visit.reply(head + b"abc")
    await heard.until(lambda events: len(events) == 2)
    visit.close()
    assert (await heard.end())[-1] == End()
    assert heard.body == b"abc"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\n",
        OK + b"rubbish",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nokrubbish",
    ],
    ids=["close", "1.0", "a second answer", "rubbish after it", "rubbish after close"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(endpoint, answer):
    upstream = endpoint.upstream()
    visit, heard = await endpoint.exchange(upstream, answer)
    assert (heard.events[-1], heard.body) == (End(), b"ok")
    assert await visit.gone() == b""
    await endpoint.exchange(upstream)


@pytest.mark.parametrize(
    "answer",
    [
        b"rubbish\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 99 No\r\n\r\n",
        b"HTTP/1.1 999 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 400_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
    ],
    ids=[
        "rubbish", "another protocol", "HTTP/2.0", "status 99", "status 999", "a switch",
        "two lengths", "a negative length", "length and chunks", "chunks in 1.0",
        "another coding", "a head without end", "interim answers without end",
    ],
)  # fmt: skip  # ids in rows
async def test_what_is_no_answer_is_malformed(endpoint, answer):
    visit, heard = await endpoint.exchange(endpoint.upstream(), answer)
    (lost,) = heard.events
    assert (type(lost), lost.cause) == (Lost, Cause.MALFORMED)
    await visit.gone()


async def test_bad_chunks_are_malformed_after_what_was_good(endpoint):
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nxx\r\n"
    _, heard = await endpoint.exchange(endpoint.upstream(), answer)
    assert [type(e) for e in heard.events] == [Head, Chunk, Lost]
    assert heard.events[-1].cause is Cause.MALFORMED


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
    ],
    ids=["before it", "in its head", "in its body", "between chunks"],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_endpoint_that_dies_in_its_answer_is_a_reset(endpoint, part, how):
    upstream, heard = endpoint.upstream(), Heard()
    upstream.send(GET, heard)
    visit = await endpoint.visit()
    await visit.request()
    visit.reply(part)
    if b"ab" in part:
        await heard.until(lambda events: len(events) == 2)
    getattr(visit, how)()
    events = await heard.end()
    assert events[-1].cause is Cause.RESET
    assert sum(isinstance(e, End | Lost) for e in events) == 1
    assert endpoint.visits.empty()  # a fresh connection is no keep-alive race


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_kept_connection_that_closes_at_the_next_request_is_replaced_unseen(
    endpoint, how, method
):
    upstream = endpoint.upstream()
    visit, _ = await endpoint.exchange(upstream)
    heard = Heard()
    upstream.send(Request(method, "/again", [], b"once"), heard)
    getattr(visit, how)()  # it crosses the request on the wire
    second = await endpoint.visit()
    assert (await second.request()).endswith(b"once")
    second.reply(OK)
    assert [type(e) for e in await heard.end()] == [Head, Chunk, End]


async def test_the_second_loss_is_told(endpoint):
    upstream = endpoint.upstream()
    visit, _ = await endpoint.exchange(upstream)
    heard = Heard()
    upstream.send(GET, heard)
    visit.close()
    second = await endpoint.visit()
    second.close()
    assert await heard.end() == [Lost(Cause.RESET, "before its answer")]
    assert endpoint.visits.empty()


@pytest.mark.parametrize(
    ("connect_s", "after_s", "replaced"),
    [
        pytest.param(0.0, 0.1, True, id="it was being closed"),
        pytest.param(0.0, 0.11, False, id="it had the request"),
        pytest.param(0.2, 0.4, True, id="it was being closed, far away"),
        pytest.param(0.2, 0.5, False, id="it had the request, even so"),
    ],
)
async def test_what_was_lost_long_after_it_was_sent_is_not_sent_again(
    endpoint, connect_s, after_s, replaced
):
    instants = iter([0.0, 0.0, connect_s])  # at the send, and around the connect
    now_s = [connect_s]
    upstream = endpoint.upstream(clock=lambda: next(instants, now_s[0]))
    visit, _ = await endpoint.exchange(upstream)
    heard = Heard()
    upstream.send(GET, heard)
    await visit.request()
    now_s[0] += after_s
    visit.close()
    if replaced:
        again = await endpoint.visit()
        await again.request()
        again.reply(OK)
        assert [type(e) for e in await heard.end()] == [Head, Chunk, End]
    else:
        assert await heard.end() == [Lost(Cause.RESET, "before its answer")]
        assert endpoint.visits.empty()


async def test_what_goes_only_once_takes_a_connection_of_its_own(endpoint):
    upstream = endpoint.upstream()
    await endpoint.exchange(upstream)
    heard = Heard()
    upstream.send(GET, heard, once=True)
    visit = await endpoint.visit()
    await visit.request()
    visit.close()
    assert await heard.end() == [Lost(Cause.RESET, "before its answer")]
    assert endpoint.visits.empty()


async def test_a_loss_after_which_nobody_listens_is_no_mere_refusal(endpoint):
    upstream = endpoint.upstream()
    visit, _ = await endpoint.exchange(upstream)
    upstream._connect_s = 0.0  # from now on nobody can connect
    heard = Heard()
    upstream.send(GET, heard)
    await visit.request()
    visit.close()  # it had the request: this may be what killed it
    assert await heard.end() == [Lost(Cause.RESET, "no connection within 0 s")]


async def test_a_kept_connection_that_answered_a_byte_is_not_replaced(endpoint):
    upstream = endpoint.upstream()
    visit, _ = await endpoint.exchange(upstream)
    heard = Heard()
    upstream.send(GET, heard)
    await visit.request()
    visit.reply(b"H")
    visit.close()
    assert (await heard.end())[-1].cause is Cause.RESET
    assert endpoint.visits.empty()


@pytest.mark.parametrize("unasked", [b"", OK], ids=["a close", "an answer"])
async def test_an_idle_connection_that_is_closed_or_speaks_is_discarded(endpoint, unasked):
    upstream = endpoint.upstream()
    visit, _ = await endpoint.exchange(upstream)
    visit.reply(unasked)
    if not unasked:
        visit.close()
    await visit.gone()
    _, heard = await endpoint.exchange(upstream)
    assert heard.body == b"ok"


async def test_nobody_there_is_refused(endpoint):
    heard = Heard()
    with socket.create_server(("127.0.0.1", 0)) as left:
        port = left.getsockname()[1]
    upstream = HttpUpstream(f"http://127.0.0.1:{port}", tasks=endpoint._tasks, clock=monotonic)
    upstream.send(GET, heard)
    assert heard.events == []
    assert await heard.end() == [Lost(Cause.REFUSED, "nobody listens there")]


async def test_a_connection_that_takes_too_long_is_refused(endpoint):
    upstream, heard = endpoint.upstream(connect_s=0.0), Heard()
    upstream.send(GET, heard)
    assert await heard.end() == [Lost(Cause.REFUSED, "no connection within 0 s")]


@pytest.mark.parametrize("moment", ["connecting", "waiting", "reading"])
async def test_after_a_cancel_nothing_is_told(endpoint, moment):
    upstream, heard = endpoint.upstream(), Heard()
    call = upstream.send(GET, heard)
    if moment == "connecting":
        call.cancel()
    else:
        visit = await endpoint.visit()
        await visit.request()
        if moment == "reading":
            visit.reply(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
            await heard.until(lambda events: len(events) == 2)
        call.cancel()
        visit.reply(OK)
        assert await visit.gone() == b""
    call.cancel()
    told = len(heard.events)
    if moment != "connecting":
        await endpoint.exchange(upstream)
    assert len(heard.events) == told


async def test_all_events_of_one_read_come_in_one_call(endpoint):
    upstream, heard, reads = endpoint.upstream(), Heard(), []

    def on_events(events):
        reads.append([type(e) for e in events])
        heard(events)

    upstream.send(GET, on_events)
    visit = await endpoint.visit()
    await visit.request()
    visit.reply(OK)
    await heard.end()
    assert reads == [[Head, Chunk, End]]


async def test_a_cancel_while_events_are_delivered_is_the_last_of_the_call(endpoint):
    upstream, heard = endpoint.upstream(), Heard()

    def on_events(events):
        heard(events)
        call.cancel()

    call = upstream.send(GET, on_events)
    visit = await endpoint.visit()
    await visit.request()
    visit.reply(OK[:-1])
    await visit.gone()
    assert [type(e) for e in heard.events] == [Head, Chunk]


async def test_the_next_request_may_be_sent_from_inside_the_last_event(endpoint):
    upstream, second = endpoint.upstream(), Heard()

    def on_events(events):
        if events[-1] == End():
            upstream.send(GET, second)

    upstream.send(GET, on_events)
    visit = await endpoint.visit()
    for _ in range(2):
        await visit.request()
        visit.reply(OK)
    await second.end()
    assert endpoint.visits.empty()


async def test_a_paused_answer_waits_and_its_connection_flows_again(endpoint):
    upstream, heard = endpoint.upstream(), Heard()
    call = upstream.send(GET, heard)
    call.pause()
    visit = await endpoint.visit()
    await visit.request()
    visit.reply(b"HTTP/1.1 200 OK\r\ncontent-length: 8000000\r\n\r\n" + b"x" * 8_000_000)
    await asyncio.sleep(0.05)  # time enough to read, if it did
    assert heard.events == []
    call.resume()
    await heard.until(lambda events: len(events) > 3)
    call.pause()
    call.resume()
    assert (await heard.end())[-1] == End()
    assert len(heard.body) == 8_000_000
    call.pause()
    call.resume()
    again = Heard()
    upstream.send(GET, again)
    await visit.request()
    visit.reply(OK)
    await again.end()


async def test_idle_connections_are_swept(endpoint):
    upstream = endpoint.upstream(idle_s=0.05)
    visit, _ = await endpoint.exchange(upstream)
    assert await visit.gone() == b""


async def test_what_hangs_half_open_and_is_given_up_leaves_no_connection(endpoint):
    upstream, heard = endpoint.upstream(), Heard()
    calls = [upstream.send(GET, heard) for _ in range(20)]
    visits = [await endpoint.visit() for _ in calls]
    assert not upstream.empty
    for call in calls:
        call.cancel()
    assert [await visit.gone() for visit in visits]
    while not upstream.empty:  # noqa: ASYNC110 - connections end in the loop's own time
        await asyncio.sleep(0)
    assert heard.events == []


@pytest.fixture
def names(monkeypatch):
    """What a resolver knows; of other names it says nothing."""
    known: dict[str, list[str]] = {}

    async def resolved(where, within_s):
        assert within_s < 1.0
        if where.host not in known:
            raise OSError("no resolver answers")
        return known[where.host]

    monkeypatch.setattr("isochrone.router.http.names.addresses", resolved)
    return known


async def test_the_last_good_address_is_used_while_no_resolver_answers(endpoint, names):
    names["edge.test"] = ["127.0.0.1"]
    upstream = endpoint.upstream("edge.test", max_idle=0)
    await endpoint.exchange(upstream)
    names.clear()
    _, heard = await endpoint.exchange(upstream)
    assert heard.body == b"ok"


async def test_of_several_addresses_one_that_takes_connections_is_used(endpoint, names):
    names["edge.test"] = ["127.0.0.2", "127.0.0.1"]
    _, heard = await endpoint.exchange(endpoint.upstream("edge.test"))
    assert heard.body == b"ok"


async def test_a_name_that_was_never_resolved_is_lost_as_refused(endpoint, names):
    assert names == {}
    heard = Heard()
    endpoint.upstream("edge.test").send(GET, heard)
    assert await heard.end() == [Lost(Cause.REFUSED, "cannot be reached")]


async def test_closing_loses_what_is_under_way(endpoint):
    upstream, waiting, reading = endpoint.upstream(), Heard(), Heard()
    visit, _ = await endpoint.exchange(upstream)
    upstream.send(GET, reading)
    await visit.request()
    visit.reply(b"HTTP/1.1 200 OK\r\n\r\nabc")
    await reading.until(lambda events: len(events) == 2)
    upstream.send(GET, waiting)
    await upstream.close()
    assert (await reading.end())[-1].cause is Cause.RESET
    assert (await waiting.end())[-1].cause is Cause.REFUSED
    late = Heard()
    upstream.send(GET, late)
    assert late.events == []
    assert await late.end() == [Lost(Cause.REFUSED, "it has left")]


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/", [(b"x", b"1\r\ny: 2")]),
        Request("GET", "/", [(b"x", b"1\ny: 2")]),
        Request("GET", "/", [], query="a b"),
        Request("GET", "/", [], query="a\r\n"),
    ],
    ids=["in a value", "bare", "a space in the query", "a line end in the query"],
)
def test_no_part_of_a_request_can_end_its_line(request_):
    with pytest.raises(ValueError, match=r"line end|visible"):
        encode_head(request_, b"a:1")


@pytest.mark.parametrize("url", ["https://a:1", "http://a", "http://a:1/x", "ftp://a:1", "a:1"])
def test_only_http_and_an_address_are_a_way(url):
    with pytest.raises(BadRequest, match="url must be"):
        HttpUpstream(url, tasks=asyncio.TaskGroup(), clock=monotonic)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_whatever_comes_it_ends_once(data, step):
    reader = ResponseReader()
    reader.begin("GET")
    events = []
    for start in range(0, len(data), step):
        events += reader.feed(data[start : start + step])
        if events and isinstance(events[-1], End | Lost):
            break
    assert sum(isinstance(event, End | Lost) for event in events) <= 1


async def test_without_leave_what_may_have_run_is_sent_once(endpoint):
    upstream = endpoint.upstream()
    visit, _ = await endpoint.exchange(upstream)
    heard = Heard()
    upstream.send(GET, heard, again=lambda: False)
    await visit.request()
    visit.close()
    assert await heard.end() == [Lost(Cause.RESET, "before its answer")]
    assert endpoint.visits.empty()


class Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


class Wires:
    """A pool without sockets: what it carried a call on, and what came back."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.made: list[tuple[UpstreamConnection, Wire]] = []

    def connect(self) -> UpstreamConnection:
        connection, wire = UpstreamConnection(self, lambda: self.now_s), Wire()
        connection.connection_made(wire)
        self.made.append((connection, wire))
        return connection

    def open_for(self, call) -> None:
        self.connect().carry(call, fresh=True)

    def stop_opening(self, call) -> None: ...

    def keep(self, connection) -> None: ...

    def forget(self, connection) -> None: ...


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([b"", b"HTTP/1.1 2", OK]), st.floats(0, 0.3)),
        max_size=30,
    ),
    st.integers(0, 5),
)
def test_nothing_is_written_more_often_than_there_is_leave_for(calls, budget):
    """Each call: on a kept connection or a new one, what it answers, when it is lost."""
    left: list[int] = [budget]

    def again() -> bool:
        left[0] -= 1
        return left[0] >= 0

    pool = Wires()
    ends = 0
    for kept, answer, after_s in calls:
        heard: list = []
        call = HttpCall(pool, b"GET", b"", "GET", heard.extend, again)
        pool.connect().carry(call, fresh=not kept)
        pool.now_s += after_s
        for _ in range(2):
            connection, _ = pool.made[-1]
            if answer and call.connection is connection:
                connection.data_received(answer)
            if call.connection is connection:
                connection.connection_lost(None)
        ends += sum(isinstance(event, End | Lost) for event in heard)
        assert call.on_events is None
    assert ends == len(calls)
    assert sum(len(wire.written) for _, wire in pool.made) <= len(calls) + budget


async def test_an_old_connection_carries_no_further_request(endpoint):
    now_s = [0.0]
    upstream = endpoint.upstream(clock=lambda: now_s[0], max_age_s=30.0)
    visit, _ = await endpoint.exchange(upstream)
    for _ in range(3):
        now_s[0] += 9.0
        heard = Heard()
        upstream.send(GET, heard)
        await visit.request()
        visit.reply(OK)
        await heard.end()
    assert endpoint.visits.empty()
    now_s[0] += 9.0
    await endpoint.exchange(upstream)
    assert await visit.gone() == b""


async def test_a_name_found_to_have_moved_at_a_new_connection_is_followed_by_all(endpoint, names):
    names["edge.test"] = ["127.0.0.1"]
    upstream = endpoint.upstream("edge.test", clock=lambda: 0.0)
    kept, running = Heard(), Heard()
    upstream.send(GET, kept)
    upstream.send(GET, running)
    idle, busy = await endpoint.visit(), await endpoint.visit()
    for visit in (idle, busy):
        await visit.request()
    idle.reply(OK)
    await kept.end()
    names["edge.test"] = ["127.0.0.2"]
    upstream.send(GET, Heard(), once=True)
    assert await idle.gone() == b""
    busy.reply(OK)
    assert (await running.end())[-1] == End()
    assert await busy.gone() == b""


async def test_a_name_that_has_moved_is_followed_while_connections_are_kept(endpoint):
    now_s, told, asked = [0.0], ["127.0.0.1"], []

    async def resolve(where, within_s):
        asked.append((where.host, within_s))
        if not told:
            raise OSError("no resolver answers")
        return list(told)

    upstream = endpoint.upstream("edge.test", clock=lambda: now_s[0], resolve=resolve)
    old, _ = await endpoint.exchange(upstream)
    running = Heard()
    upstream.send(GET, running)
    await old.request()
    told[:] = ["127.0.0.2", "127.0.0.1"]
    now_s[0] += 6.0
    second, _ = await endpoint.exchange(upstream)
    told.clear()
    now_s[0] += 6.0
    kept = Heard()
    upstream.send(GET, kept)
    await second.request()
    second.reply(OK)
    await kept.end()
    assert endpoint.visits.empty(), "while no resolver answers, connections stay"
    told[:] = ["127.0.0.2"]
    now_s[0] += 6.0
    last = Heard()
    upstream.send(GET, last)
    await second.request()
    second.reply(OK)
    await last.end()
    assert await second.gone() == b"", "the name leads elsewhere now"
    old.reply(OK)
    assert (await running.end())[-1] == End(), "what is under way may end"
    assert await old.gone() == b""
    assert len(asked) >= 4


def test_the_rest_of_a_body_of_known_length_is_passed_on_by_reference():
    reader = ResponseReader()
    for surplus in (b"", b"H"):
        reader.begin("GET")
        reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na")
        middle = b"middle"
        (chunk,) = reader.feed(middle)
        assert isinstance(chunk, Chunk)
        assert chunk.data is middle
        assert reader.feed(b"zz" + surplus) == [Chunk(b"zz"), End()]
        assert reader.reusable is not bool(surplus)


@pytest.mark.parametrize("size", [JOINED_BYTES, JOINED_BYTES + 1])
def test_a_large_request_body_is_written_by_reference(size):
    pool, body = Wires(), b"x" * size
    connection = pool.connect()
    connection.carry(HttpCall(pool, b"head", body, "POST", lambda _: None), fresh=True)
    wire = pool.made[0][1]
    assert b"".join(wire.written) == b"head" + body
    assert any(data is body for data in wire.written) is (size > JOINED_BYTES)
