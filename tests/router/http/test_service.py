"""Async handlers behind a real listener."""

import asyncio
import json

import pytest

from isochrone.router.errors import Overloaded
from isochrone.router.http.service import asynchronous
from isochrone.router.wire.http import Response

GET = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"


async def asked(serve, handler, tasks, **limits):
    talker = await serve(asynchronous(handler, tasks), **limits)
    client = await talker.connect()
    client.send(GET)
    return client


async def test_a_handler_answers(serve, tasks):
    async def handler(request):
        await asyncio.sleep(0)
        return Response(201, [(b"x-path", request.path.encode())], b"done")

    status, headers, body = await (await asked(serve, handler, tasks)).answer()
    assert (status, headers["x-path"], body) == (201, "/x", b"done")


async def test_an_error_of_ours_is_told_with_its_status(serve, tasks):
    async def handler(_):
        raise Overloaded("full", retry_after_s=2)

    status, headers, body = await (await asked(serve, handler, tasks)).answer()
    assert (status, headers["retry-after"]) == (503, "2")
    assert json.loads(body) == {"error": "full", "code": "overloaded"}


async def test_anything_else_is_a_500_that_tells_nothing(serve, tasks, caplog):
    async def handler(_):
        raise ValueError("secret")

    status, _, body = await (await asked(serve, handler, tasks)).answer()
    assert (status, json.loads(body)["code"]) == (500, "internal")
    assert b"secret" not in body
    assert "secret" in caplog.text


async def test_a_stream_is_passed_on_as_it_comes(serve, tasks):
    gate = asyncio.Event()

    async def chunks():
        yield b"one"
        await gate.wait()
        yield b"two"

    async def handler(_):
        return Response(200, [], chunks())

    client = await asked(serve, handler, tasks)
    await client.reader.readuntil(b"\r\n\r\n")
    parts = client.chunks()
    assert await anext(parts) == b"one"
    gate.set()
    assert await anext(parts) == b"two"
    assert await anext(parts, None) is None


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("", b"\r\n0\r\n\r\n"),
        ("deadline_exceeded", b"\r\n0\r\nx-isochrone-end: deadline_exceeded\r\n\r\n"),
    ],
)
async def test_a_stream_that_an_error_ended_says_so_in_a_trailer(serve, tasks, code, end):
    async def parts():
        yield b"part"

    async def handler(_):
        return Response(200, [], parts(), lambda: code)

    talker = await serve(asynchronous(handler, tasks))
    data = b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    assert (await talker.ask(data)).endswith(b"part" + end)


async def test_a_stream_that_fails_at_once_is_told_as_an_error(serve, tasks):
    async def chunks():
        for chunk in (b"never",):
            if chunk:
                raise Overloaded("full")
            yield chunk

    async def handler(_):
        return Response(200, [], chunks())

    assert (await (await asked(serve, handler, tasks)).answer())[0] == 503


async def test_a_stream_that_fails_later_is_cut(serve, tasks, caplog):
    async def chunks():
        yield b"one"
        raise ValueError("secret")

    async def handler(_):
        return Response(200, [], chunks())

    client = await asked(serve, handler, tasks)
    assert b"one" in await client.reader.readuntil(b"one\r\n")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await client.reader.readuntil(b"0\r\n\r\n")
    assert "secret" in caplog.text


async def test_a_client_that_goes_cancels_its_handler(serve, tasks):
    started, ended = asyncio.Event(), asyncio.Event()

    async def handler(_):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Response(200)

    client = await asked(serve, handler, tasks)
    await started.wait()
    client.drop()
    await ended.wait()


async def test_whatever_can_be_closed_is_closed_when_the_client_goes(serve, tasks):
    closed = asyncio.Event()

    class Chunks:
        def __aiter__(self):
            return self

        async def __anext__(self):
            await asyncio.sleep(0)
            return b"x"

        async def aclose(self):
            closed.set()

    async def handler(_):
        return Response(200, [], Chunks())

    client = await asked(serve, handler, tasks)
    await client.reader.readuntil(b"\r\n\r\n")
    client.drop()
    await closed.wait()


async def test_a_slow_reader_holds_its_stream_back_and_its_leaving_closes_it(serve, tasks):
    made, closed = 0, asyncio.Event()

    async def chunks():
        nonlocal made
        try:
            while True:
                made += 1
                yield b"x" * 65536
        finally:
            closed.set()

    async def handler(_):
        return Response(200, [], chunks())

    client = await asked(serve, handler, tasks, write_buffer_bytes=65536)
    client.writer.transport.pause_reading()
    before = -1
    while made != before:
        before = made
        await asyncio.sleep(0.02)
    assert made < 1000
    client.drop()
    await closed.wait()
