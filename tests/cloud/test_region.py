"""A region's ingress with replicas that do as they are told: refuse, hang, stream, leave."""

import asyncio
import json
from contextlib import aclosing

import msgspec
import pytest
from starlette.requests import Request as AsgiRequest

from isochrone.cloud.asgi import answered
from isochrone.cloud.catalogue import find_package
from isochrone.cloud.config import CloudConfig, ModelConfig
from isochrone.cloud.region import Region
from isochrone.cloud.scale import Standing
from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import Overloaded
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.codec import decode_request
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.report import (
    LOAD_HEADER,
    CallReport,
    decode_call_report,
    decode_endpoint_report,
    encode_call_report,
)


class Scripted:
    """Replicas of one model that answer with a script."""

    def __init__(self, *script: Response | bytes | Exception) -> None:
        self.script = script
        self.roused = 0
        self.closed = asyncio.Event()

    async def answer(self, _request):
        async with aclosing(self.parts(_request)) as parts:
            return await anext(parts)

    async def parts(self, _request):
        try:
            for part in self.script:
                if isinstance(part, Exception):
                    raise part
                yield part
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    def rouse(self):
        self.roused += 1


def region(store, replicas, *, observe=None, clock=monotonic, **standing):
    async def stands():
        return {"table": Standing(**standing)}

    config = CloudConfig(
        name="here", region="eu", packages=store, models=(ModelConfig(name="table"),)
    )
    manifest = find_package(store, "table", None).manifest
    replicas = {"table": replicas}
    return Region(config, [manifest], replicas, observe or stands, instance="one", clock=clock)


RAN = (
    LOAD_HEADER,
    encode_call_report(
        CallReport(
            instance="replica",
            sequence=1,
            in_flight=1,
            slots=1,
            latency_s=0.004,
            wait_s=0.0,
            infer_s=0.004,
            models_generation=0,
        )
    ),
)
"""What a replica tells of a call that ran for 4 ms."""


def request(path, body=b"{}", method="POST", received_s=None, **headers):
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    now_s = monotonic() if received_s is None else received_s
    return Request(method, path, fields, body, received_s=now_s)


INFER = "/v2/models/table/infer"
STREAM = "/v2/models/table/generate_stream"


async def test_a_refusal_of_serve_is_json_with_a_report(store):
    full = region(store, Scripted(Overloaded("full", retry_after_s=1.0)), running=1)
    answer = await full.handle(request(INFER))
    assert answer.status == 503
    assert json.loads(answer.body)["code"] == "overloaded"
    told = decode_call_report(dict(answer.headers)[LOAD_HEADER])
    assert told is not None
    assert (told.instance, told.in_flight, told.slots) == ("one", 0, 5)


async def test_the_deadline_ends_a_call_and_frees_its_place(store):
    replicas = Scripted()
    frozen = region(store, replicas, running=1)
    answer = await frozen.handle(request(INFER, x_request_timeout_seconds="0.05"))
    assert answer.status == 504
    assert replicas.closed.is_set()
    assert (await reported(frozen)).in_flight == 0


async def test_a_bad_deadline_is_the_callers_fault(store):
    here = region(store, Scripted(), running=1)
    answer = await here.handle(request(INFER, x_request_timeout_seconds="soon"))
    assert answer.status == 400


async def test_a_stream_holds_its_place_until_it_is_closed(store):
    replicas = Scripted(Response(200, []), b"one", b"two")
    here = region(store, replicas, running=1)
    answer = await here.handle(request(STREAM))
    assert await anext(answer.body) == b"one"
    assert (await reported(here)).in_flight == 1
    await answer.body.aclose()
    assert replicas.closed.is_set()
    assert (await reported(here)).in_flight == 0


async def test_a_stream_that_nobody_begins_to_read_is_closed_too(store):
    replicas = Scripted(Response(200, []), b"one")
    here = region(store, replicas, running=1)
    answer = await here.handle(request(STREAM))
    await answer.body.aclose()
    assert replicas.closed.is_set()
    assert (await reported(here)).in_flight == 0


