"""One real agent process that is harmed in every way, and started again."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import write_double, write_talk, write_words
from tests.soak.group import Group

START_S = 60.0
MODELS = ("double", "double-b", "double-c", "words", "talk")
_LISTENING = re.compile(r" listening url=(\S+) admin=(\S+)")


class SoakedAgent:
    """Its packages, files and process in a folder of its own.

    `life` counts its processes; it is even while none of them serves.
    """

    def __init__(self, folder: Path, group: Group | None = None, **changes: object) -> None:
        folder.mkdir()
        self.name = folder.name
        self.life = 0
        self.url = self.admin = ""
        self.starts_s: list[float] = []
        self._folder = folder
        self._log = folder / "log"
        self._log.touch()
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None
        packages = folder / "packages"
        for name in MODELS[:3]:
            write_double(packages, name)
        write_words(packages)
        write_talk(packages)
        config = {
            "name": folder.name,
            "region": "eu-west",
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "packages": str(packages),
            "keep_warm": ["double"],
            "slots": 2,
            "queue": 64,
            "state_file": "agent.state",
            "access_log": "access.jsonl",
            "access_log_bytes": 100_000,
            "routers": [{"url": "http://127.0.0.1:1"}],
            **changes,
        }
        (folder / "agent.yaml").write_text(json.dumps(config))

    @property
    def serves(self) -> bool:
        """A process is there and has said where it listens."""
        return self.life % 2 == 1

    @property
    def log(self) -> str:
        """What its processes have said."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def rss_bytes(self) -> int:
        """Resident memory."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        (found,) = re.findall(r"VmRSS:\s+(\d+) kB", text)
        return int(found) << 10

    async def start(self) -> None:
        """Start it and wait until it listens."""
        before, began_s = len(self.log), time.monotonic()
        self._launch()
        async with asyncio.timeout(START_S):
            while (found := _LISTENING.search(self.log, before)) is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        self.starts_s.append(time.monotonic() - began_s)
        self.url, self.admin = found[1], found[2]
        self.life += 1

    async def kill(self) -> None:
        """End it in the middle of whatever it does, and start it again."""
        self.life += 1
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(self._wait)
        await self.start()

    async def freeze(self, seconds: float) -> None:
        """Hold it for a while."""
        self._signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._signal(signal.SIGCONT)

    async def spoil(self, model: str, seconds: float) -> None:
        """Flip a byte of a model's file on disk, and mend it later."""
        path = self._folder / "packages" / model / "1" / "model.onnx"
        sound = path.with_suffix(".sound")
        shutil.copy(path, sound)
        data = bytearray(sound.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
        try:
            await asyncio.sleep(seconds)
        finally:
            sound.replace(path)

    def end(self) -> int | None:
        """Ask it to go; its exit code."""
        if self._process is None:
            return None
        self._signal(signal.SIGTERM)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            return self._wait()

    def _launch(self) -> None:
        command = [sys.executable, "-m", "isochrone.edge_agent", str(self._folder / "agent.yaml")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._group.entering(command) if self._group else command,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self) -> int:
        assert self._process is not None
        return self._process.wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
