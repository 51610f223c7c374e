"""A small SQLite file that outlives its process, and a power cut at any moment.

It keeps a write-ahead log, and a commit is on the disk when it returns (`synchronous=FULL`): what
is kept here is little, and NORMAL could lose the last commits with the power. A file that is torn
is set aside under another name and a new one begun: whoever runs unattended must start.
"""

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

from isochrone.router.process import log

_SIDECARS = ("", "-wal", "-shm")
_LOG_BYTES = 1 << 20
_log = logging.getLogger("isochrone.database")


def open_database(path: Path | None, schema: str) -> sqlite3.Connection:
    """A connection that any one thread at a time may use; without a path, in memory.

    `schema` is run each time and makes what is not there yet. What was set aside last time is
    overwritten by what is set aside now.

    Raises:
        sqlite3.OperationalError: the file cannot be opened or written: no right, no room.
    """
    try:
        return _opened(path, schema)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        assert path is not None  # what is in memory is never torn
        set_aside(path, error)
    return _opened(path, schema)


def set_aside(path: Path, error: Exception) -> None:
    """Rename a broken file and what SQLite keeps beside it, and say so."""
    kept = path.with_name(f"{path.name}.broken")
    for sidecar in _SIDECARS:
        with suppress(FileNotFoundError):
            Path(f"{path}{sidecar}").replace(f"{kept}{sidecar}")
    log.event(
        _log,
        "database_broken",
        level=logging.ERROR,
        file=path,
        error=error,
        kept_as=kept,
        now="a new one is begun",
    )


def _opened(path: Path | None, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path or ":memory:", check_same_thread=False)
    connection.text_factory = _text
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        connection.executescript(schema)
    except BaseException:  # whatever it was, the file must not stay open
        connection.close()
        raise
    return connection


def _text(data: bytes) -> str:
    """A text that was spoiled is read, too: an exception would look like a full disk."""
    return data.decode("utf-8", "replace")
