"""One JSON line for every request that was served, written in batches.

A line costs half a microsecond; a full disk costs lines, which are counted, and never an answer.
Where its size is bounded, a file that has reached it becomes `NAME.1` and a new one is begun.
"""

import math
import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from isochrone.router.errors import ConfigError

BUFFER_BYTES = 64 << 10
"""From here on lines are written without waiting for a flush."""
DEFAULT_LOG_BYTES = 64 << 20
LogBytes = Annotated[int, msgspec.Meta(ge=4096, le=1 << 40)]
"""How large a file of lines may become, as it stands in configuration files."""
HELD_BYTES = 1 << 20
"""What a slow or full destination may leave waiting; more is dropped."""


class AccessLog:
    """Lines of one destination: a file that is appended to, or standard error (`path` None).

    The owner calls `flush` at least every 100 ms. `dropped` counts lines that were lost.
    """

    def __init__(self, path: Path | None, most_bytes: float = math.inf) -> None:
        """Open the destination; a file is kept below about `most_bytes`, and so is the one before.

        Raises:
            ConfigError: the file cannot be opened for appending.
        """
        self.dropped = 0
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._bytes = 0
        self._torn = False
        self._owned = path is not None
        self._path = path
        self._file = sys.stderr.fileno() if path is None else _appending(path)
        found = os.fstat(self._file)
        self._file_bytes = found.st_size
        self._most_bytes = most_bytes if stat.S_ISREG(found.st_mode) else math.inf

    def write(self, **fields: object) -> None:
        """Take one line; the fields' values are what msgspec can write as JSON."""
        line = self._encode(fields) + b"\n"
        if self._bytes + len(line) > HELD_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits; what the destination does not take is dropped and counted."""
        if not self._lines:
            return
        lines, self._lines, self._bytes = self._lines, [], 0
        written = self._written(b"".join(lines))
        for line in lines:
            written -= len(line)
            if written < 0:
                self.dropped += 1

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._owned:
            os.close(self._file)
            self._owned = False

    def _written(self, data: bytes) -> int:
        """How many bytes the destination took; after a part of a line the next begins anew."""
        gap = b"\n" if self._torn else b""
        try:
            taken = os.write(self._file, gap + data) - len(gap)
        except OSError:  # full, closed or gone
            return 0
        self._torn = not data.endswith(b"\n", 0, taken) if taken > 0 else self._torn
        self._file_bytes += taken
        if self._path is not None and self._file_bytes >= self._most_bytes and not self._torn:
            self._begin_anew(self._path)
        return taken

    def _begin_anew(self, path: Path) -> None:
        """Where that cannot be done, the same file goes on and it is tried again."""
        try:
            path.replace(path.with_name(f"{path.name}.1"))
            file = _appending(path)
        except (OSError, ConfigError):
            return
        os.close(self._file)
        self._file, self._file_bytes = file, 0


def _appending(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; name another file for the access log"
        ) from error
