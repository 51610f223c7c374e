"""A client that costs little: keep-alive connections, requests ready as bytes, one epoll loop.

    python -m tests.bench.edge_client < PLAN

The plan is JSON; see `Plan`. The result is JSON, too. In a closed loop every connection asks again
as soon as it has its answer; in an open loop requests leave at their instants, whatever comes back,
and latencies of good answers count from those instants; those of refusals from the sending.
"""

import os
import select
import socket
import sys
from array import array
from collections.abc import Iterator
from random import Random
from time import clock_gettime, perf_counter

import msgspec

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_PUSHED_OUT = b"gave its place"
_SAMPLES = 64


class Kind(msgspec.Struct, frozen=True):
    """One request: its bytes, what an answer of 200 must contain, its share of an open loop."""

    request: bytes
    expected: bytes = b""
    share: float = 1.0


class Plan(msgspec.Struct, frozen=True):
    """What to do; `rate` is requests in a second, 0 for a closed loop of `clients`.

    Of the process `server_pid` the processor time is told that it took between warm-up and end.
    """

    port: int
    kinds: tuple[Kind, ...]
    clients: int = 1
    seconds: float = 1.0
    warm_up_s: float = 0.2
    rate: float = 0.0
    seed: int = 1
    core: int | None = None
    grace_s: float = 3.0
    server_pid: int | None = None


class Result(msgspec.Struct):
    """Of one kind: latencies of good answers and of refusals (503) in seconds, and the rest.

    Pushed out are those who were let into the queue and gave their place there to others.

    `samples` are some of the last good answers, for whoever can tell whether they are right.
    """

    ok_s: list[float] = []
    refused_s: list[float] = []
    pushed_out_s: list[float] = []
    late_count: int = 0
    wrong_count: int = 0
    lost_count: int = 0
    sent_count: int = 0
    samples: list[bytes] = []


class Done(msgspec.Struct):
    """What came of a plan; the seconds between its warm-up and its end.

    In them the server gave so many good answers, asked for then or before, and used `used_s`.
    """

    results: list[Result]
    seconds: float
    used_s: float
    ok_count: int


def used_s(pid: int) -> float:
    """The processor time of a process: its own clock; see clock_getcpuclockid(3)."""
    return clock_gettime((~pid << 3) | 2)


