"""Enrolments of the last day, kept across restarts, so that their models stay known."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from router.errors import BadRequest, ConfigError
from router.fleet.membership import KNOWN_FOR_S
from router.process.clock import Clock
from router.wire.peer_json import read_json
from router.wire.report import Enrolment

_TABLE = """
CREATE TABLE IF NOT EXISTS enrolment (
    name TEXT PRIMARY KEY, url TEXT NOT NULL, body BLOB NOT NULL, seen_s REAL NOT NULL
)
"""
_SAVED_MOST = 100_000
_REFRESH_S = 600.0
"""An enrolment that has not changed is written again only after this time."""


class Store:
    """A SQLite file (WAL); without a path, in memory. Reads and writes leave the event loop.

    `wall` is wall-clock time in seconds since 1970: what is kept must be understood by the next
    process.
    """

    def __init__(self, path: Path | None, wall: Clock) -> None:
        """Open the file, or make it.

        Raises:
            ConfigError: it cannot be opened, or is no store.
        """
        self._wall = wall
        self._saved: dict[str, tuple[Enrolment, float]] = {}
        self._lock = asyncio.Lock()
        try:
            self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(_TABLE)
        except sqlite3.Error as error:
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
        async with self._lock:
            body = msgspec.json.encode(enrolment)
            row = (enrolment.name, url, body, now_s)
            insert = "INSERT OR REPLACE INTO enrolment VALUES (?, ?, ?, ?)"
            if await asyncio.to_thread(self._write, insert, *row):
                self._saved[enrolment.name] = (lasting, now_s)
        if len(self._saved) > _SAVED_MOST:
            self._saved.clear()

    async def forget(self, name: str) -> None:
        """An agent has left in good order: a restart need not ask for it. Its models stay known."""
        self._saved.pop(name, None)
        async with self._lock:
            await asyncio.to_thread(
                self._write, "UPDATE enrolment SET url = '' WHERE name = ?", name
            )

    def close(self) -> None:
        """Close the file."""
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
