"""One process of the local system: started, known to be ready, stopped or killed, and only it."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from isochrone.router.errors import IsochroneError
from isochrone.router.process.clock import Clock, monotonic

_LOOK_S = 0.02
_READY = "ready "


class PartError(IsochroneError):
    """A process of the local system did not start, or ended by itself."""

    code = "part_failed"


class Part:
    """A process of ours, in a session of its own, with its output in files in `folder`.

    `url` is what it said that it is ready at.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, *, clock: Clock = monotonic
    ) -> None:
        self.name = name
        self.url = ""
        self.log = folder / f"{name}.log"
        self._out = folder / f"{name}.out"
        self._command = list(command)
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 where it was never started."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """What it ended with; None where it runs, or never ran."""
        return self._process.poll() if self._process else None

    async def start(self, timeout_s: float = 60.0) -> None:
        """Start it, again if need be, and wait until it says that it is ready.

        Raises:
            PartError: it ended, or said nothing in time.
        """
        self._spawn()
        in_time = await self._until(lambda: self._says_ready() or not self.running, timeout_s)
        if not in_time:
            raise PartError(self.told(f"{self.name} was not ready after {timeout_s:g} s"))
        if not self._says_ready():
            raise PartError(self.told(f"{self.name} ended with {self.code} before it was ready"))

    async def stop(self, grace_s: float = 10.0) -> None:
        """Ask it to end, wait for that, and end what is left by force."""
        self._signal(signal.SIGTERM)
        await self._until(lambda: not self.running, grace_s)
        self.kill()

    def kill(self) -> None:
        """End it and everything that it started, at once."""
        if self._process is None:
            return
        for pid in session_members(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def last_lines(self, count: int = 15) -> list[str]:
        """The end of its log."""
        if not self.log.exists():
            return []
        with self.log.open(errors="replace") as lines:
            return [line.rstrip() for line in deque(lines, count)]

    def told(self, problem: str) -> str:
        """A problem with the end of the log below it."""
        return "\n".join([f"{problem}; the end of {self.log}:", *self.last_lines()])

    def _spawn(self) -> None:
        self._out.write_bytes(b"")
        with self._out.open("ab") as out, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )

    async def _until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        until_s = self._clock() + timeout_s
        while not done():
            if self._clock() > until_s:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _says_ready(self) -> bool:
        for line in self._out.read_text(errors="replace").splitlines():
            if line.startswith(_READY):
                self.url = line.removeprefix(_READY).strip()
                return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)


def session_members(session: int) -> list[int]:
    """The living processes of a session that a part opened: itself and whatever it started.

    Empty where the system has no /proc; the part itself is known without it.
    """
    return [pid for pid in _process_ids() if _living_in(pid) == session]


def _process_ids() -> list[int]:
    processes = Path("/proc")
    if not processes.is_dir():
        return []
    return [int(entry.name) for entry in processes.iterdir() if entry.name.isdecimal()]


def _living_in(pid: int) -> int | None:
    """The session of a process; None where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
    return None if state in "ZX" else int(session)