class _Connection:
    """One request after another."""

    __slots__ = ("began_s", "buffer", "counted", "kind", "missing", "sent_s", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.buffer = b""
        self.missing = 0
        self.kind = 0
        self.began_s = self.sent_s = 0.0
        self.counted = False

    def send(self, data: bytes) -> None:
        """A request; small, so that the kernel takes it whole."""
        sent = self.sock.send(data)
        if sent < len(data):
            self.sock.setblocking(True)
            self.sock.sendall(data[sent:])
            self.sock.setblocking(False)

    def answer(self) -> bytes | None:
        """The answer, once it is whole; b"" where the connection was closed."""
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            return b""
        if not data:
            return b""
        self.buffer = self.buffer + data if self.buffer else data
        if self.missing and len(self.buffer) < self.missing:
            return None
        end = self.buffer.find(_HEAD_END)
        if end < 0:
            return None
        at = self.buffer.find(_LENGTH) + len(_LENGTH)
        self.missing = end + 4 + int(self.buffer[at : self.buffer.find(b"\r", at)])
        if len(self.buffer) < self.missing:
            return None
        whole, self.buffer, self.missing = self.buffer, b"", 0
        return whole


class Client:
    """Carries a plan out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._poll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._results = [Result() for _ in plan.kinds]
        self._ok_s = [array("d") for _ in plan.kinds]
        self._began_s = self._took_s = self._used_s = 0.0
        self._ok_count = 0
        self._measuring = False
        self._last: dict[int, tuple[int, bytes]] = {}

    def run(self) -> Done:
        """Carry it out."""
        if self._plan.rate:
            self._open_loop()
        else:
            self._closed_loop()
        for result, ok_s in zip(self._results, self._ok_s, strict=True):
            result.ok_s = ok_s.tolist()
        for kind, answer in self._last.values():
            self._results[kind].samples.append(answer)
        for connection in self._all.values():
            self._results[connection.kind].lost_count += connection.counted
        return Done(self._results, self._took_s, self._used_s, self._ok_count)

    def _begin(self) -> None:
        """What comes from here on is measured."""
        self._measuring = True
        self._began_s, self._used_s = perf_counter(), -self._server_used_s()

    def _end(self) -> None:
        """And from here on it is not."""
        self._measuring = False
        self._took_s = perf_counter() - self._began_s
        self._used_s += self._server_used_s()

    def _closed_loop(self) -> None:
        plan = self._plan
        connections = [self._connect() for _ in range(plan.clients)]
        begin_s = perf_counter() + plan.warm_up_s
        end_s = begin_s + plan.seconds
        for connection in connections:
            self._ask(connection, 0, perf_counter(), counted=False)
        self._ask_again_until(begin_s, counted=False)
        self._begin()
        self._ask_again_until(end_s, counted=True)
        self._end()
        for connection in connections:
            connection.counted = False

    def _ask_again_until(self, end_s: float, *, counted: bool) -> None:
        """What is answered by then counts, whenever it was asked.

        Without sleeping: a sleeping core is woken at the expense of who sends.
        """
        while perf_counter() < end_s:
            for descriptor, _ in self._poll.poll(0):
                connection = self._all[descriptor]
                connection.counted = counted
                if self._take(connection):
                    self._ask(connection, 0, perf_counter(), counted=counted)

    def _server_used_s(self) -> float:
        pid = self._plan.server_pid
        return 0.0 if pid is None else used_s(pid)

    def _open_loop(self) -> None:
        plan = self._plan
        for _ in range(plan.clients):
            self._idle.append(self._connect())
        began_s = perf_counter()
        due = _arrivals(plan)
        at_s, kind = next(due)
        while at_s < plan.seconds:
            now_s = perf_counter() - began_s
            if now_s >= plan.warm_up_s and not self._measuring:
                self._begin()
            while at_s <= now_s:
                connection = self._idle.pop() if self._idle else self._connect()
                self._ask(connection, kind, began_s + at_s, counted=at_s >= plan.warm_up_s)
                at_s, kind = next(due)
            self._collect(0.0)  # a sleeping client costs the server's send the waking of its core
        self._end()
        until_s = perf_counter() + plan.grace_s
        while len(self._idle) < len(self._all) and perf_counter() < until_s:
            self._collect(0.05)

    def _collect(self, wait_s: float) -> None:
        for descriptor, _ in self._poll.poll(wait_s):
            connection = self._all[descriptor]
            if self._take(connection) and descriptor in self._all:
                self._idle.append(connection)

    def _connect(self) -> _Connection:
        connection = _Connection(self._plan.port)
        self._poll.register(connection.sock, select.EPOLLIN)
        self._all[connection.sock.fileno()] = connection
        return connection

    def _ask(self, connection: _Connection, kind: int, began_s: float, *, counted: bool) -> None:
        connection.kind, connection.began_s, connection.counted = kind, began_s, counted
        self._results[kind].sent_count += counted
        connection.sent_s = perf_counter()
        connection.send(self._plan.kinds[kind].request)

    def _take(self, connection: _Connection) -> bool:
        """Read; True where a whole answer was there."""
        answer = connection.answer()
        if answer is None:
            return False
        ok = answer[9:12] == b"200" and self._plan.kinds[connection.kind].expected in answer
        self._ok_count += ok and self._measuring
        if connection.counted:
            self._count(connection, answer, ok=ok)
            connection.counted = False
        if answer == b"":
            if connection in self._idle:  # nothing was asked: it was idle for too long
                self._idle.remove(connection)
            self._poll.unregister(connection.sock)
            del self._all[connection.sock.fileno()]
            connection.sock.close()
        return True

    def _count(self, connection: _Connection, answer: bytes, *, ok: bool) -> None:
        took_s = perf_counter() - connection.began_s
        result, status = self._results[connection.kind], answer[9:12]
        if ok:
            self._ok_s[connection.kind].append(took_s)
            self._last[connection.sock.fileno() % _SAMPLES] = connection.kind, answer
        elif status == b"503":
            told_s = result.pushed_out_s if _PUSHED_OUT in answer else result.refused_s
            told_s.append(perf_counter() - connection.sent_s)
        elif status == b"504":
            result.late_count += 1
        elif not answer:
            result.lost_count += 1
        else:
            result.wrong_count += 1


def _arrivals(plan: Plan) -> Iterator[tuple[float, int]]:
    """A Poisson stream of instants and kinds."""
    rng = Random(plan.seed)
    kinds = range(len(plan.kinds))
    shares = [kind.share for kind in plan.kinds]
    at_s = 0.0
    while True:
        at_s += rng.expovariate(plan.rate)
        yield at_s, rng.choices(kinds, shares)[0]


def main() -> int:
    """Run the plan of standard input."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    sys.stdout.buffer.write(msgspec.json.encode(Client(plan).run()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
