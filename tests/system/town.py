"""Real processes: one router and two agents, started with the command line as people do."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REGIONS: dict[str, dict[str, Any]] = {
    "regions": {
        "eu-west": {"location": {"latitude": 53.3, "longitude": -6.3}, "jurisdiction": "eu"},
        "us-east": {"location": {"latitude": 39.0, "longitude": -77.5}, "jurisdiction": "us"},
    },
    "tenants": {"default": {"require": "any"}},
}
START_S = 30


PROGRAM = ("-m", "isochrone.deploy.cli")


class Part:
    """One process of the system, its files in a folder of its own.

    `program` is what Python runs: the command line, or something that goes before it.
    """

    def __init__(
        self,
        role: str,
        folder: Path,
        config: Mapping[str, object],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        folder.mkdir()
        self.log = folder / "log"
        path = folder / f"{role}.yaml"
        path.write_text(json.dumps(config))
        command = [sys.executable, *program, role, "--config", str(path)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        self._told = False
        self.url = self._ready()

    @property
    def address(self) -> str:
        """`HOST:PORT` of the public listener."""
        return self.url.removeprefix("http://")

    @property
    def admin(self) -> str:
        """The URL of the administration, from the log."""
        (found,) = {
            word.removeprefix("admin=")
            for word in self.log.read_text().split()
            if word.startswith("admin=http")
        }
        return found

    def _ready(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.end()
            raise AssertionError(self.log.read_text())
        return line.split()[1]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._told = number in (signal.SIGTERM, signal.SIGKILL)
        self.process.send_signal(number)

    def end(self) -> int:
        """Ask it to end, unless that was done, and wait; returns its exit code."""
        if self.process.poll() is None and not self._told:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=10)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


class Town:
    """A router, and the agents that have enrolled with it."""

    def __init__(
        self,
        folder: Path,
        store: Path,
        *,
        regions: Mapping[str, object] = REGIONS,
        **changes: object,
    ) -> None:
        """`changes` go over the router's configuration."""
        self._folder = folder
        self._store = store
        (folder / "regions.yaml").write_text(json.dumps(regions))
        self.router = Part(
            "router",
            folder / "router",
            {
                "name": "r1",
                "region": "eu-west",
                "regions_file": "../regions.yaml",
                "listen": "127.0.0.1:0",
                "admin": {"listen": "127.0.0.1:0"},
                "probe": {"interval_s": 0.2, "timeout_s": 0.3},
                "enrolment": {"renew_s": 0.5},  # it is ready so long after its start
                **changes,
            },
        )
        self.agents: dict[str, Part] = {}

    def agent(
        self,
        name: str,
        *,
        region: str = "eu-west",
        relayed_at: str | None = None,
        program: Sequence[str] = PROGRAM,
        **changes: object,
    ) -> Part:
        """Start an agent that enrols with the router.

        `relayed_at` is where the router is to reach it, in place of where it listens.
        """
        router = {"url": self.router.url}
        if relayed_at is not None:
            router["advertise"] = f"http://{relayed_at}"
        config = {
            "name": name,
            "region": region,
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "packages": str(self._store),
            "keep_warm": ["double", "words", "talk"],
            "routers": [router],
            "access_log": "access.jsonl",
            **changes,
        }
        folder = self._folder / f"{name}-{time.monotonic_ns()}"
        part = Part("agent", folder, config, program)
        self.agents[name] = part
        return part

    def end(self) -> None:
        """End every process."""
        for part in [*self.agents.values(), self.router]:
            part.end()


def wait_until(condition: Callable[[], bool], within_s: float = START_S) -> None:
    """Ask again and again whether something has come about; fail where it does not."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.02)
