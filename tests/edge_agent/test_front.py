"""Calls that need to wait for nothing but their turn are answered without a task of their own."""

import asyncio
import gzip
import json
import time
from contextlib import asynccontextmanager
from random import Random
from typing import cast

import pytest

from isochrone.edge_agent.app import Agent
from isochrone.edge_agent.config import AgentConfig
from isochrone.edge_agent.front import Front
from isochrone.edge_agent.lifecycle import Listening
from isochrone.edge_agent.runtime.engines.onnx_engine import OnnxModel
from isochrone.router.http.exchange import Exchange
from isochrone.router.http.limits import Limits
from isochrone.router.http.listener import Listener
from isochrone.router.http.service import asynchronous
from isochrone.router.http.sockets import address_of, bind
from isochrone.router.wire.http import Request, first
from isochrone.router.wire.report import LOAD_HEADER, decode_call_report

NOW_S = 1_800_000_000.0
SOON_S = 5.0
INFER = "/v2/models/double/infer"


class Asked:
    """One request and what came back: an `Exchange`."""

    def __init__(self, request):
        self.request = request
        self.gone = False
        self.answered = asyncio.get_running_loop().create_future()

    def respond(self, status, headers, body):
        self.answered.set_result((status, headers, body))

    def round_trip_s(self):
        return None

    def watch(self, *, gone, pause=None, resume=None):  # noqa: ARG002 - an exchange's
        self._left = gone

    def leave(self):
        self.gone = True
        self._left()

    async def answer(self):
        async with asyncio.timeout(SOON_S):
            return await self.answered


class Play:
    """An agent's front over a real pool; `others` are the requests that need a task."""

    def __init__(self, agent):
        self.agent = agent
        self.others: list[Exchange] = []
        handle, clock = agent.public.handle, time.monotonic
        front = Front(handle, agent.answered, None, clock, lambda: NOW_S, Random(1))
        self._service = front.service(agent.public.begin, self.others.append)

    def ask(self, body, *headers, path=INFER):
        content = json.dumps(body).encode()
        request = Request("POST", path, [*headers], content, received_s=time.monotonic())
        asked = Asked(request)
        self._service(cast(Exchange, asked))
        return asked


@asynccontextmanager
async def opened(store, warm=("double",), **more):
    config = AgentConfig(name="e", region="eu", packages=store, slots=1, **more)
    agent = Agent(config, clock=time.monotonic, wall=lambda: NOW_S, rng=Random(1))
    agent.lifecycle.on(Listening())
    await agent.warm(warm)
    yield Play(agent)
    await agent.pool.close()
    await agent.notes.close()


def rows(count):
    return {
        "inputs": [
            {"name": "x", "shape": [count, 2], "datatype": "FP32", "data": [1, 2] * count},
        ]
    }


@pytest.mark.parametrize("count", [1, 12_000], ids=["short", "so long that a thread writes it"])
async def test_a_warm_model_answers_without_a_task(store, count):
    async with opened(store) as play:
        before = asyncio.all_tasks()
        asked = play.ask(rows(count), (b"x-request-id", b"mine"))
        assert asyncio.all_tasks() == before
        status, headers, body = await asked.answer()
        assert (status, first(headers, b"x-request-id")) == (200, b"mine")
        assert json.loads(body)["outputs"][0]["data"] == [2.0, 4.0] * count
        report = decode_call_report(first(headers, LOAD_HEADER) or b"")
        assert report is not None
        assert report.in_flight == 0, "who has been answered is there no more"
        assert not play.others
        assert play.agent.gate.in_flight == play.agent.gate.queued == 0


async def test_those_whose_runs_are_over_count_no_more(store):
    async with opened(store, max_batch=1) as play:
        for _ in range(10):  # until a run is known to be short
            await play.ask(rows(1)).answer()
        answers = [play.ask(rows(1)) for _ in range(20)]
        in_flight = []
        for one in answers:
            report = decode_call_report(first((await one.answer())[1], LOAD_HEADER) or b"")
            assert report is not None
            in_flight.append(report.in_flight)
        assert in_flight[-1] == 0
        assert sum(in_flight) < sum(range(20)) / 2, "as many as were asked after each"


