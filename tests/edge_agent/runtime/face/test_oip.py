"""The OIP face over a real pool: every path, what is refused, and what every answer tells."""

import asyncio
import gzip
import json
import re
import threading
import time
import zlib
from contextlib import asynccontextmanager

import numpy as np
import pytest

from isochrone.edge_agent.runtime.calls.call import Calls
from isochrone.edge_agent.runtime.calls.gate import OpenGate
from isochrone.edge_agent.runtime.calls.knock import admitted
from isochrone.edge_agent.runtime.face import large
from isochrone.edge_agent.runtime.face.infer import Inference
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.face.oip import OpenInference
from isochrone.edge_agent.runtime.package.package import packages_in
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.http.limits import Room
from isochrone.router.wire import codec
from isochrone.router.wire.http import Request, first
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import LOAD_HEADER, ModelState, decode_call_report
from isochrone.router.wire.tensor import Tensor

BODY_LIMIT = 100_000


class Face:
    def __init__(self, pool, min_service_s=0.0, body_limit=BODY_LIMIT, gate=None, room=None):
        self.pool = pool
        self.room = room or Room(512 << 20)
        self.gate = gate or OpenGate(4)
        self.load = Load("edge-1", "eu-west", "instance-1", self.gate, pool, time.monotonic)

        def served(model, _wait_s, infer_s):
            self.load.served(model, infer_s)

        calls = Calls(pool, self.gate, time.monotonic, served, min_service_s)
        inference = Inference(calls, self.load, body_limit_bytes=body_limit, room=self.room)
        self.ready = True
        self._oip = OpenInference(pool, inference, lambda: self.ready)

    async def ask(self, method, path, body=b"", *headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        received_s = time.monotonic()
        return await self._oip.handle(
            Request(method, path, list(headers), content, received_s=received_s)
        )

    async def get(self, path):
        return await self.ask("GET", path)

    async def post(self, path, body, *headers):
        return await self.ask("POST", path, body, *headers)


@asynccontextmanager
async def opened(store, **more):
    packages, errors = packages_in(store)
    assert not errors
    pool = Pool(packages, slots=2)
    try:
        yield Face(pool, **more)
    finally:
        await pool.close()


@pytest.fixture
async def face(store):
    async with opened(store) as face:
        yield face


def rows(*values, datatype="FP32", **more):
    data = [list(value) for value in values]
    shape = [len(values), 2]
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}], **more}


def read(response):
    return json.loads(response.body)


def report_in(response):
    report = decode_call_report(first(response.headers, LOAD_HEADER) or b"")
    assert report is not None
    return report


INFER = "/v2/models/double/infer"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        pytest.param("/v2", {"name": "isochrone"}, id="server"),
        pytest.param("/v2/health/live", {"live": True}, id="live"),
        pytest.param("/v2/health/ready", {"ready": True}, id="ready"),
        pytest.param("/v2/models", {"models": ["double", "talk", "words"]}, id="models"),
        pytest.param(
            "/v2/models/double",
            {
                "name": "double",
                "versions": ["1"],
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            },
            id="metadata",
        ),
        pytest.param("/v2/models/double/versions/1", {"versions": ["1"]}, id="version_metadata"),
    ],
)
async def test_what_can_be_read_is_json(face, path, part):
    response = await face.ask("GET", path)
    assert response.status == 200
    assert part.items() <= read(response).items()


async def test_a_model_is_ready_once_it_is_warm(face):
    before = await face.ask("GET", "/v2/models/double/ready")
    assert (before.status, read(before)["ready"]) == (503, False)
    await face.post(INFER, rows((1, 2)))
    after = await face.ask("GET", "/v2/models/double/versions/1/ready")
    assert (after.status, read(after)) == (200, {"name": "double", "ready": True})


async def test_the_index_tells_what_is_warm(face):
    await face.post(INFER, rows((1, 2)))
    index = read(await face.post("/v2/repository/index", b""))
    states = {entry["name"]: entry["state"] for entry in index}
    assert states == {"double": "READY", "talk": "UNAVAILABLE", "words": "UNAVAILABLE"}
    only = read(await face.post("/v2/repository/index", {"ready": True}))
    assert [entry["name"] for entry in only] == ["double"]


