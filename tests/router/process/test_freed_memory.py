"""What was freed goes back to the system; what is in use costs no attempt to give it back."""

import asyncio
import subprocess
import sys

import pytest

from isochrone.router.process import freed_memory
from isochrone.router.process.freed_memory import FreedMemory, keep_trimmed, private_bytes

MIB = 1 << 20
BLOCK_BYTES = 100_000
"""Below what malloc gives a mapping of its own, which is given back by itself."""


def blocks(count):
    return [b"x" * BLOCK_BYTES for _ in range(count)]


def told():
    """Runs in a process of its own: private MiB with 100 MiB in use, freed, and given back."""
    freed = FreedMemory()
    held = blocks(1000)
    last = held[-1]
    numbers = [private_bytes()]
    held.clear()
    numbers.append(private_bytes())
    freed.tend()
    numbers.append(private_bytes())
    print(*(number // MIB for number in numbers), len(last))


def test_freed_memory_below_what_is_in_use_is_given_back():
    code = "from tests.router.process import test_freed_memory as it; it.told()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    in_use, after, given_back, _ = map(int, done.stdout.split())
    assert in_use - after < 20, "malloc keeps it"
    assert in_use - given_back > 80


@pytest.fixture
def tries(monkeypatch):
    """How often memory is given back, where `unaccounted` is what it is."""
    made = []
    monkeypatch.setattr(freed_memory, "give_back", lambda: made.append(1))
    return made


def test_what_is_in_use_is_not_looked_through(tries):
    freed = FreedMemory()
    held = blocks(1000)
    freed.tend()
    assert tries == []
    assert len(held) == 1000


def test_what_cannot_be_given_back_is_tried_once(tries, monkeypatch):
    now = [0]
    monkeypatch.setattr(freed_memory, "unaccounted_bytes", lambda: now[0])
    freed = FreedMemory()
    now[0] = 100 * MIB
    freed.tend()
    freed.tend()
    assert len(tries) == 1
    now[0] = 10 * MIB
    freed.tend()
    now[0] = 100 * MIB
    freed.tend()
    assert len(tries) == 2, "it had been given back meanwhile"


async def test_it_is_looked_at_again_and_again(tries, monkeypatch):
    grown = iter(range(0, 1000 * MIB, 20 * MIB))
    monkeypatch.setattr(freed_memory, "unaccounted_bytes", lambda: next(grown))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        keeping = group.create_task(keep_trimmed(0.01))
        while len(tries) < 3:  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.01)
        keeping.cancel()
