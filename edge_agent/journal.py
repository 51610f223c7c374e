"""What must not be lost while no router can be reached: a bounded queue on disk.

Kept is what an operator would miss and cannot find out later: that a run ended without being told
to, that a model could not be loaded, crashed, was replaced or rolled back, and how many answers
went to clients that no router saw. Reports are not kept: the next one says more.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import msgspec

from isochrone.router.process.database import open_database, set_aside
from isochrone.router.wire.journal import DETAIL_LENGTH, Entry

T = TypeVar("T")

MOST = 4096
"""So many entries at most, about 1 MiB: of sums of five minutes, two weeks of one busy model."""
SERVED = "served"
"""Answers to clients that no router saw, of one model; `count` of them."""
ENDED_BADLY = "ended_badly"
"""The run before this one was not stopped: it crashed, was killed, or lost its power."""
LOST = "lost"
"""`count` entries found no room."""
_VALUE = {SERVED: 0, LOST: 2}
_USUAL_VALUE = 1
_TORN = (sqlite3.DatabaseError, msgspec.MsgspecError, TypeError, ValueError)
"""What a spoiled file may cause: SQLite keeps no checksums, and any value may be in any column."""
_TABLES = """
CREATE TABLE IF NOT EXISTS entry (
    number INTEGER PRIMARY KEY AUTOINCREMENT, value INTEGER NOT NULL, body BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, is_ NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that has happened; `at_s` is its wall-clock instant."""

    at_s: float
    kind: str
    model: str = ""
    version: str = ""
    detail: str = ""
    count: int = 1


class Journal:
    """The queue; one thread at a time may use it. Every change is on disk when its method returns.

    Any method raises sqlite3.OperationalError where the disk is full or may not be written; a torn
    file is set aside, whenever that shows itself.
    """

    def __init__(self, path: Path | None, epoch: Callable[[], str], most: int = MOST) -> None:
        """Without a path, in memory. `epoch` gives 16 hex digits that no file had before."""
        self._path = path
        self._epoch = epoch
        self._most = most
        self._connection: sqlite3.Connection | None = None

    def begin(self) -> bool:
        """A run begins; was the one before stopped in good order?"""

        def begin(db: sqlite3.Connection) -> bool:
            was_running = _fact(db, "running", 0)
            _set(db, "running", 1)
            return not was_running

        return self._do(begin)

    def end(self) -> None:
        """The run ends in good order."""
        self._do(lambda db: _set(db, "running", 0))
        self.close()

    def add(self, notes: Iterable[Note], lost: int = 0) -> None:
        """Take these; `lost` more found no room before. The least and oldest make room."""

        def add(db: sqlite3.Connection) -> None:
            _insert(db, notes)
            dropped = self._make_room(db) + lost
            if dropped:
                _set(db, "lost", _fact(db, "lost", 0) + dropped)

        self._do(add)

    def oldest(self, most: int, now_s: float) -> list[Entry]:
        """What is to be told first. That something was lost becomes an entry at `now_s`."""

        def oldest(db: sqlite3.Connection) -> list[Entry]:
            lost = _fact(db, "lost", 0) + _drop_unreadable(db, most)
            if lost:
                _insert(db, [Note(now_s, LOST, count=lost)])
                _set(db, "lost", 0)
            epoch = _fact(db, "epoch", "") or _set(db, "epoch", self._epoch())
            return [_entry(f"{epoch}-{number}", body) for number, body, _ in _rows(db, most)]

        return self._do(oldest)

    def forget(self, entries: Sequence[Entry]) -> None:
        """A router keeps these now."""
        numbers = [(int(entry.id.partition("-")[2]),) for entry in entries]

        def forget(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM entry WHERE number = ?", numbers)

        self._do(forget)

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _make_room(self, db: sqlite3.Connection) -> int:
        (count,) = db.execute("SELECT COUNT(*) FROM entry").fetchone()
        over: int = max(0, count - self._most)
        if over:
            least = "SELECT number FROM entry ORDER BY value, number LIMIT ?"
            db.execute(f"DELETE FROM entry WHERE number IN ({least})", (over,))
        return over

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """All of it or nothing; once more in a new file, where this one turns out to be torn."""
        try:
            return self._transacted(work)
        except sqlite3.OperationalError:
            raise
        except _TORN as error:
            self.close()
            if self._path is None:
                raise
            set_aside(self._path, error)
        return self._transacted(work)

    def _transacted(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = open_database(self._path, _TABLES)
        with self._connection:
            return work(self._connection)


def _fact(db: sqlite3.Connection, name: str, otherwise: T) -> T:
    found = db.execute("SELECT is_ FROM fact WHERE name = ?", (name,)).fetchone()
    return otherwise if found is None else found[0]


def _set(db: sqlite3.Connection, name: str, value: T) -> T:
    db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))
    return value


def _insert(db: sqlite3.Connection, notes: Iterable[Note]) -> None:
    for note in notes:
        body = _body(note)
        row = _VALUE.get(note.kind, _USUAL_VALUE), body, crc32(body)
        db.execute("INSERT INTO entry (value, body, crc) VALUES (?, ?, ?)", row)


def _rows(db: sqlite3.Connection, most: int) -> list[tuple[int, bytes, int]]:
    query = "SELECT number, body, crc FROM entry ORDER BY number LIMIT ?"
    return db.execute(query, (most,)).fetchall()


def _is_whole(body: object, crc: object) -> bool:
    return isinstance(body, bytes) and crc32(body) == crc


def _drop_unreadable(db: sqlite3.Connection, most: int) -> int:
    """How many of the first were no longer what was written; SQLite itself would not see it."""
    spoiled = [(number,) for number, body, crc in _rows(db, most) if not _is_whole(body, crc)]
    db.executemany("DELETE FROM entry WHERE number = ?", spoiled)
    return len(spoiled)


def _body(note: Note) -> bytes:
    detail = note.detail[:DETAIL_LENGTH]
    told = Entry("", note.at_s, note.kind, note.model, note.version, detail, note.count)
    return msgspec.json.encode(told)


def _entry(id_: str, body: bytes) -> Entry:
    fields = msgspec.json.decode(body)
    return msgspec.convert({**fields, "id": id_}, Entry)