async def test_a_process_that_is_not_ready_says_so(face):
    face.ready = False
    response = await face.ask("GET", "/v2/health/ready")
    assert response.status == 503
    assert read(response)["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("POST", "/v2/models/nobody/infer", 404, id="unknown_model"),
        pytest.param("GET", "/v2/models/nobody", 404, id="unknown_model_metadata"),
        pytest.param("GET", "/v2/models/double/versions/9", 404, id="unknown_version"),
        pytest.param("GET", "/v2/models/double/config", 404, id="config"),
        pytest.param("GET", "/v2/models/double/stats", 404, id="stats"),
        pytest.param("GET", "/v2/models/double/trace/setting", 404, id="trace"),
        pytest.param("GET", "/v2/logging", 404, id="logging"),
        pytest.param("GET", "/v2/systemsharedmemory/status", 404, id="shared_memory"),
        pytest.param("GET", "/v2/models/double/", 404, id="trailing_slash"),
        pytest.param("GET", "/", 404, id="root"),
        pytest.param("POST", "/v2/repository/models/double/load", 403, id="load"),
        pytest.param("POST", "/v2/repository/models/double/unload", 403, id="unload"),
        pytest.param("GET", INFER, 405, id="infer_with_get"),
        pytest.param("POST", "/v2", 405, id="server_with_post"),
        pytest.param("DELETE", "/v2/models/double", 405, id="metadata_with_delete"),
    ],
)
async def test_what_is_not_offered_is_refused_with_a_reason(face, method, path, status):
    response = await face.ask(method, path)
    assert response.status == status
    assert read(response)["error"]
    if status == 405:
        assert first(response.headers, b"allow") in (b"GET, HEAD", b"POST")


@pytest.mark.parametrize("path", ["/v2", "/v2/health/ready", "/v2/models", "/v2/models/double"])
async def test_head_is_answered_like_get(face, path):
    one, other = await face.ask("HEAD", path), await face.ask("GET", path)
    assert (one.status, one.headers, one.body) == (200, other.headers, other.body)


@pytest.mark.parametrize("identifier", ["", "é", "a\nb", "\u0000", "\U0001f600" * 500])
async def test_an_id_is_any_text(face, identifier):
    answer = read(await face.post(INFER, rows((1, 2), id=identifier)))
    assert answer.get("id", "") == identifier
    answer = read(await face.post("/v2/models/talk/generate", {**TALK, "id": identifier}))
    assert answer.get("id", "") == identifier


async def test_json_is_answered_in_json_with_the_id(face):
    response = await face.post(INFER, rows((1, 2), (3, 4), id="call-7"))
    answer = read(response)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == (
        "call-7",
        "double",
        "1",
    )
    y = next(output for output in answer["outputs"] if output["name"] == "y")
    assert (y["shape"], y["data"]) == ([2, 2], [2, 4, 6, 8])


async def test_binary_is_answered_in_binary(face):
    data = np.array([[1.5, 2]], np.float32)
    request = InferRequest((Tensor("x", "FP32", data),), parameters={"binary_data_output": True})
    headers, body = codec.encode_request(request)
    response = await face.post(INFER, body, *headers)
    answer = codec.decode_response(response.headers, response.body)
    assert answer.outputs[0].data.tolist() == [[3.0, 4.0]]


async def test_a_raw_body_is_enough(face):
    body = np.array([1, 2, 3, 4], np.float32).tobytes()
    response = await face.post(INFER, body, (codec.HEAD_LENGTH, b"0"))
    answer = codec.decode_response(response.headers, response.body)
    assert answer.outputs[0].data.tolist() == [[2, 4], [6, 8]]


async def test_only_the_wanted_outputs_come_and_in_that_order(face):
    wishes = {"outputs": [{"name": "root"}, {"name": "y"}]}
    answer = read(await face.post(INFER, rows((4, 9), **wishes)))
    assert [(output["name"], output["data"]) for output in answer["outputs"]] == [
        ("root", [2, 3]),
        ("y", [8, 18]),
    ]


async def test_classes_come_best_first_with_their_labels(face):
    wish = {"outputs": [{"name": "y", "parameters": {"classification": 2}}]}
    answer = read(await face.post(INFER, rows((1, 2), (5, 4), **wish)))
    assert answer["outputs"][0]["datatype"] == "BYTES"
    assert answer["outputs"][0]["shape"] == [2, 2]
    assert answer["outputs"][0]["data"] == [
        "4.000000:1:yes",
        "2.000000:0:no",
        "10.000000:0:no",
        "8.000000:1:yes",
    ]