async def test_a_wake_rouses_a_sleeping_model_once(store):
    replicas = Scripted()
    asleep = region(store, replicas)
    for _ in range(3):
        answer = await asleep.handle(request("/isochrone/wake", b'{"model": "table"}'))
        assert (answer.status, json.loads(answer.body)["state"]) == (202, "cold")
    assert replicas.roused == 1


async def test_a_warm_model_is_not_roused(store):
    replicas = Scripted()
    awake = region(store, replicas, running=1)
    answer = await awake.handle(request("/isochrone/wake", b'{"model": "table"}'))
    assert (answer.status, replicas.roused) == (202, 0)


class Asked(Scripted):
    """Keeps the request that came."""

    def __init__(self, *script):
        super().__init__(*script)
        self.requests: list[Request] = []
        self.came = asyncio.Event()

    async def answer(self, request):
        self.requests.append(request)
        self.came.set()
        return await super().answer(request)


async def test_a_sample_goes_to_a_replica_as_a_call(store):
    replicas = Asked(Response(200, [], b"the answer"))
    here = region(store, replicas, running=1)
    seq = {"x_isochrone_seq": "eu.1=7", "x_request_timeout_seconds": "5"}
    answer = await here.handle(request("/isochrone/sample", b'{"model": "table"}', **seq))
    assert (answer.status, answer.body) == (200, b"{}")
    report = decode_call_report(dict(answer.headers)[LOAD_HEADER])
    assert report is not None
    assert (report.instance, report.seq_seen) == ("one", 7)
    (asked,) = replicas.requests
    assert (asked.method, asked.path) == ("POST", "/v2/models/table/versions/1/infer")
    assert asked.header(b"x-request-timeout-seconds") == b"5"
    sample = decode_request(asked.headers, asked.body, ())
    assert [(tensor.name, tensor.data.shape) for tensor in sample.inputs] == [("x", (1, 4))]


async def test_samples_are_one_at_a_time_and_the_least_urgent(store):
    replicas = Asked()  # never answers
    here = region(store, replicas, running=1)
    body = b'{"model": "table"}'
    told = {"x_isochrone_priority": "1", "x_request_timeout_seconds": "0.2"}
    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(here.handle(request("/isochrone/sample", body, **told)))
        await replicas.came.wait()
        second = await here.handle(request("/isochrone/sample", body))
        assert (second.status, len(replicas.requests)) == (503, 1)
        assert replicas.requests[0].header(b"x-isochrone-priority") == b"9"
    assert first.result().status == 504
    again = await here.handle(request("/isochrone/sample", body, **told))
    assert (again.status, len(replicas.requests)) == (504, 2)


@pytest.mark.parametrize(
    ("standing", "body", "status"),
    [
        pytest.param({}, b'{"model": "table"}', 503, id="asleep"),
        pytest.param({"starting": 1}, b'{"model": "table"}', 503, id="starting"),
        pytest.param({"running": 1}, b'{"model": "nobody"}', 404, id="unknown model"),
        pytest.param({"running": 1}, b'{"model": "table", "version": "9"}', 404, id="version"),
        pytest.param({"running": 1}, b"{}", 400, id="no model"),
    ],
)
async def test_a_sample_that_cannot_be_run_is_refused_and_rouses_nobody(
    store, standing, body, status
):
    replicas = Asked(Response(200, [], b"{}"))
    here = region(store, replicas, **standing)
    answer = await here.handle(request("/isochrone/sample", body))
    assert (answer.status, replicas.roused, replicas.requests) == (status, 0, [])
    assert json.loads(answer.body)["error"]


async def test_a_sample_fails_as_a_call_does(store):
    full = region(store, Scripted(Overloaded("full", retry_after_s=1.0)), running=1)
    answer = await full.handle(request("/isochrone/sample", b'{"model": "table"}'))
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "overloaded")
    assert LOAD_HEADER in dict(answer.headers)


