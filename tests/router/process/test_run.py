"""A daemon as a real process: its exit code, and what signals do."""

import signal
import subprocess
import sys

import pytest

DAEMON = """
import asyncio, sys
from isochrone.router.process.run import run

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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


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


@pytest.mark.parametrize("daemon", ["polite"], indirect=True)
def test_a_hang_up_is_said_and_ends_nothing(daemon):
    daemon.send_signal(signal.SIGHUP)
    assert daemon.stderr.readline().startswith("SIGHUP does nothing")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.stdout.readline() == "stopping\n"
    assert daemon.wait(10) == 7


def test_a_hang_up_before_the_loop_runs_ends_nothing():
    early = """
import os, signal
from isochrone.router.process.run import keep_on_hangup
keep_on_hangup()
os.kill(os.getpid(), signal.SIGHUP)
print("here")
"""
    ran = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, check=True)
    assert ran.stdout == "here\n"
    assert ran.stderr.startswith("SIGHUP does nothing")
