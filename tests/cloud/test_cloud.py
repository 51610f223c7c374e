"""One real cloud process: Ray, Serve, replicas and all."""

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from isochrone.router.wire.report import ModelState, decode_call_report, decode_endpoint_report

pytestmark = [
    pytest.mark.ray,
    # tritonclient's transport (gevent) warns about its own imports and sockets, which are not ours
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ROWS = np.array([[1, 2, 3, 4], [0, 1, 0, 0]], dtype=np.float32)
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS.tolist()}]}
).encode()
EXPECTED = ROWS @ np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("model", ["table", "torch-table"])
def test_a_package_answers_whatever_its_engine(cloud, model):
    status, answer = cloud.json("POST", f"/v2/models/{model}/infer", BODY)
    assert status == 200
    assert np.allclose(np.reshape(answer["outputs"][0]["data"], (2, 3)), EXPECTED)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
def test_tritonclient_works_unchanged(cloud, binary, packing):
    with InferenceServerClient(f"127.0.0.1:{cloud.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("table")
        assert client.get_model_metadata("table")["inputs"][0]["shape"] == [-1, 4]
        given = InferInput("x", [2, 4], "FP32").set_data_from_numpy(ROWS, binary_data=binary)
        wanted = InferRequestedOutput("y", binary_data=binary)
        answer = client.infer(
            "table",
            [given],
            outputs=[wanted],
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        assert np.allclose(answer.as_numpy("y"), EXPECTED)


def test_a_text_streams_chunk_by_chunk(cloud):
    body = json.dumps(
        {"text_input": "ab", "parameters": {"max_tokens": 3, "temperature": 0}}
    ).encode()
    status, fields, answer = cloud.ask("POST", "/v2/models/talk/generate_stream", body)
    assert status == 200
    assert fields["content-type"].startswith("text/event-stream")
    assert fields["transfer-encoding"] == "chunked"
    events = [json.loads(event.removeprefix(b"data: ")) for event in answer.split(b"\n\n") if event]
    assert [event["text_output"] for event in events] == ["c", "d", "e"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v2", b"", 200),
        ("GET", "/v2/health/live", b"", 200),
        ("GET", "/v2/health/ready", b"", 200),
        ("GET", "/v2/models", b"", 200),
        ("GET", "/v2/models/table", b"", 200),
        ("GET", "/v2/models/table/versions/1/ready", b"", 200),
        ("POST", "/v2/repository/index", b"", 200),
        ("POST", "/v2", b"", 405),
        ("GET", "/v2/models/table/infer", b"", 405),
        ("POST", "/v2/models/nobody/infer", BODY, 404),
        ("POST", "/v2/models/table/versions/9/infer", BODY, 404),
        ("POST", "/v2/models/table/infer", b"{}", 400),
        ("POST", "/v2/models/table/infer", b"{" + b"[" * 60000, 400),
        ("POST", "/v2/models/table/infer", b" " * ((6 << 20) + 1), 413),
        ("POST", "/v2/models/table/infer", b"{" + b" " * (5 << 20) + b"}", 400),
        ("POST", "/v2/models/table/generate_stream", b"{}", 400),
        ("POST", "/v2/repository/models/table/load", b"", 403),
        ("POST", "/isochrone/wake", b'{"model": "nobody"}', 404),
        ("POST", "/isochrone/wake", b'{"modle": "table"}', 400),
        ("GET", "/isochrone/wake", b"", 405),
        ("GET", "/nowhere", b"", 404),
    ],
)
def test_every_path_is_answered_in_json(cloud, method, path, body, status):
    answered, answer = cloud.json(method, path, body)
    assert answered == status
    assert status == 200 or answer["error"]


def test_answers_tell_of_the_region(cloud):
    _, fields, _ = cloud.ask("POST", "/v2/models/table/infer", BODY, x_isochrone_seq="eu=7")
    told = decode_call_report(fields["endpoint-load-metrics"].encode())
    report = decode_endpoint_report(cloud.ask("GET", "/isochrone/report")[2])
    assert told is not None
    assert report is not None
    assert told.instance == report.instance
    assert told.sequence < report.sequence
    assert told.infer_s > 0
    assert told.wait_s > 0
    assert told.seq_seen == report.seen["eu"] == 7
    assert report.slots >= 5 + 5 + 5 + 1
    states = {model.name: model.state for model in report.models}
    assert states.keys() == {"table", "torch-table", "talk", "narrow", "sleepy", "spin"}
    assert states["table"] is ModelState.WARM


def test_what_is_too_much_is_refused_in_json_and_told_when_to_return(cloud):
    with ThreadPoolExecutor(24) as clients:
        ask = [
            clients.submit(cloud.ask, "POST", "/v2/models/narrow/infer", BODY) for _ in range(72)
        ]
        answers = [asked.result() for asked in ask]
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    for status, fields, body in answers:
        if status == 503:
            assert json.loads(body)["code"] == "overloaded"
            assert fields["retry-after"] == "1"
            assert decode_call_report(fields["endpoint-load-metrics"].encode()) is not None


def test_rays_own_log_names_every_request_by_its_id(cloud):
    ids = [f"logged-{number}" for number in range(5)]
    for name in ids:
        _, fields, _ = cloud.ask("POST", "/v2/models/table/infer", BODY, x_request_id=name)
        assert fields["x-request-id"] == name
    lines = cloud.serve_logs("table")
    assert [sum(f" {name} -- CALL answer OK" in line for line in lines) for name in ids] == [1] * 5


def test_a_sleeping_model_is_woken_and_answers(cloud):
    path = "/v2/models/sleepy/infer"
    state = state_of(cloud, "sleepy")
    assert state is ModelState.COLD
    status, answer = cloud.json("POST", path, BODY, x_request_timeout_seconds="0.5")
    assert (status, answer["code"]) == (504, "deadline_exceeded")
    for _ in range(2):
        status, answer = cloud.json("POST", "/isochrone/wake", b'{"model": "sleepy"}')
        assert (status, answer["model"]) == (202, "sleepy")
    cloud.await_(lambda: state_of(cloud, "sleepy") is ModelState.WARM, "sleepy stays cold")
    assert cloud.ask("POST", path, BODY)[0] == 200
    assert (held_by(cloud, "sleepy").load_s or 0) > 0.1, "a process has started meanwhile"


def state_of(cloud, model):
    return held_by(cloud, model).state


def held_by(cloud, model):
    report = decode_endpoint_report(cloud.ask("GET", "/isochrone/report")[2])
    assert report is not None
    return next(held for held in report.models if held.name == model)


def test_a_client_that_leaves_in_the_middle_of_a_stream_stops_it(cloud):
    body = json.dumps({"text_input": "ab", "parameters": {"max_tokens": 1000}}).encode()
    head = b"POST /v2/models/talk/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", cloud.port)) as client:
        client.sendall(head % len(body) + body)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert in_flight(cloud) == 1
    cloud.await_(lambda: in_flight(cloud) == 0, "the stream goes on")


def test_a_replica_that_dies_with_a_call_inside_is_no_refusal(cloud):
    """Whoever is told that nothing has run may ask another, and the call would run twice."""
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [10**9]}]}
    ).encode()
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(cloud.json, "POST", "/v2/models/spin/infer", body)
        cloud.await_(lambda: in_flight(cloud) == 1, "the call does not begin")
        time.sleep(1.0)  # it has come to the replica by then
        os.kill(cloud.replica("spin"), signal.SIGKILL)
        status, answer = asked.result(20)
    assert (status, answer["code"]) == (502, "unusable_answer")


def in_flight(cloud):
    return json.loads(cloud.ask("GET", "/isochrone/report")[2])["in_flight"]


def test_nothing_is_written_to_the_home_directory(cloud):
    assert list(cloud.home.iterdir()) == []


def test_the_token_is_ours_alone(cloud):
    assert (cloud.ray / "auth_token").stat().st_mode & 0o777 == 0o600