async def test_an_empty_batch_has_no_classes(face):
    empty = {"inputs": [{"name": "x", "shape": [0, 2], "datatype": "FP32", "data": []}]}
    wish = {"outputs": [{"name": "y", "parameters": {"classification": 2}}]}
    response = await face.post(INFER, {**empty, **wish})
    assert response.status == 200
    assert read(response)["outputs"][0]["shape"] == [0, 2]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"{", "no inference message", id="malformed"),
        pytest.param(rows((1, 2), datatype="INT32"), "'x'", id="another_datatype"),
        pytest.param(
            {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]},
            "'x'",
            id="another_rank",
        ),
        pytest.param(
            {"inputs": [{"name": "z", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]},
            "'x'",
            id="another_name",
        ),
        pytest.param({"inputs": []}, "'x'", id="no_input"),
        pytest.param(rows((1, 2), outputs=[{"name": "w"}]), "'w'", id="unknown_output"),
        pytest.param(rows((-1, 2)), "'root'.*binary", id="nan_in_the_answer"),
        pytest.param(rows((1, 2), parameters={"timeout": -1}), "timeout", id="timeout"),
        pytest.param(rows((1, 2), parameters={"priority": 1.5}), "priority", id="priority"),
        pytest.param(
            rows((1, 2), outputs=[{"name": "y", "parameters": {"classification": 0}}]),
            "classification",
            id="no_classes",
        ),
    ],
)
async def test_bad_input_is_a_400_that_names_it(face, body, words):
    response = await face.post(INFER, body)
    assert response.status == 400
    assert re.search(words, read(response)["error"])
    assert report_in(response).slots == 4


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        pytest.param(b"gzip", gzip.compress, id="gzip"),
        pytest.param(b"deflate", zlib.compress, id="deflate"),
    ],
)
async def test_bodies_may_be_packed_both_ways(face, encoding, pack):
    body = pack(json.dumps(rows(*[(1, 2)] * 500)).encode())
    fields = (b"content-encoding", encoding), (b"accept-encoding", encoding)
    response = await face.post(INFER, body, *fields)
    assert response.status == 200
    assert first(response.headers, b"content-encoding") == encoding
    plain = zlib.decompress(response.body, 47)
    assert json.loads(plain)["outputs"][0]["shape"] == [500, 2]


async def test_a_bomb_is_a_413(face):
    body = gzip.compress(b" " * (BODY_LIMIT + 1))
    assert (await face.post(INFER, body, (b"content-encoding", b"gzip"))).status == 413


async def test_more_rows_than_a_call_may_have_are_a_413_that_says_which_key(store):
    body = json.dumps(rows(*[(0, 0)] * 100_000), separators=(",", ":")).encode()
    async with opened(store, body_limit=len(body)) as face:
        answer = await face.post(INFER, body)
    assert answer.status == 413
    assert "body_bytes" in read(answer)["error"]
    assert "[100000, 2]" in read(answer)["error"]


async def test_an_answer_that_would_be_too_large_is_refused_with_the_number(store):
    body = json.dumps(rows(*[(0, 0)] * 20_000)).encode()
    async with opened(store, body_limit=1 << 20, room=Room(2 << 20)) as face:
        answer = await face.post(INFER, body)
        assert answer.status == 413
        assert re.search(
            r"up to 2000000 bytes; 524288 are .*in_flight_bytes", read(answer)["error"]
        )
        assert face.room.held_bytes == 0


