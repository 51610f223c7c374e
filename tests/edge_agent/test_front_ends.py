"""How a request ended stands in an agent's log and counters: not how its answer began."""

import asyncio
import json
import time
from contextlib import aclosing, suppress
from random import Random

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from isochrone.edge_agent.front import Front
from isochrone.edge_agent.metrics import Metrics
from isochrone.router.process.access_log import AccessLog
from isochrone.router.wire.http import Request, Response

REQUEST = Request("POST", "/v2/models/talk/generate_stream", [])


class Pieces:
    """A streamed body: two pieces, then its end, or an error."""

    def __init__(self, code="", error=None):
        self.code = code
        self._error = error
        self._left = [b"a", b"b"]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._left:
            return self._left.pop(0)
        raise self._error or StopAsyncIteration


@pytest.fixture
def play(tmp_path):
    """A front before a handler, and what it has written and counted."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, lambda: 0.0)
    path = tmp_path / "access.jsonl"

    def fronted(handler):
        log = AccessLog(path)
        counted = lambda _, status: metrics.answered(status)  # noqa: E731
        return Front(handler, counted, log, time.monotonic, lambda: 0.0, Random(1))

    def told():
        (line,) = [json.loads(text) for text in path.read_text().splitlines()]
        page = generate_latest(registry).decode().splitlines()
        counts = [text for text in page if text.startswith("isochrone_agent_requests_total{")]
        return line["status"], line["sent"], [c.split('"')[1] for c in counts if c.endswith(" 1.0")]

    return fronted, told


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        pytest.param(Pieces(), 200, "ok", id="whole"),
        pytest.param(Pieces(code="deadline_exceeded"), 504, "late", id="the deadline passed"),
        pytest.param(Pieces(error=ZeroDivisionError()), 500, "failed", id="a fault"),
    ],
)
async def test_a_stream_is_told_by_its_end(play, body, status, outcome):
    fronted, told = play

    async def handler(_):
        return Response(200, [], body, lambda: body.code)

    response = await fronted(handler).handle(REQUEST)
    with suppress(ZeroDivisionError):
        assert [piece async for piece in response.body] == [b"a", b"b"]
    assert told() == (status, 200, [outcome])


async def test_a_client_that_leaves_in_a_stream_is_told_by_that(play):
    fronted, told = play

    async def handler(_):
        return Response(200, [], Pieces())

    response = await fronted(handler).handle(REQUEST)
    async with aclosing(response.body) as body:
        assert await anext(body) == b"a"
    assert told() == (0, 200, ["left"])


async def test_a_client_that_leaves_before_its_answer_is_told_by_that(play):
    fronted, told = play

    async def handler(_):
        await asyncio.Event().wait()

    waiting = asyncio.get_running_loop().create_task(fronted(handler).handle(REQUEST))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert told() == (0, 0, ["left"])
