"""One JSON line for each request that was served, written in batches.

A destination that is full or gone costs lines, which are counted, and never an answer. A file that
has reached its bound is renamed to `NAME.1` and a new one is begun.
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
"""So many bytes are written at once, without a flush."""
DEFAULT_LOG_BYTES = 64 << 20
LogBytes = Annotated[int, msgspec.Meta(ge=4096, le=1 << 40)]
"""The bound of a file's size, as configuration files state it."""
LINE_BYTES = 1 << 20
"""A longer line is dropped."""


class AccessLog:
    """Lines of one destination: a file that is appended to, or standard error (`path` None).

    The owner calls `flush` at least every 100 ms. `dropped` counts lost lines.
    """

    def __init__(self, path: Path | None, most_bytes: float = math.inf) -> None:
        """Open the destination; a file and the one before it stay below about `most_bytes` each.

        Raises:
            ConfigError: the file cannot be opened for appending.
        """
        self.dropped = 0
        self._encode = msgspec.json.Encoder().encode
        self._lines = bytearray()
        self._torn = False
        self._owned = path is not None
        self._path = path
        self._file = sys.stderr.fileno() if path is None else _appending(path)
        found = os.fstat(self._file)
        self._file_bytes = found.st_size
        self._most_bytes = most_bytes if stat.S_ISREG(found.st_mode) else math.inf

    def write(self, line: object) -> None:
        """Add what msgspec encodes as one JSON object."""
        encoded = self._encode(line)
        if len(encoded) >= LINE_BYTES:
            self.dropped += 1
            return
        self._lines += encoded
        self._lines += b"\n"
        if len(self._lines) >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the lines so far; what the destination does not take is dropped and counted."""
        if not self._lines:
            return
        lines, self._lines = self._lines, bytearray()
        gap = b"\n" if self._torn else b""  # ends the line that was written in part
        try:
            taken = os.write(self._file, gap + lines) - len(gap)
        except OSError:  # full, closed or gone
            taken = 0
        self.dropped += lines.count(b"\n", max(taken, 0))
        if taken <= 0:
            return
        self._torn = not lines.endswith(b"\n", 0, taken)
        self._file_bytes += taken
        if self._path is not None and self._file_bytes >= self._most_bytes and not self._torn:
            self._begin_anew(self._path)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._owned:
            os.close(self._file)
            self._owned = False

    def _begin_anew(self, path: Path) -> None:
        """Rename the file and begin a new one; where that fails, go on with the same."""
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