async def test_what_large_bodies_become_is_held_until_they_are_answered(store, monkeypatch):
    """Few are read at a time, none without room, and nothing is held in the end."""
    wish = {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    body = json.dumps(rows(*[(0, 0)] * 50_000, **wish)).encode()
    most: list[int] = []
    room = Room(5 << 20)
    decode = codec.decode_request
    reading: list[int] = []

    def spied(*args):
        reading.append(1)
        most.append(len(reading))
        assert room.held_bytes >= len(body)
        try:
            return decode(*args)
        finally:
            reading.pop()

    monkeypatch.setattr(codec, "decode_request", spied)
    async with opened(store, body_limit=1 << 20, room=room) as face:
        answers = await asyncio.gather(*(face.post(INFER, body) for _ in range(8)))
        statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 2
    assert max(most) <= large.AT_ONCE
    assert room.held_bytes == 0


async def test_others_are_heard_while_large_bodies_are_read(store):
    """The loop turns between the steps of reading: health is answered before the last of them."""
    body = json.dumps(rows(*[(n, n * n % 991) for n in range(60_000)])).encode()
    async with opened(store, body_limit=1 << 20) as face:
        order: list[str] = []

        async def ask(name, awaitable):
            assert (await awaitable).status == 200
            order.append(name)

        large_ones = [ask("large", face.post(INFER, body)) for _ in range(4)]
        health = [ask("health", face.get("/v2/health/live")) for _ in range(4)]
        await asyncio.gather(*large_ones, *health)
    assert order == ["health"] * 4 + ["large"] * 4


async def test_every_answer_tells_of_the_load_and_the_time(face):
    await face.post(INFER, rows((1, 2)))
    seen = (b"x-isochrone-seq", b"router-eu=41")
    response = await face.post(INFER, rows((1, 2)), seen)
    report = report_in(response)
    assert report.instance == "instance-1"
    assert (report.slots, report.in_flight, report.seq_seen) == (4, 0, 41)
    assert 0 < report.infer_s < 5
    assert 0 < report.latency_s < 5
    timing = first(response.headers, b"server-timing") or b""
    assert re.fullmatch(rb"wait;dur=[0-9.]+, infer;dur=[0-9.]+", timing)
    older = await face.post(INFER, rows((1, 2)), (b"x-isochrone-seq", b"router-eu=7"))
    assert report_in(older).seq_seen == 41


async def test_a_report_counts_what_has_come_and_is_not_answered_yet(store):
    async with opened(store, min_service_s=0.05) as face, asyncio.TaskGroup() as tasks:
        await face.pool.load("double")
        earlier = (b"x-isochrone-seq", b"router-eu=50")
        running = tasks.create_task(face.post(INFER, rows((1, 2)), earlier))
        await asyncio.sleep(0.01)
        refused = await face.post(INFER, b"{", (b"x-isochrone-seq", b"router-eu=49"))
        assert not running.done()
        report = report_in(refused)
        assert (report.in_flight, report.seq_seen) == (1, 50)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"=", b"7", b"=7", b"a=-1", b"a=" + b"9" * 99, b"a=\xb2", b"\xff=x"),
        *(b"a b=7", b"\xe9=7", b"a=7\n", b"a" * 73 + b"=7", b"a=%d" % (2**53 + 1)),
    ],
)
async def test_a_sequence_of_another_form_is_ignored(face, value):
    response = await face.post(INFER, rows((1, 2)), (b"x-isochrone-seq", value))
    assert response.status == 200
    assert report_in(response).seq_seen == 0
    assert seen_by(face) == {}


def seen_by(face):
    return face.load.endpoint_report(ready=True, draining=False).seen


@pytest.mark.parametrize("verb", ["infer", "generate", "generate_stream"])
async def test_a_call_of_an_unknown_model_is_not_noted(face, verb):
    seen = (b"x-isochrone-seq", b"router-eu=41")
    refused = await face.post(f"/v2/models/nobody/{verb}", b"{}", seen)
    assert (refused.status, report_in(refused).seq_seen, seen_by(face)) == (404, 0, {})
    await face.post(INFER, b"{", seen)
    assert seen_by(face) == {"router-eu": 41}


async def test_many_calls_of_a_cold_model_cause_one_load(face):
    answers = await asyncio.gather(*(face.post(INFER, rows((i, i))) for i in range(40)))
    assert {answer.status for answer in answers} == {200}
    assert [read(a)["outputs"][0]["data"][0] for a in answers] == [2 * i for i in range(40)]
    assert face.pool.models_generation == 3  # loading, warming, warm: once


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        pytest.param([(b"x-request-timeout-seconds", b"0.000001")], {}, id="header"),
        pytest.param([], {"timeout": 1}, id="parameter_in_microseconds"),
    ],
)
async def test_a_deadline_ends_the_wait_for_a_cold_model(face, headers, parameters):
    response = await face.post(INFER, rows((1, 2), parameters=parameters), *headers)
    assert response.status == 504
    assert face.gate.in_flight == 0
    assert (await face.post(INFER, rows((1, 2)))).status == 200  # the load went on


async def test_a_call_keeps_its_slot_for_the_least_service_time(store):
    async with opened(store, min_service_s=0.05) as face:
        await face.pool.load("double")
        began_s = time.monotonic()
        response = await face.post(INFER, rows((1, 2)))
        assert time.monotonic() - began_s >= 0.05
        assert report_in(response).infer_s >= 0.049