async def test_who_takes_gzip_gets_it_where_it_pays(store):
    async with opened(store) as play:
        accept = (b"accept-encoding", b"gzip, deflate")
        _, headers, body = await play.ask(rows(1000), accept).answer()
        assert first(headers, b"content-encoding") == b"gzip"
        assert len(json.loads(gzip.decompress(body))["outputs"][0]["data"]) == 2000
        _, headers, _ = await play.ask(rows(1), accept).answer()
        assert first(headers, b"content-encoding") is None
        assert not play.others


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        pytest.param("/v2/models/words/infer", [], id="a cold model"),
        pytest.param(INFER, [(b"content-encoding", b"gzip")], id="a packed body"),
        pytest.param("/v2/models/double", [], id="no call"),
        pytest.param("/isochrone/wake", [], id="another path"),
    ],
)
async def test_what_must_wait_for_more_has_a_task(store, path, headers):
    async with opened(store) as play:
        asked = play.ask(rows(1), *headers, path=path)
        await asyncio.sleep(0)
        assert play.others == [asked]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/v2/models/none/infer", rows(1), 404, id="no such model"),
        pytest.param(INFER, {"inputs": []}, 400, id="an input is missing"),
        pytest.param(INFER, rows(1) | {"outputs": [{"name": "q"}]}, 400, id="no such output"),
    ],
)
async def test_a_refusal_is_told_at_once_and_tells_of_the_load(store, path, body, status):
    async with opened(store) as play:
        told, headers, _ = await play.ask(body, path=path).answer()
        assert told == status
        assert decode_call_report(first(headers, LOAD_HEADER) or b"") is not None
        assert first(headers, b"x-request-id")
        assert not play.others


async def test_what_fails_is_told_and_the_next_call_is_served(store, monkeypatch):
    async with opened(store) as play:
        with monkeypatch.context() as broken:
            broken.setattr(OnnxModel, "compute", lambda *_: 1 // 0)
            status, _, body = await play.ask(rows(1)).answer()
        assert (status, json.loads(body)["error"]) == (500, "the model failed")
        assert (await play.ask(rows(1)).answer())[0] == 200


async def test_who_leaves_while_it_waits_is_not_run(store):
    async with opened(store, min_service_s=0.2) as play:
        first_one, second = play.ask(rows(1)), play.ask(rows(1))
        await asyncio.sleep(0.05)
        assert play.agent.gate.queued == 1
        second.leave()
        assert play.agent.gate.queued == 0
        assert (await first_one.answer())[0] == 200
        await asyncio.sleep(0.01)
        assert not second.answered.done()
        assert play.agent.gate.in_flight == 0


async def test_a_deadline_that_passes_in_the_queue_is_told(store):
    async with opened(store, min_service_s=0.2) as play:
        first_one = play.ask(rows(1))
        await asyncio.sleep(0.05)
        late = play.ask(rows(1), (b"x-request-timeout-seconds", b"0.05"))
        assert (await late.answer())[0] in (503, 504)
        assert (await first_one.answer())[0] == 200


BAD = b"content-length: x\r\n\r\n"
LONG = b"content-length: 99999\r\n\r\n"
ANSWERED = {
    "metadata": (b"GET /v2/models/double", b"\r\n", 200),
    "readiness of a model": (b"GET /v2/models/double/ready", b"\r\n", 200),
    "no such path": (b"POST /v2/models/double/nothing", b"content-length: 0\r\n\r\n", 404),
    "no such method": (b"GET /v2/models/double/infer", b"\r\n", 405),
    "no such model": (b"POST /v2/models/none/infer", b"content-length: 2\r\n\r\n{}", 404),
    "a bad body": (b"POST /v2/models/double/infer", b"content-length: 2\r\n\r\n{}", 400),
    "a body that is too long": (b"POST /v2/models/double/infer", LONG, 413),
    "bad framing": (b"POST /v2/models/double/infer", BAD, 400),
    "a head that is too long": (b"GET /" + b"x" * 20_000, b"\r\n", 431),
}


@pytest.mark.parametrize(("line", "rest", "status"), ANSWERED.values(), ids=ANSWERED)
@pytest.mark.parametrize("pressed", [False, True], ids=["", "memory is short"])
async def test_every_answer_that_a_router_may_get_brings_a_report(
    store, line, rest, status, pressed
):
    async with opened(store) as play, asyncio.TaskGroup() as tasks:
        agent = play.agent
        agent.pressing.refuses = pressed
        limits = Limits(body_bytes=1000, header_bytes=8192)
        service = asynchronous(agent.public.handle, tasks)
        listener = Listener(service, limits, time.monotonic, refusal_fields=agent.load.fields)
        sock = bind("127.0.0.1:0")
        host, _, port = address_of(sock).rpartition(":")
        await listener.start(sock)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line + b" HTTP/1.1\r\nhost: a\r\n" + rest)
        async with asyncio.timeout(SOON_S):
            head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        fields = dict(field.split(b": ", 1) for field in head[1:-2])
        told = int(head[0].split()[1])
        assert told == status or (pressed and told == 503)
        report = decode_call_report(fields[LOAD_HEADER])
        assert report is not None
        assert (report.name, report.region, report.infer_s) == ("e", "eu", 0.0)
        writer.close()
        await listener.drain(0.0)