@pytest.mark.parametrize(
    ("standing", "state", "slots"),
    [({}, "cold", 0), ({"starting": 1}, "loading", 0), ({"running": 3}, "warm", 15)],
    ids=["asleep", "starting", "running"],
)
async def test_a_region_tells_how_its_replicas_stand(store, standing, state, slots):
    report = await reported(region(store, Scripted(), **standing))
    assert (report.models[0].state, report.slots, report.ready) == (state, slots, True)


async def test_the_first_answer_of_a_sleeping_model_tells_how_long_it_slept(store):
    here = region(store, Scripted(Response(200, [], b"{}")))
    await here.handle(request(INFER))
    (model,) = (await reported(here)).models
    assert model.state == "warm"
    assert model.load_s is not None


def test_the_newest_package_counts_unless_a_version_is_named(tmp_path, make_table):
    for version in ("9", "10"):
        make_table(tmp_path, "table", version)
    assert find_package(tmp_path, "table", None).version == "10"
    assert find_package(tmp_path, "table", "9").version == "9"
    with pytest.raises(PackageError, match="no usable package of digits"):
        find_package(tmp_path, "digits", None)


async def test_only_calls_of_a_known_model_are_noted_and_at_once(store):
    here = region(store, Scripted(Response(200, []), b"one"), running=1)
    unknown = "/v2/models/nobody/infer"
    assert (await here.handle(request(unknown, x_isochrone_seq="eu.1=6"))).status == 404
    assert (await reported(here)).seen == {}
    answer = await here.handle(request(STREAM, x_isochrone_seq="eu.1=7"))
    assert (await reported(here)).seen == {"eu.1": 7}
    await answer.body.aclose()


class Controller:
    """Serve's controller: answers when it may, and as it is told."""

    def __init__(self):
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error = None
        self.running = 1

    async def __call__(self):
        self.was_asked.set()
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return {"table": Standing(self.running)}

    async def await_asked(self):
        """It has been asked once more, and twice where it answers: what it then said is known."""
        async with asyncio.timeout(5):
            for _ in range(1 + self.may_answer.is_set()):
                self.was_asked.clear()
                await self.was_asked.wait()


@pytest.fixture
def controller(monkeypatch):
    monkeypatch.setattr("isochrone.cloud.region.OBSERVED_S", 0.001)
    return Controller()


async def test_a_report_is_what_is_known_and_waits_for_no_controller(store, controller):
    now = [0.0]
    here = region(store, Scripted(), observe=controller, clock=lambda: now[0])
    assert (await reported(here)).models[0].state == "warm"
    controller.may_answer.clear()
    await controller.await_asked()
    now[0] += 12.5
    answer = await here.handle(request("/isochrone/report", b"", "GET"))
    assert dict(answer.headers)[b"age"] == b"12"
    told = decode_endpoint_report(answer.body)
    assert told is not None
    assert (told.models[0].state, told.ready, told.slots) == ("warm", True, 5)
    assert "12 s ago" in told.pressure.degraded[0]


async def test_an_ingress_that_has_never_seen_its_replicas_answers_all_the_same(store, controller):
    controller.may_answer.clear()
    here = region(store, Scripted(Response(200, [], b"{}")), observe=controller)
    async with asyncio.timeout(5):
        assert (await here.handle(request(INFER))).status == 200
    assert (await reported(here)).models[0].state == "warm", "it has just answered"


async def test_an_error_of_the_controller_changes_nothing_and_is_over_when_it_is(
    store, controller, caplog
):
    here = region(store, Scripted(), observe=controller)
    assert (await reported(here)).slots == 5
    controller.error = RuntimeError("the controller is gone")
    await controller.await_asked()
    assert (await reported(here)).slots == 5
    await controller.await_asked()
    assert caplog.text.count("RuntimeError: the controller is gone") == 1
    controller.error, controller.running = None, 3
    await controller.await_asked()
    assert (await reported(here)).slots == 15


