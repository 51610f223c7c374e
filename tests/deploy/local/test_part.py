"""One process: ready, ended by itself, stopped, killed with all that it started."""

import asyncio
import sys
from pathlib import Path

import pytest

from isochrone.deploy.local.part import Part, PartError, session_members

READY = "print('ready http://127.0.0.1:1', flush=True); "
WAIT = "import signal; signal.pause()"


def python(name, code, folder):
    return Part(name, [sys.executable, "-c", code], folder)


async def test_it_is_ready_when_it_says_so_and_ends_when_asked(tmp_path):
    part = python("router", READY + WAIT, tmp_path)
    await part.start()
    assert part.url == "http://127.0.0.1:1"
    assert part.running
    await part.stop()
    assert not part.running
    assert part.code == -15


async def test_it_can_be_started_again(tmp_path):
    part = python("router", READY + WAIT, tmp_path)
    await part.start()
    first = part.pid
    part.kill()
    assert part.code == -9
    await part.start()
    assert part.pid != first
    await part.stop()


async def test_one_that_ends_early_is_told_with_the_end_of_its_log(tmp_path):
    part = python("agent", "import sys; sys.exit('no such model')", tmp_path)
    with pytest.raises(PartError, match=r"agent ended with 1 before .*\n(.*\n)*no such model"):
        await part.start()


async def test_one_that_says_nothing_is_not_waited_for_for_ever(tmp_path):
    part = python("agent", WAIT, tmp_path)
    with pytest.raises(PartError, match=r"agent was not ready after 0\.3 s"):
        await part.start(timeout_s=0.3)
    await part.stop()
    assert not part.running


async def test_one_that_does_not_listen_is_ended_by_force(tmp_path):
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    part = python("agent", deaf + READY + WAIT, tmp_path)
    await part.start()
    await part.stop(grace_s=0.2)
    assert part.code == -9


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
async def test_what_it_started_ends_with_it(tmp_path):
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}]); "
    part = python("cloud", child + READY + WAIT, tmp_path)
    await part.start()
    assert len(session_members(part.pid)) == 2
    part.kill()
    async with asyncio.timeout(10):
        while session_members(part.pid):  # noqa: ASYNC110  # nobody tells when they are gone
            await asyncio.sleep(0.01)
