"""`isochrone up` and `isochrone demo` as people start and stop them, Ray Serve and all."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from isochrone.deploy.demo.models import prepare
from isochrone.deploy.local.ports import free_ports

pytestmark = pytest.mark.ray

BIN = Path(sys.executable).parent
START_S = 120
STOP_S = 60
_PATH = re.compile(r"/\S+/digit\.json")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The demo's models, trained once for all tests of this run."""
    folder = tmp_path_factory.getbasetemp() / "demo-models"
    prepare(folder, lambda _: None)
    return folder


def isochrone(*words):
    return [sys.executable, "-m", "isochrone.deploy.cli", *map(str, words)]


@contextmanager
def started(command, log):
    """A command, ended at the latest with the block."""
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    timer = threading.Timer(START_S + STOP_S, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        if process.poll() is None:
            process.terminate()
        process.communicate()


def descendants_named(folder):
    """The processes whose command line names a file of this run."""
    return list(of_run(folder).values())


def of_run(folder):
    """The same, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command:
                found[int(entry.name)] = command
    return found


def test_up_is_ready_its_lines_work_and_ctrl_c_leaves_nothing(cache, tmp_path):
    port, admin = free_ports(2)
    words = ("up", "--router-port", port, "--admin-port", admin, "--cache", cache)
    with started(isochrone(*words), tmp_path / "up.log") as up:
        assert up.stdout.readline() == f"ready http://127.0.0.1:{port}\n", _told(tmp_path)
        lines = _lines_until(up, "isochrone status")
        second = subprocess.run(isochrone(*words), capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert f"127.0.0.1:{port} is in use" in second.stderr

        folder = Path(next(found for line in lines if (found := _PATH.search(line)))[0]).parent
        for pid in (up.pid, *of_run(folder)):
            os.kill(pid, signal.SIGHUP)
        answers = [_run_as_it_stands(line) for line in lines if line.startswith(("isoch", "curl"))]
        assert len(answers) == 6
        assert "x-isochrone-endpoint: eu-west-1" in answers[0]
        assert "cloud-us-east" in answers[-1]

        up.send_signal(signal.SIGINT)
        assert up.wait(STOP_S) == 0
    assert descendants_named(folder) == []
    assert not folder.exists()


def _lines_until(process, start):
    lines: list[str] = []
    while not lines or not lines[-1].startswith(start):
        lines.append(process.stdout.readline().strip())
    return lines


def _run_as_it_stands(line):
    if line.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},  # noqa: TID251  # PATH of a shell
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_while_it_starts_leaves_nothing(number, cache, tmp_path):
    log = tmp_path / "demo.log"
    kept = tmp_path / "kept"
    with started(isochrone("demo", "--cache", cache, "--keep", kept), log) as demo:
        while "relays: ready" not in log.read_text():
            assert demo.poll() is None, log.read_text()
            time.sleep(0.05)
        demo.send_signal(number)
        assert demo.wait(STOP_S) == 130
    assert descendants_named(kept) == []


def _told(folder):
    return "\n".join(path.read_text() for path in folder.glob("*.log"))
