"""Commands that ask a running part, where something else than Isochrone answers."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from isochrone.deploy import call as asking
from isochrone.deploy.cli import PROBLEM, main
from tests.conftest import write_double
from tests.deploy.test_doctor import write

ASKING = {
    "status": "status --admin URL",
    "explain": "explain r-1 --admin URL",
    "infer": "infer digits --image PICTURE --router URL",
    "list": "models list --agent URL",
    "pull": "models pull m --version 1 --agent URL",
    "load": "models load m --agent URL",
    "unload": "models unload m --agent URL",
    "rollback": "models rollback m --agent URL",
    "doctor": "doctor --config CONFIG",
}
JSON = {"content-type": "application/json"}
HUGE_BYTES = 1 << 20
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "an empty object": (200, JSON, b"{}"),
    "an empty object, accepted": (202, JSON, b"{}"),
    "a list": (200, JSON, b"[]"),
    "a list of lists": (200, JSON, b"[[], {}]"),
    "null": (200, JSON, b"null"),
    "a number": (200, JSON, b"1e999"),
    "fields of other types": (
        200,
        JSON,
        b'{"router":{},"endpoints":[5],"models":{},"version":1,"inputs":[],"outputs":[{"name":"a"}]}',
    ),
    "a fleet of another schema": (200, JSON, b'{"schema":"isochrone.fleet/1","ok":true}'),
    "deep nesting": (200, JSON, b"[" * 100_000),
    "deep nesting, closed": (200, JSON, b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a body over the bound": (200, JSON, b" " * (HUGE_BYTES + 1)),
    "no text": (200, JSON, b'\xff\xfe{"a":"\xff"}'),
    "nothing": (200, JSON, b""),
    "a page": (200, {"content-type": "text/html"}, b"<html><body>It works!</body></html>"),
    "a page that is not found": (404, {"content-type": "text/html"}, b"<html>\x1b[2J404</html>"),
    "a refusal that is none of ours": (403, JSON, b'{"detail":"no"}'),
    "204": (204, {}, b""),
    "a redirect": (302, {"location": "/elsewhere"}, b""),
    "a redirect that keeps the method": (307, {"location": "/elsewhere"}, b""),
    "a server's error": (500, {}, b"Internal Server Error"),
    "less than it announces": (200, {"content-length": "1000"}, b"{"),
}


@contextmanager
def answering(status, headers, body):
    """A server that gives one answer to everything; its URL, and the paths that were asked."""
    asked = []

    class Same(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def ran(command, url, tmp_path):
    picture = tmp_path / "one.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    write_double(tmp_path / "packages")
    config = write(tmp_path, routers=[{"url": url}])
    words = {"URL": url, "PICTURE": str(picture), "CONFIG": str(config)}
    return main([words.get(word, word) for word in command.split()])


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("command", ASKING)
def test_an_answer_of_another_server_is_told_in_words(
    tmp_path, capsys, monkeypatch, command, answer
):
    monkeypatch.setattr(asking, "ANSWER_BYTES", HUGE_BYTES)
    with answering(*ANSWERS[answer]) as (url, asked):
        code = ran(ASKING[command], url, tmp_path)
    told = capsys.readouterr()
    said = told.out if command == "doctor" else told.err
    assert code == PROBLEM, told
    assert "no isochrone answers at" in said or "gives no answer" in said
    assert url in said
    assert "\x1b" not in said
    if command != "doctor":
        assert told.out == ""
        assert said.count("\n") == 1
        flag = ASKING[command].split()[-2]
        assert flag in said, "which flag names the address"
    assert "/elsewhere" not in asked, "keys and tokens go to no other address"


@pytest.mark.parametrize("first_line", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02\r\n\r\n"])
@pytest.mark.parametrize("command", ASKING)
def test_a_port_that_speaks_no_http_is_told_in_words(tmp_path, capsys, first_line, command):
    class Other(BaseHTTPRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(first_line)

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            code = ran(ASKING[command], f"http://127.0.0.1:{server.server_port}", tmp_path)
        finally:
            server.shutdown()
            thread.join()
    told = capsys.readouterr()
    assert code == PROBLEM
    assert "gives no answer" in told.out + told.err


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}],
        [{"name": "y", "datatype": "BYTES", "shape": [0], "data": []}],
        [{"name": "y", "datatype": "BYTES", "shape": [1], "data": ["no class"]}],
    ],
    ids=["no output", "numbers", "no classes", "a text"],
)
def test_an_answer_without_classes_is_told_in_words(part, tmp_path, capsys, outputs):
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 8, 8]}
    metadata = json.dumps({"inputs": [tensor], "outputs": [tensor]}).encode()
    answer = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()
    part.replies["GET", "/v2/models/m"] = 200, JSON, metadata
    part.replies["POST", "/v2/models/m/infer"] = 200, JSON, answer
    command = "infer m --image PICTURE --router URL"
    assert ran(command, part.url, tmp_path) == PROBLEM
    assert "its answer holds no classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("datatype", "shape"), [("FP9", [8, 8]), ("BYTES", [8, 8]), ("FP32", [10**9, 10**9])]
)
def test_a_model_that_takes_no_picture_is_told_in_words(part, tmp_path, capsys, datatype, shape):
    tensor = {"name": "x", "datatype": datatype, "shape": shape}
    metadata = json.dumps({"inputs": [tensor], "outputs": [tensor]}).encode()
    part.replies["GET", "/v2/models/m"] = 200, JSON, metadata
    assert ran("infer m --image PICTURE --router URL", part.url, tmp_path) == 2
    assert f"the model takes x ({datatype} {shape}), no single picture" in capsys.readouterr().err
