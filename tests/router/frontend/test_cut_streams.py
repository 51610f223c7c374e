"""An answer that has begun and comes to no end is told by its end: counted, written, explained."""

import asyncio
import json
from contextlib import suppress

import pytest
from prometheus_client import generate_latest

from isochrone.router.dispatch.request import CLIENT_GONE

PATH = "/v2/models/digits/generate_stream"
ID = "cut-1"


def begin(exchange, fields=()):
    exchange.start(200, [(b"content-type", b"text/event-stream"), *fields])
    exchange.write(b"data: 1\n\n")


def broken(exchange):
    begin(exchange)
    exchange.abort()


def short(exchange):
    begin(exchange, [(b"content-length", b"9000000")])
    exchange.abort()


def silent(exchange):
    begin(exchange)


def whole(exchange):
    begin(exchange)
    exchange.finish()


def told(exchange):
    """As an agent ends a stream that it cannot go on with."""
    begin(exchange)
    exchange.write(b'data: {"error":"the model is gone","code":"crashed"}\n\n')
    exchange.finish("crashed")


def told_oddly(exchange):
    begin(exchange)
    exchange.finish("such-a-code")


async def opened(router, version=b"1.1", timeout=b"30"):
    host, port = router.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST %s HTTP/%s\r\nhost: x\r\nconnection: close\r\nx-request-id: %s\r\n" % (
        PATH.encode(),
        version,
        ID.encode(),
    )
    writer.write(head + b"x-request-timeout-seconds: %s\r\ncontent-length: 0\r\n\r\n" % timeout)
    await reader.readuntil(b"data: 1\n\n")
    return reader, writer


async def ended(router, tmp_path):
    """The counter's line, the access line and the decision of the one request."""
    await router.settled(lambda: router.router.decisions.tell(ID) is not None)
    path = tmp_path / "access.jsonl"
    await router.settled(lambda: path.exists() and bool(path.read_text()))
    (line,) = [json.loads(text) for text in path.read_text().splitlines()]
    page = generate_latest(router.router.registry).decode()
    (counted,) = [text for text in page.splitlines() if text.startswith("isochrone_requests_total")]
    return counted, line, router.router.decisions.tell(ID)


@pytest.mark.parametrize(
    ("behave", "timeout", "status", "code"),
    [
        pytest.param(broken, b"30", 502, "unusable_answer", id="the endpoint breaks off"),
        pytest.param(short, b"30", 502, "unusable_answer", id="less than was announced"),
        pytest.param(silent, b"0.3", 504, "deadline_exceeded", id="the deadline passes"),
        pytest.param(told, b"30", 500, "crashed", id="the endpoint tells of an error"),
        pytest.param(told_oddly, b"30", 200, None, id="what is no code is passed over"),
        pytest.param(whole, b"30", 200, None, id="whole"),
    ],
)
async def test_a_stream_is_told_by_its_end(
    start_router, start_endpoint, tmp_path, behave, timeout, status, code
):
    edge = await start_endpoint("edge")
    edge.behave = behave
    router = await start_router(edge, log={"access": str(tmp_path / "access.jsonl")})
    reader, writer = await opened(router, timeout=timeout)
    with suppress(ConnectionResetError):
        await reader.read()
    writer.close()
    counted, line, decision = await ended(router, tmp_path)
    assert f'status="{status}"' in counted
    assert (line["status"], line["code"], line["sent"]) == (status, code, 200)
    assert (decision["status"], decision["code"], decision["sent"]) == (status, code, 200)
    assert decision["ok"] == (status == 200)


async def test_a_client_that_leaves_in_a_stream_is_told_by_that(
    start_router, start_endpoint, tmp_path
):
    edge = await start_endpoint("edge")
    held = []

    def hold(exchange):
        begin(exchange)
        held.append(exchange)

    edge.behave = hold
    router = await start_router(edge, log={"access": str(tmp_path / "access.jsonl")})
    _, writer = await opened(router)
    writer.transport.abort()
    while router.router.decisions.tell(ID) is None:
        held[0].write(b"data: 2\n\n")
        await asyncio.sleep(0.01)
    counted, line, decision = await ended(router, tmp_path)
    assert 'status="0"' in counted
    assert (line["status"], line["code"], line["sent"]) == (0, CLIENT_GONE, 200)
    assert (decision["status"], decision["code"], decision["ok"]) == (0, CLIENT_GONE, False)
    assert held[0].gone


@pytest.mark.parametrize("behave", [broken, short])
async def test_a_client_of_http_1_0_sees_a_broken_answer_as_a_reset(
    start_router, start_endpoint, behave
):
    edge = await start_endpoint("edge")
    edge.behave = behave
    router = await start_router(edge)
    reader, writer = await opened(router, version=b"1.0")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_client_of_http_1_0_sees_a_whole_answer_end(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    edge.behave = whole
    router = await start_router(edge)
    reader, writer = await opened(router, version=b"1.0")
    assert await reader.read() == b""
    writer.close()
