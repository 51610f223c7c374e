"""Notes outlive a router that is away and a disk that is full; clients never wait for either."""

import asyncio
import sqlite3
import subprocess
from contextlib import asynccontextmanager, suppress
from threading import Event

import msgspec
import pytest
from aiohttp import ClientSession, web

from isochrone.edge_agent.journal import Journal, Note
from isochrone.edge_agent.notes import Notes, Reconciler
from isochrone.router.wire.headers import SEQUENCE
from isochrone.router.wire.http import Request
from isochrone.router.wire.journal import Journal as Told

SOON_S = 10
NOW_S = 1_000_000.0
TWO_DAYS_S = 2 * 86_400.0


def journal_at(path):
    return Journal(path, lambda: "0" * 16)


@pytest.fixture
async def notes(tmp_path):
    made = Notes(journal_at(tmp_path / "agent.state"), lambda: NOW_S)
    yield made
    await made.close()


async def told_by(notes):
    return [(entry.kind, entry.detail) for entry in await notes.oldest()]


async def test_a_note_comes_to_disk_by_itself(notes):
    keeping = asyncio.get_running_loop().create_task(notes.keep())
    async with asyncio.timeout(SOON_S):
        for detail in "ab":
            notes.note("crashed", detail=detail)
            while ("crashed", detail) not in await told_by(notes):
                pass
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_a_run_that_ended_badly_is_noted_by_the_next(tmp_path):
    for run, found in enumerate([[], [("ended_badly", "")], []]):
        notes = Notes(journal_at(tmp_path / "agent.state"), lambda: NOW_S)
        assert await notes.write()
        assert await told_by(notes) == found
        if run:
            await notes.forget(await notes.oldest())
            await notes.close()


async def test_a_disk_that_hangs_holds_up_no_end(tmp_path):
    answers = Event()

    class Hanging(Journal):
        def end(self):
            answers.wait(30)
            super().end()

    notes = Notes(Hanging(tmp_path / "agent.state", lambda: "0" * 16), lambda: NOW_S)
    notes.note("crashed")
    async with asyncio.timeout(SOON_S):
        assert not await notes.close(0.05)
    answers.set()


def request(path="/v2/models/digits/infer", method="POST", headers=()):
    return Request(method, path, list(headers), b"")


async def test_answers_that_no_router_saw_are_summed_up(notes):
    for _ in range(3):
        notes.answered(request(), 200)
    notes.answered(request("/v2/models/words/versions/2/infer"), 200)
    notes.answered(request(), 503)
    notes.answered(request(method="GET"), 200)
    notes.answered(request("/isochrone/wake"), 200)
    notes.answered(request(headers=[(SEQUENCE, b"r=1")]), 200)
    summing = asyncio.get_running_loop().create_task(notes.sum_up(0.01))
    async with asyncio.timeout(SOON_S):
        while len(entries := await notes.oldest()) < 2:
            await notes.write()
    summing.cancel()
    assert [(e.kind, e.model, e.count) for e in entries] == [
        ("served", "digits", 3),
        ("served", "words", 1),
    ]


async def test_a_wall_clock_that_jumps_changes_nothing_but_instants(tmp_path):
    wall = [NOW_S]
    notes = Notes(journal_at(tmp_path / "agent.state"), lambda: wall[0])
    instants = [NOW_S, NOW_S + TWO_DAYS_S, NOW_S - TWO_DAYS_S]
    for wall[0] in instants:
        notes.note("crashed")
        assert await notes.write()
    entries = await notes.oldest()
    assert [entry.at_s for entry in entries] == instants
    assert sorted(entry.id for entry in entries) == [entry.id for entry in entries]
    await notes.close()


class FailingJournal(Journal):
    full: bool = True

    def add(self, drafts, lost=0):
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().add(drafts, lost)


async def test_while_the_disk_takes_nothing_the_newest_wait_and_the_rest_is_counted(caplog):
    journal = FailingJournal(None, lambda: "0" * 16)
    notes = Notes(journal, lambda: NOW_S)
    for number in range(300):
        notes.note("crashed", detail=str(number))
        if number % 100 == 50:
            assert not await notes.write()
    assert notes.failing == "database or disk is full"
    assert notes.lost == 300 - 256
    assert [record.message for record in caplog.records] == ["journal_fails"]
    journal.full = False
    assert await notes.write()
    kept = []
    while entries := await notes.oldest():
        kept += entries
        await notes.forget(entries)
    assert [entry.detail for entry in kept if entry.kind == "crashed"] == [
        str(number) for number in range(44, 300)
    ]
    assert [entry.count for entry in kept if entry.kind == "lost"] == [44]
    await notes.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(filler):
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


async def test_a_full_disk_costs_no_note_once_there_is_room_again(small_disk):
    notes = Notes(journal_at(small_disk / "agent.state"), lambda: NOW_S)
    notes.note("crashed", detail="before")
    assert await notes.write()
    filler = small_disk / "filler"
    fill(filler)
    written = 0
    while await notes.write():
        notes.note("crashed", detail=f"{written} {'x' * 300}")
        written += 1
        assert written < 1000
    filler.unlink()
    assert await notes.write()
    found = [d.split()[0] for entry in await notes.oldest() if (d := entry.detail)]
    assert found == (["before"] + [str(number) for number in range(written)])[:64]
    assert notes.lost == 0
    await notes.close()


class RouterOfOurs:
    """Answers what it is told from a script, the last entry for ever, and writes down what came."""

    def __init__(self, *statuses):
        self._statuses = list(statuses)
        self.heard: list[str] = []

    async def hear(self, request):
        told = msgspec.json.decode(await request.read(), type=Told)
        assert told.name == "edge-1"
        self.heard += [entry.detail for entry in told.entries]
        status = self._statuses.pop(0) if self._statuses[1:] else self._statuses[0]
        return web.json_response({"new": len(told.entries)}, status=status)


@asynccontextmanager
async def serving(router):
    app = web.Application()
    app.router.add_post("/isochrone/journal", router.hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


AWAY = "http://127.0.0.1:1"


async def test_what_no_router_takes_waits_and_the_first_that_takes_it_has_it(notes):
    first, second = RouterOfOurs(503, 404, 200), RouterOfOurs(503, 200)
    async with serving(first) as one, serving(second) as two, ClientSession() as session:
        told = Reconciler([AWAY, one, two], "edge-1", notes, session)
        notes.note("crashed", detail="a")
        await notes.write()
        await told.tell()
        assert (first.heard, second.heard) == (["a"], ["a"]), "both refuse"
        await told.tell()
        assert (first.heard, second.heard) == (["a"] * 2, ["a"] * 2), "the second has it"
        assert await notes.oldest() == []
        for number in range(130):
            notes.note("crashed", detail=str(number))
        await notes.write()
        await told.tell()
        assert first.heard[2:] == [str(number) for number in range(130)]
        assert second.heard[2:] == []


async def test_an_answer_that_was_lost_means_the_same_again_under_the_same_id(tmp_path):
    journal = journal_at(tmp_path / "agent.state")
    journal.add([Note(NOW_S, "crashed", detail="a")])
    notes = Notes(journal, lambda: NOW_S)
    once = await notes.oldest()
    assert await notes.oldest() == once
    await notes.close()


async def test_a_full_disk_makes_no_endless_telling(notes):
    router = RouterOfOurs(200)

    async def forget(entries):
        del entries
        return False

    notes.forget = forget
    notes.note("crashed", detail="a")
    await notes.write()
    async with serving(router) as url, ClientSession() as session:
        await Reconciler([url], "edge-1", notes, session).tell()
    assert router.heard == ["a"]
