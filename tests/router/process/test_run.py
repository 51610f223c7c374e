"""A daemon as a real process: its exit code, and what signals do."""

import signal
import subprocess
import sys

import pytest

DAEMON = """
import asyncio, sys
from router.process.run import run

async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    if sys.argv[1] == "stubborn":
        await asyncio.Event().wait()
    return 7

raise SystemExit(run(main))
"""


@pytest.fixture
def daemon(request):
    command = [sys.executable, "-c", DAEMON, request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("daemon", ["polite"], indirect=True)
def test_a_signal_asks_it_to_end(daemon, number):
    daemon.send_signal(number)
    assert daemon.stdout.readline() == "stopping\n"
    assert daemon.wait(10) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("daemon", ["stubborn"], indirect=True)
def test_a_second_signal_ends_it_at_once(daemon, number):
    daemon.send_signal(signal.SIGTERM)
    assert daemon.stdout.readline() == "stopping\n"
    daemon.send_signal(number)
    assert daemon.wait(10) == -number
