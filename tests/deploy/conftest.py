"""A small HTTP server in a thread, for commands that ask a running part."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class _Replies(BaseHTTPRequestHandler):
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
    """A running part: `replies` by method and path, `asked` what came, `url` where it is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Replies)
    server.replies, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
