"""A small HTTP server in a thread for commands that ask a running part; the demo's models."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from isochrone.deploy.demo.models import DemoModels, prepare


class Part(ThreadingHTTPServer):
    """Answers by method and path from `replies`; `asked` is what came."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Replies)
        self.replies: dict[tuple[str, str], tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Replies(BaseHTTPRequestHandler):
    server: Part

    def do_GET(self):
        self._reply(b"")

    def do_POST(self):
        self._reply(self.rfile.read(int(self.headers["content-length"])))

    def _reply(self, body):
        self.server.asked.append((self.command, self.path, dict(self.headers.items()), body))
        status, headers, answer = self.server.replies[self.command, self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def part():
    """A running part."""
    with Part() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where the demo's models are kept, for all tests of this run."""
    return tmp_path_factory.getbasetemp() / "demo-models"


@pytest.fixture(scope="session")
def made(cache) -> DemoModels:
    """The demo's models, trained once for all tests."""
    return prepare(cache, lambda _: None)
