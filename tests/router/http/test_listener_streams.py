"""Streamed answers: chunks, lengths, back-pressure, cuts."""

import asyncio

import pytest

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


async def test_a_stream_arrives_chunk_by_chunk(serve, recorder):
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


async def test_a_stream_with_a_length_keeps_it(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.start(200, [(b"content-length", b"4")])
    exchange.write(b"ab")
    exchange.write(b"cd")
    exchange.finish()
    assert (await client.answer())[2] == b"abcd"


async def test_a_stream_to_http_1_0_ends_with_the_connection(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    exchange = await recorder.get(0)
    exchange.start(200, [])
    exchange.write(b"abc")
    exchange.finish()
    _, headers, body = await client.answer()
    assert (headers["connection"], body) == ("close", b"abc")


@pytest.mark.parametrize("parts", [[b"abc"], [b"abc", b"def"]], ids=["too little", "too much"])
async def test_a_stream_that_breaks_its_length_is_cut(serve, recorder, parts):
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


async def test_an_aborted_stream_can_be_told_from_a_whole_one(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.start(200, [])
    exchange.write(b"abc")
    exchange.abort()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
        await client.answer()


async def test_a_slow_reader_pauses_the_stream_and_resumes_it(serve, tasks, recorder):
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
    answer = tasks.create_task(client.answer())
    await resumed.wait()
    exchange.finish()
    assert len((await answer)[2]) == written


async def test_a_client_that_reads_nothing_is_dropped(serve, eventually, recorder):
    talker = await serve(recorder, write_buffer_bytes=65536, idle_s=0.1)
    client = await talker.connect()
    client.writer.transport.pause_reading()
    client.send(GET)
    exchange = await recorder.get(0)
    exchange.start(200, [])
    for _ in range(200):
        exchange.write(b"x" * 65536)
    await eventually(lambda: recorder.gone)
    assert talker.listener.connections == 0


async def test_answers_that_are_not_taken_count_and_the_longest_stuck_is_cut(
    serve, eventually, recorder
):
    """However many clients read nothing, all of them together hold no more than the limit."""
    talker = await serve(recorder, body_bytes=1000, in_flight_bytes=24 << 20)
    clients = []
    for number in range(6):
        client = await talker.connect()
        clients.append(client)
        client.writer.transport.pause_reading()
        client.send(GET)
        (await recorder.get(number)).respond(200, [], b"x" * (10 << 20))
        assert talker.listener.room.held_bytes <= 24 << 20
        assert talker.listener.room.held_bytes > 0
    await eventually(lambda: talker.listener.connections < 4)
    last = clients[-1]
    last.writer.transport.resume_reading()
    assert len((await last.answer())[2]) == 10 << 20, "who came last was not cut"
    await eventually(lambda: talker.listener.room.held_bytes < 24 << 20)


async def test_what_a_client_takes_and_what_a_cut_one_left_is_given_back(
    serve, eventually, recorder
):
    talker = await serve(recorder)
    taking, leaving = await talker.connect(), await talker.connect()
    for number, client in enumerate((taking, leaving)):
        client.writer.transport.pause_reading()
        client.send(GET)
        (await recorder.get(number)).respond(200, [], b"x" * (10 << 20))
    assert talker.listener.room.held_bytes > 10 << 20
    leaving.writer.transport.abort()
    taking.writer.transport.resume_reading()
    await taking.answer()
    await eventually(lambda: talker.listener.room.held_bytes == 0)


async def test_too_many_header_fields_are_refused(serve, recorder):
    client = await (await serve(recorder)).connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a:b\r\n" * 256 + b"\r\n")
    status, _, body = await client.answer()
    assert status == 431
    assert b"256 header fields" in body
