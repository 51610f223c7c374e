"""The demo's clients: schedules, loops, and how answers are read."""

import asyncio
import json
from random import Random

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from isochrone.deploy.demo.load import (
    NO_ANSWER,
    Answer,
    Call,
    Client,
    by_chance,
    closed_loop,
    encoded,
    evenly,
    open_loop,
    quantile,
    read_answer,
)
from isochrone.deploy.local.ports import free_ports
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.codec import decode_request, encode_response
from isochrone.router.wire.message import InferResponse
from isochrone.router.wire.tensor import Tensor

CALLS = [Call(f"r-{number}", "digits", number) for number in range(40)]
IMAGES = np.arange(40 * 64, dtype=np.float32).reshape(40, 1, 8, 8)


async def test_a_closed_loop_keeps_all_its_workers_busy_and_no_more():
    busy, most = 0, 0

    async def send(call: Call, since_s: float) -> Answer:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        return Answer(call, 200, since_s, 1)

    answers = await closed_loop(send, CALLS, workers=8)
    assert most == 8
    assert sorted(answer.call.request_id for answer in answers) == sorted(
        call.request_id for call in CALLS
    )


async def test_an_open_loop_does_not_wait_for_answers():
    """All forty leave while none is answered; a closed loop would hang here."""
    all_sent = asyncio.Event()
    sent: list[Call] = []

    async def send(call: Call, at_s: float) -> Answer:
        sent.append(call)
        if len(sent) == len(CALLS):
            all_sent.set()
        await all_sent.wait()
        return Answer(call, 200, monotonic() - at_s, 1)

    async with asyncio.timeout(10):
        answers = await open_loop(send, CALLS, evenly(40, per_s=400))
    assert sent == [answer.call for answer in answers] == CALLS
    assert answers[0].seconds > answers[-1].seconds  # counted from each one's own instant
    assert answers[0].seconds >= 39 / 400 - 0.01


@given(count=st.integers(0, 300), per_s=st.floats(0.5, 1000), seed=st.integers(0, 9))
def test_arrivals_are_ordered_and_keep_their_rate(count, per_s, seed):
    for offsets in (evenly(count, per_s), by_chance(count, per_s, Random(seed))):
        assert len(offsets) == count
        assert offsets == sorted(offsets)
    if count == 300:
        assert by_chance(count, per_s, Random(seed))[-1] == pytest.approx(count / per_s, rel=0.4)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([4, 1, 3, 2], 0.5, 2), (range(1, 101), 0.99, 99)],
    ids=["none", "one", "half of four", "99 of a hundred"],
)
def test_quantiles(values, share, expected):
    assert quantile(values, share) == expected


async def test_a_request_reaches_a_server_as_a_binary_tensor_and_its_answer_is_read():
    seen: list[tuple[str, str, str]] = []

    async def infer(request: web.Request) -> web.Response:
        headers = [(k.lower().encode(), v.encode()) for k, v in request.headers.items()]
        asked = decode_request(headers, await request.read(), ())
        seen.append(
            (request.path, request.headers["x-request-id"], request.headers["authorization"])
        )
        digit = int(asked.inputs[0].data[0, 0, 0, 0]) // 64 % 10
        scores = np.eye(10, dtype=np.float32)[[digit]]
        answer = InferResponse("digits", "1", (Tensor("scores", "FP32", scores),))
        fields, body = encode_response(asked, answer)
        fields.append((b"x-isochrone-reason", b"nearest"))
        return web.Response(body=body, headers={k.decode(): v.decode() for k, v in fields})

    app = web.Application()
    app.router.add_post("/v2/models/digits/infer", infer)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    requests = {"digits": encoded(IMAGES, "image")}
    async with Client(f"http://127.0.0.1:{port}", requests) as client:
        answer = await client.send(Call("r-7", "digits", 7, key="secret"), monotonic())
    await runner.cleanup()
    assert (answer.status, answer.label, answer.reason, answer.ok) == (200, 7, "nearest", True)
    assert seen == [("/v2/models/digits/infer", "r-7", "Bearer secret")]


async def test_nobody_listening_is_an_answer_too():
    (port,) = free_ports(1)
    async with Client(f"http://127.0.0.1:{port}", {"digits": encoded(IMAGES, "image")}) as client:
        answer = await client.send(CALLS[0], monotonic())
    assert answer.status == NO_ANSWER
    assert not answer.ok
    assert answer.error


@pytest.mark.parametrize(
    ("status", "body", "error", "reasons"),
    [
        (
            503,
            json.dumps({"error": "none", "code": "no_endpoint", "reasons": {"a": "stopped"}}),
            "none",
            {"a": "stopped"},
        ),
        (503, "Service Unavailable", "b'Service Unavailable'", {}),
    ],
    ids=["a problem of ours", "text of somebody else"],
)
def test_refusals_are_read(status, body, error, reasons):
    answer = read_answer(CALLS[0], 0.1, status, [], body.encode())
    assert (answer.status, answer.error, answer.reasons) == (status, error, reasons)


def test_an_answer_that_is_none_is_no_success():
    assert not read_answer(CALLS[0], 0.1, 200, [], b"<html>").ok