TALK = {"text_input": "a", "parameters": {"temperature": 0, "max_tokens": 4}}


async def test_generate_answers_a_text(face):
    parameters = {"temperature": 0, "max_tokens": 4, "details": True}
    body = {"text_input": "a", "id": "t-1", "parameters": parameters}
    answer = read(await face.post("/v2/models/talk/generate", body))
    assert answer == {
        "text_output": "bcde",
        "model_name": "talk",
        "model_version": "1",
        "id": "t-1",
        "details": {"finish_reason": "length"},
    }


def events(chunks):
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    return [json.loads(chunk[6:]) for chunk in chunks]


async def test_generate_stream_answers_piece_by_piece(face):
    response = await face.post("/v2/models/talk/generate_stream", TALK)
    assert first(response.headers, b"content-type") == b"text/event-stream; charset=utf-8"
    assert face.gate.in_flight == 1
    pieces = events([chunk async for chunk in response.body])
    assert [piece["text_output"] for piece in pieces] == list("bcde")
    assert face.gate.in_flight == 0


async def test_a_stream_that_nobody_reads_gives_its_slot_back(face):
    response = await face.post("/v2/models/talk/generate_stream", TALK)
    await response.body.aclose()
    assert face.gate.in_flight == 0
    assert face.pool.state("talk") is ModelState.WARM


async def test_an_error_after_the_first_piece_is_the_last_event(face):
    await face.pool.load("talk")
    body = {"text_input": "a", "parameters": {"max_tokens": 1000, "timeout": 100_000}}
    response = await face.post("/v2/models/talk/generate_stream", body)
    assert response.status == 200

    async def slowly():
        chunks = [await anext(response.body)]
        await asyncio.to_thread(time.sleep, 0.15)  # the client's slowness is what is tested
        return chunks + [chunk async for chunk in response.body]

    *pieces, last = events(await slowly())
    assert "text_output" in pieces[0]
    assert last["code"] == "deadline_exceeded"
    async with asyncio.timeout(10):
        while face.gate.in_flight:  # noqa: ASYNC110 - the model's thread tells nobody when it ends
            await asyncio.sleep(0.001)


def stopping(stop):
    return {"text_input": "a", "parameters": {"stop": stop}}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        pytest.param("talk", b"{", "generate request", id="malformed"),
        pytest.param("talk", {"text_input": 3}, "text_input", id="no_text"),
        pytest.param("talk", {**TALK, "more": 1}, "more", id="unknown_field"),
        pytest.param("talk", {"text_input": "a", "parameters": {"top_p": 2}}, "top_p", id="top_p"),
        pytest.param("talk", {"text_input": "é"}, "é", id="unknown_character"),
        pytest.param("double", TALK, "does not generate", id="no_text_model"),
        pytest.param("talk", stopping(["a"] * 17), "stop: at most 16", id="too_many_stops"),
        pytest.param("talk", stopping(["a" * 257]), "256 characters", id="too_long_a_stop"),
        pytest.param("talk", stopping("a" * 257), "256 characters", id="too_long_an_only_stop"),
    ],
)
@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
async def test_a_bad_generate_request_is_a_plain_400(face, verb, path, body, words):
    response = await face.post(f"/v2/models/{path}/{verb}", body)
    assert response.status == 400
    assert words in read(response)["error"]


async def test_a_model_that_writes_may_be_inferred_only_in_one_part(face):
    body = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}
    response = await face.post("/v2/models/talk/infer", body)
    assert response.status == 400
    assert "generate_stream" in read(response)["error"]


async def test_texts_pass_as_they_are(face):
    body = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["é", ""]}]}
    answer = read(await face.post("/v2/models/words/infer", body))
    assert answer["outputs"][0]["data"] == ["é", ""]


async def test_a_timeout_beyond_all_bounds_is_the_longest(face):
    parameters = {"timeout": 10**400, "max_tokens": 1}
    assert (await face.post(INFER, rows((1, 2), parameters=parameters))).status == 200
    body = {"text_input": "a", "parameters": parameters}
    assert (await face.post("/v2/models/talk/generate", body)).status == 200


@pytest.fixture
def where(monkeypatch):
    """Which threads have read requests and written answers."""
    threads = {}

    def spy(name, act):
        def spied(*args):
            threads[name] = threading.current_thread()
            return act(*args)

        monkeypatch.setattr(codec, name, spied)

    spy("decode_request", codec.decode_request)
    spy("encode_response", codec.encode_response)
    return threads


