"""What a router keeps across restarts: enrolments of the last day, and what agents have told it."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from isochrone.router.errors import BadRequest, ConfigError, Unavailable
from isochrone.router.members.membership import KNOWN_FOR_S
from isochrone.router.process.clock import Clock, monotonic
from isochrone.router.process.database import open_database
from isochrone.router.wire.journal import Entry
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.report import Enrolment

P = ParamSpec("P")
T = TypeVar("T")

_TABLES = """
CREATE TABLE IF NOT EXISTS enrolment (
    name TEXT PRIMARY KEY, url TEXT NOT NULL, body BLOB NOT NULL, seen_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS told (
    agent TEXT, id TEXT, seen_s REAL NOT NULL, body BLOB NOT NULL, PRIMARY KEY (agent, id)
);
"""
_TOLD_MOST = 100_000
_AGAIN_S = 30.0
_SAVED_MOST = 100_000
_REFRESH_S = 600.0
"""An enrolment that has not changed is written again only after this time."""


class Store:
    """A SQLite file (WAL); without a path, in memory. Reads and writes leave the event loop.

    `wall` is wall-clock time in seconds since 1970: what is kept must be understood by the next
    process. It is read once and then kept going by `clock`, so that a clock that is set makes
    nothing old.
    """

    def __init__(self, path: Path | None, wall: Clock, clock: Clock = monotonic) -> None:
        """Open the file, or make it; one that is torn is set aside.

        Raises:
            ConfigError: it cannot be opened or written.
        """
        self._clock = clock
        self._ahead_s = wall() - clock()
        self._saved: dict[str, tuple[Enrolment, float]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            self._connection = open_database(path, _TABLES)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"{path}: state_file cannot be used: {error}") from error

    def load(self) -> list[tuple[Enrolment, str, float]]:
        """What was enrolled in the last day: enrolment, pinned URL, age in seconds.

        The URL is empty where the agent has left since.
        """
        now_s = self._wall()
        rows = self._connection.execute(
            "SELECT body, url, seen_s FROM enrolment WHERE seen_s > ?", (now_s - KNOWN_FOR_S,)
        )
        found = []
        with closing(rows):
            for body, url, seen_s in rows:
                try:
                    enrolment = read_json(body, Enrolment, "stored enrolment", most_bytes=None)
                except BadRequest:
                    continue  # written by another version: it will enrol again
                found.append((enrolment, url, max(0.0, now_s - seen_s)))
        return found

    async def save(self, enrolment: Enrolment, url: str) -> None:
        """Keep an enrolment, unless the same was written just now; a full disk costs only that."""
        now_s = self._wall()
        lasting = msgspec.structs.replace(enrolment, sequence=0)
        saved = self._saved.get(enrolment.name)
        if saved is not None and saved[0] == lasting and now_s - saved[1] < _REFRESH_S:
            return
        row = (enrolment.name, url, msgspec.json.encode(enrolment), now_s)
        insert = "INSERT OR REPLACE INTO enrolment VALUES (?, ?, ?, ?)"
        if await self._do(self._write, insert, *row):
            self._saved[enrolment.name] = (lasting, now_s)
        if len(self._saved) > _SAVED_MOST:
            self._saved.clear()

    async def forget(self, name: str) -> None:
        """An agent has left in good order: a restart need not ask for it. Its models stay known."""
        self._saved.pop(name, None)
        await self._do(self._write, "UPDATE enrolment SET url = '' WHERE name = ?", name)

    async def keep(self, agent: str, entries: Sequence[Entry]) -> list[Entry]:
        """Keep what an agent has told; returns what it had not told before.

        Raises:
            Unavailable: it cannot be written now; the agent is to tell it again.
        """
        try:
            return await self._do(self._keep, agent, entries)
        except (sqlite3.Error, RuntimeError) as error:  # RuntimeError: it is closed already
            raise Unavailable("this cannot be kept now", retry_after_s=_AGAIN_S) from error

    async def told(self, most: int) -> list[tuple[str, Entry]]:
        """What agents have told, newest first: agent, entry."""
        return await self._do(self._told, most)

    async def _do(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """In the one thread that writes: what a cancelled caller had begun still ends first."""
        return await asyncio.wrap_future(self._thread.submit(work, *args, **named))

    def _told(self, most: int) -> list[tuple[str, Entry]]:
        query = "SELECT agent, body FROM told ORDER BY rowid DESC LIMIT ?"
        rows = self._connection.execute(query, (most,)).fetchall()
        return [(agent, msgspec.json.decode(body, type=Entry)) for agent, body in rows]

    def _keep(self, agent: str, entries: Sequence[Entry]) -> list[Entry]:
        seen_s = self._wall()
        insert = "INSERT OR IGNORE INTO told VALUES (?, ?, ?, ?)"
        with self._connection:
            rows = [(agent, e.id, seen_s, msgspec.json.encode(e)) for e in entries]
            taken = [self._connection.execute(insert, row).rowcount > 0 for row in rows]
            oldest = "SELECT MAX(rowid) - ? FROM told"
            self._connection.execute(f"DELETE FROM told WHERE rowid <= ({oldest})", (_TOLD_MOST,))
        return [entry for entry, new in zip(entries, taken, strict=True) if new]

    def _wall(self) -> float:
        return self._ahead_s + self._clock()

    def close(self) -> None:
        """Close the file, once what was begun is written."""
        self._thread.shutdown(cancel_futures=True)
        self._connection.close()

    def _write(self, statement: str, *values: object) -> bool:
        try:
            with self._connection:
                self._connection.execute(statement, values)
                self._connection.execute(
                    "DELETE FROM enrolment WHERE seen_s < ?", (self._wall() - KNOWN_FOR_S,)
                )
        except sqlite3.Error:  # the next renewal tries again
            return False
        return True
