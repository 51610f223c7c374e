"""What must not be lost: bounded, never told as new, whole after a kill or a tear."""

import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import count
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isochrone.edge_agent.journal import LOST, SERVED, Journal, Note

NOW_S = 1_000_000.0


def opened(path, most=100):
    epochs = count(1)
    return Journal(path, lambda: f"{next(epochs):016x}", most)


def draft(text, kind="rolled_back", **more):
    return Note(NOW_S, kind, detail=text, **more)


def texts(journal, most=64):
    return [entry.detail for entry in journal.oldest(most, NOW_S)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent.state"


def test_what_was_added_is_there_in_order_after_a_restart(path):
    journal = opened(path)
    journal.add([draft("a"), draft("b")])
    journal.close()
    again = opened(path)
    again.add([draft("c", model="digits", version="2")])
    first, _, last = again.oldest(64, NOW_S)
    assert (first.detail, first.at_s, first.kind) == ("a", NOW_S, "rolled_back")
    assert (last.model, last.version) == ("digits", "2")
    assert texts(again, 2) == ["a", "b"]


def test_no_id_is_used_twice(path):
    seen: set[str] = set()
    for _ in range(3):
        journal = opened(path)
        journal.add([draft("a"), draft("b")])
        entries = journal.oldest(64, NOW_S)
        journal.forget(entries)
        assert journal.oldest(64, NOW_S) == []
        assert seen.isdisjoint(entry.id for entry in entries)
        seen.update(entry.id for entry in entries)
        journal.close()


def test_the_least_and_oldest_make_room_and_that_is_told(path):
    journal = opened(path, most=3)
    journal.add([draft("old sum", SERVED), draft("a"), draft("new sum", SERVED)])
    journal.add([draft("b")])
    assert texts(journal) == ["a", "new sum", "b", ""]
    journal.forget(journal.oldest(64, NOW_S))
    journal.add([draft(text) for text in "cdef"], lost=2)
    *kept, lost = journal.oldest(64, NOW_S)
    assert [entry.detail for entry in kept] == ["d", "e", "f"]
    assert (lost.kind, lost.count) == (LOST, 1 + 2)
    assert journal.oldest(64, NOW_S) == [*kept, lost], "it is told once"


def test_a_long_text_is_cut(path):
    journal = opened(path)
    journal.add([draft("x" * 10_000)])
    assert texts(journal) == ["x" * 400]


def test_a_run_that_was_not_stopped_is_seen_by_the_next(path):
    journal = opened(path)
    assert journal.begin()
    journal.close()  # as if killed: it was not ended
    journal = opened(path)
    assert not journal.begin()
    journal.end()
    assert opened(path).begin()


def test_without_a_file_it_is_kept_in_memory():
    journal = opened(None)
    journal.add([draft("a")])
    assert texts(journal) == ["a"]


def test_a_folder_that_is_not_there_is_an_operational_error(path):
    with pytest.raises(sqlite3.OperationalError):
        opened(path / "nowhere").add([draft("a")])


tears = st.tuples(
    st.sampled_from(["", "-wal"]),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.none(), st.binary(min_size=1, max_size=5000)),
)


@given(st.lists(tears, min_size=1, max_size=3), st.booleans())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_file_never_keeps_it_from_going_on(tmp_path_factory, caplog, found, closed):
    """Cut short, or overwritten with anything, at any place of the file or of its log."""
    caplog.set_level(logging.CRITICAL)
    folder = tmp_path_factory.mktemp("torn")
    before = opened(folder / "running")
    put = {f"text {number}" for number in range(60)}
    before.add([draft(text) for text in sorted(put)])
    if closed:
        before.close()
    path = folder / "agent.state"
    for sidecar in ("", "-wal"):  # what is on the disk at this moment
        if (running := folder / f"running{sidecar}").exists():
            shutil.copy(running, f"{path}{sidecar}")
    before.close()
    for sidecar, share, written in found:
        tear(path.with_name(path.name + sidecar), share, written)
    after = opened(path)
    assert set(texts(after, 200)) <= put | {""}, "nothing is told that was not put there"
    after.add([draft("afterwards")])
    assert "afterwards" in texts(after, 200)
    after.close()


def tear(path, share, written):
    if not path.exists():
        return
    data = path.read_bytes()
    at = int(share * len(data))
    path.write_bytes(
        data[:at] if written is None else data[:at] + written + data[at + len(written) :]
    )


def test_a_torn_file_is_set_aside_and_said(path, caplog):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    journal = opened(path)
    journal.add([draft("a")])
    assert texts(journal) == ["a"]
    (said,) = [record for record in caplog.records if record.message == "database_broken"]
    assert said.levelname == "ERROR"
    assert path.with_name("agent.state.broken").stat().st_size == 5016


ADDING = """
import sys
from pathlib import Path
from isochrone.edge_agent.journal import Note, Journal

journal = Journal(Path(sys.argv[1]), lambda: "0" * 16)
print("begun", journal.begin(), flush=True)
for number in range(10**6):
    journal.add([Note(0.0, "x", detail=f"{sys.argv[2]}-{number}")])
    print(f"{sys.argv[2]}-{number}", flush=True)
"""


def test_a_kill_at_any_moment_loses_nothing_that_was_added(path):
    rng = Random(7)
    said = []
    for run in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", ADDING, str(path), str(run)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == f"begun {run == 0}\n"
        time.sleep(rng.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().split()
        process.wait()
        process.stdout.close()
    assert len(said) > 10
    journal = opened(path)
    found = texts(journal, 10**6)
    assert [text for text in found if text in set(said)] == said
    assert len(found) <= len(said) + 6, "of each run, one more may have been under way"
    assert not path.with_name("agent.state.broken").exists()