@pytest.mark.parametrize(
    ("count", "packing", "apart"),
    [
        pytest.param(1, bytes, (False, False), id="small"),
        pytest.param(1, gzip.compress, (False, False), id="small and packed"),
        pytest.param(40_000, bytes, (True, True), id="large"),
        pytest.param(40_000, gzip.compress, (True, True), id="small until it is unpacked"),
    ],
)
async def test_large_messages_do_not_hold_up_the_event_loop(store, where, count, packing, apart):
    body = packing(json.dumps(rows(*[(n, n * n % 991) for n in range(count)])).encode())
    fields = [] if packing is bytes else [(b"content-encoding", b"gzip")]
    async with opened(store, body_limit=1 << 20) as face:
        assert (await face.post(INFER, body, *fields)).status == 200
    here = threading.current_thread()
    assert tuple(thread is not here for thread in where.values()) == apart


async def test_a_long_text_is_written_beside_the_event_loop(face, where):
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a" * 300_000]}
    body = {"inputs": [tensor]}
    assert (await face.post("/v2/models/words/infer", body)).status == 200
    assert where["encode_response"] is not threading.current_thread()


@pytest.mark.parametrize(("region", "status"), [(b"eu-west", 200), (b"us-east", 421), (b"", 421)])
async def test_a_request_for_another_region_is_refused(face, region, status):
    answer = await face.post(INFER, rows((1, 2)), (b"x-isochrone-region", region))
    assert answer.status == status
    if status != 200:
        assert read(answer)["code"] == "misdirected"


async def test_a_priority_in_the_body_counts_before_that_of_the_header(store):
    gate = SlotGate(1, 8, time.monotonic, lambda: 0.01)
    async with opened(store, gate=gate, min_service_s=0.05) as face:
        await face.post(INFER, rows((1, 2)))
        ended: list[str] = []

        async def call(name, **more):
            assert (await face.post(INFER, rows((1, 2), **more))).status == 200
            ended.append(name)

        urgent = {"parameters": {"priority": 1}}
        await asyncio.gather(call("plain"), call("urgent", **urgent), call("plain"))
    assert ended == ["urgent", "plain", "plain"]


@pytest.mark.parametrize("step", ["pack", "a thread"])
async def test_an_answer_that_cannot_be_packed_is_told_as_a_failure(face, monkeypatch, step):
    def fails(*_):
        raise MemoryError if step == "pack" else RuntimeError("can't start new thread")

    monkeypatch.setattr("isochrone.edge_agent.runtime.face.infer.content.pack", fails)
    if step == "a thread":
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", fails)
    field = (b"accept-encoding", b"gzip")
    async with asyncio.timeout(10):
        answer = await face.post(INFER, rows(*[(1, 2)] * 1000), field)
    assert answer.status == 500
    assert "the model failed" in answer.body.decode()


@pytest.mark.parametrize(
    ("body", "header", "status"),
    [
        pytest.param(b"{", None, 503, id="there is no place for it, whatever it says"),
        pytest.param(b'{"priority', None, 400, id="it may ask for a higher class"),
        pytest.param(b'{"\\u0070', None, 400, id="it may do so in other letters"),
        pytest.param(b"{", (b"content-encoding", b"gzip"), 400, id="nobody knows what it says"),
        pytest.param(b"{", (b"x-isochrone-priority", b"1"), 400, id="its class gets in"),
        pytest.param(b"{", (b"x-isochrone-tenant", b"other"), 503, id="another tenant's, too"),
    ],
)
async def test_what_a_full_queue_would_refuse_in_any_case_is_not_read(store, body, header, status):
    gate = SlotGate(1, 1, time.monotonic, lambda: 0.5)
    async with opened(store, gate=gate) as face:
        await face.post(INFER, rows((1, 2)))
        far_s = time.monotonic() + 60
        slot = await admitted(gate, far_s, 5)
        loop = asyncio.get_running_loop()  # the second does not get in: the queue takes one
        waiting = [loop.create_task(admitted(gate, far_s, n, "other")) for n in (4, 5)]
        await asyncio.sleep(0)
        refused = await face.post(INFER, body, *([header] if header else []))
        assert refused.status == status
        assert report_in(refused).in_flight == 2
        cold = await face.post("/v2/models/words/infer", body)
        assert cold.status == 400, "a cold model's load takes no place in the queue"
        slot.release()
        (await waiting[0]).release()
        await asyncio.wait(waiting)