async def test_calls_alone_keep_what_is_told_of_the_replicas_up_to_date(store, controller):
    here = region(store, Scripted(Response(200, [], b"{}")), observe=controller)
    await here.handle(request(INFER))
    controller.running = 4
    await controller.await_asked()
    answer = await here.handle(request(INFER))
    told = decode_call_report(dict(answer.headers)[LOAD_HEADER])
    assert told is not None
    assert told.slots == 20


async def test_a_start_is_told_as_the_load_that_it_is(store):
    now = [100.0]

    class Starting(Scripted):
        async def answer(self, request):
            now[0] += 1.8
            return await super().answer(request)

    answers = Response(200, [(b"x-isochrone-up", b"0.3"), RAN], b"{}")
    here = region(store, Starting(answers), clock=lambda: now[0])
    answer = await here.handle(request(INFER, received_s=100.0))
    told = decode_call_report(dict(answer.headers)[LOAD_HEADER])
    assert told is not None
    assert told.load_s == pytest.approx(1.5)
    assert told.infer_s == 0.004
    assert (await reported(here)).models[0].load_s == pytest.approx(1.5)
    assert b"x-isochrone-up" not in dict(answer.headers)
    again = await here.handle(request(INFER, received_s=now[0] + 1.8))
    told = decode_call_report(dict(again.headers)[LOAD_HEADER])
    assert told is not None
    assert told.load_s == 0.0, "it was ready before"


async def test_a_call_of_a_cold_model_starts_it_though_its_deadline_is_too_short(store):
    replicas = Scripted()
    asleep = region(store, replicas)
    for _ in range(2):
        answer = await asleep.handle(request(INFER, x_request_timeout_seconds="0.02"))
        assert answer.status == 504
    assert replicas.roused == 1


async def test_a_call_for_another_region_wakes_nobody(store):
    replicas = Asked()
    asleep = region(store, replicas)
    answer = await asleep.handle(request(INFER, x_isochrone_region="us"))
    assert (answer.status, json.loads(answer.body)["code"]) == (421, "misdirected")
    assert (replicas.roused, replicas.requests) == (0, [])


async def test_who_waits_is_counted_once(store):
    here = region(store, Scripted(Response(200, []), b"one"), running=2)
    answers = [await here.handle(request(STREAM)) for _ in range(50)]
    for answer in answers:
        await anext(answer.body)
    report = await reported(here)
    assert (report.in_flight, report.queued, report.slots) == (50, 40, 10)
    for answer in answers:
        await answer.body.aclose()
    assert (await reported(here)).in_flight == 0


async def test_a_refusal_says_when_a_place_should_be_free(store):
    now = [0.0]
    replicas = Scripted(Response(200, []), b"one")
    here = region(store, replicas, clock=lambda: now[0], running=1)
    answer = await here.handle(request(STREAM, received_s=0.0))
    await anext(answer.body)
    now[0] += 60.0
    await answer.body.aclose()
    replicas.script = (Overloaded("full", retry_after_s=1.0),)
    for _ in range(20):  # refusals hold no place
        refused = await here.handle(request(STREAM, received_s=now[0]))
    assert dict(refused.headers)[b"retry-after"] == b"12", "five places of 60 s"


async def test_a_client_that_leaves_while_its_body_is_read_is_no_error(store):
    parts = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return parts.pop(0)

    scope = {"type": "http", "method": "POST", "path": INFER, "query_string": b"", "headers": []}
    asked = Asked(Response(200, [], b"{}"))
    here = region(store, asked, running=1)
    await answered(AsgiRequest(scope, receive), 100, monotonic(), here.handle)
    assert (parts, asked.requests) == ([], [])


async def reported(here):
    answer = await here.handle(request("/isochrone/report", b"", "GET"))
    report = decode_endpoint_report(answer.body)
    assert report is not None, msgspec.json.decode(answer.body)
    return report
