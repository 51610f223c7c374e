"""Runs a variant in a process of its own, whose crash costs an answer, not the agent.

Torch, for one, does not give back what it took; a process does.
"""

import asyncio
import hashlib
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from contextlib import ExitStack
from itertools import count
from queue import SimpleQueue

import msgspec
from msgspec.structs import replace

from isochrone.edge_agent.runtime.calls.quarantine import Quarantine
from isochrone.edge_agent.runtime.engines.frames import Frame, Kind, Refusal, Start, receive
from isochrone.edge_agent.runtime.memory.process_memory import process_bytes
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.errors import BadRequest, Crashed, IsochroneError, Unavailable, Uncomputable
from isochrone.router.wire import binary_codec
from isochrone.router.wire.message import InferRequest, InferResponse

_HANG_S = 5.0
"""A call that nobody wants any more may take so much longer; then its process is ended."""
_LEAVE_S = 5.0
_KINDS = {
    "uncomputable": Uncomputable,
    **{kind.code: kind for kind in (BadRequest, Unavailable, PackageError)},
}
_numbers = count()
_log = logging.getLogger(__name__)


class Worker:
    """The process, and one socket to it for every call that may run at once."""

    def __init__(self, connections: int) -> None:
        """Started here and now.

        Raises:
            OSError: it cannot be.
        """
        with ExitStack() as theirs, ExitStack() as ours:
            pairs = [socket.socketpair() for _ in range(connections)]
            self._sockets = [ours.enter_context(own) for own, _ in pairs]
            descriptors = [theirs.enter_context(other).fileno() for _, other in pairs]
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "isochrone.edge_agent.runtime.engines.isolated",
                    *map(str, descriptors),
                ],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            ours.pop_all()
        self.number = next(_numbers)
        """No other worker of this agent has it; process ids come again."""
        self._is_gone = False
        self._free: SimpleQueue[socket.socket] = SimpleQueue()
        for one in self._sockets:
            self._free.put(one)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def exchange(self, frame: Frame) -> Frame:
        """The answer to one frame; blocks.

        Raises:
            Crashed: the process died; it is of no more use.
        """
        connection = self._free.get()
        try:
            connection.sendall(frame.encoded())
            return receive(connection)
        except (EOFError, OSError):
            self._is_gone = True
            raise Crashed("the process that ran the model died during this request") from None
        finally:
            self._free.put(connection)

    def is_alive(self) -> bool:
        """It runs."""
        return not self._is_gone and self._process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> int:
        """Let it end, or end it; blocks. Returns its exit code, below 0 for a signal."""
        for one in self._sockets:
            one.close()
        try:
            return self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()


class ProcessModel:
    """One variant of a package in another process."""

    def __init__(
        self,
        package: Package,
        variant: Variant,
        executor: Executor,
        threads: int,
        quarantine: Quarantine,
        calls_at_once: int,
    ) -> None:
        """As an engine's model; requests in `quarantine` are refused once it is warm.

        A warm-up is no client's: one during which the process died is tried again with each load.
        """
        self._package = package
        self._variant = variant
        self._executor = executor
        self._threads = threads
        self._clients = quarantine
        self._quarantine = Quarantine(quarantine.clock)
        self._calls_at_once = calls_at_once
        self._worker: Worker | None = None
        self._is_killed = False

    @property
    def size_bytes(self) -> int:
        """What the process takes in memory; 0 where it does not run."""
        return process_bytes(self._worker.pid) if self._worker is not None else 0

    def startup(self) -> None:
        """Start the process and have it load the weights.

        Raises:
            PackageError: the file is not what the manifest promises.
            MemoryError: it does not fit.
            Crashed: it died.
        """
        self._worker = Worker(self._calls_at_once)
        if self._is_killed:
            self._worker.kill()
        start = Start(str(self._package.path.absolute()), self._variant.name, self._threads)
        reply = self._worker.exchange(Frame.of(Kind.START, start))
        if reply.kind is Kind.REFUSAL:
            raise _raised(reply)

    def warmed(self) -> None:
        """From here on requests are those of clients."""
        self._quarantine = self._clients

    async def request(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """One answer.

        Raises:
            BadRequest: the inputs do not fit.
            Quarantined: the process died twice while this very request was there.
            Crashed: it died now.
            Unavailable: the model is not loaded, or ran out of memory.
        """
        worker = self._worker
        if worker is None or not worker.is_alive():
            raise Unavailable(f"{self._package.name} is not loaded", retry_after_s=1.0)
        body, head_bytes = binary_codec.encode_request(replace(request, id=""))
        digest = hashlib.sha256(body).digest()
        self._quarantine.check(digest)
        try:
            reply = await self._reply(worker, Frame(Kind.ASK, body, head_bytes), digest)
        except Crashed:
            self._quarantine.crashed(digest, worker.number)
            raise
        self._quarantine.answered(digest)
        if reply.kind is Kind.REFUSAL:
            raise _raised(reply)
        answer = binary_codec.decode_response(reply.body, reply.head_bytes)
        yield replace(answer, id=request.id)

    def shutdown(self) -> None:
        """End the process."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        died = not worker.is_alive()
        code = worker.close()
        if died:
            _log.error("the process of %s had died (exit code %d)", self._package.name, code)

    def kill(self) -> None:
        """End the process at once, or as soon as there is one; from any thread."""
        self._is_killed = True
        worker = self._worker
        if worker is not None:
            worker.kill()

    def is_healthy(self) -> bool:
        """The process runs."""
        return self._worker is not None and self._worker.is_alive()

    async def _reply(self, worker: Worker, frame: Frame, digest: bytes) -> Frame:
        """What the worker answers; cancelled, it is waited for, but not for ever."""
        running = self._executor.submit(worker.exchange, frame)
        outcome = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            if not running.cancel():
                await asyncio.wait([outcome], timeout=_HANG_S)
                if not outcome.done():
                    _log.error("the process of %s hangs; it is ended", self._package.name)
                    self._quarantine.crashed(digest, worker.number)
                    worker.kill()
                    await asyncio.wait([outcome])
                outcome.exception()  # nobody else looks at it
            raise


def _raised(reply: Frame) -> Exception:
    refusal = msgspec.json.decode(reply.body, type=Refusal)
    if refusal.code == "memory":
        return MemoryError(refusal.message)
    kind = _KINDS.get(refusal.code)
    if kind is None:
        _log.error("a model's process failed: %s", refusal.message)
        return IsochroneError("the model failed; see the log")
    return kind(refusal.message)
