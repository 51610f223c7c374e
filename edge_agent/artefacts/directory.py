"""Packages in a directory, perhaps of a mounted disk or a stick."""

import os
import stat
from io import FileIO
from pathlib import Path

from isochrone.edge_agent.artefacts.blocking import BlockingSource
from isochrone.edge_agent.artefacts.settings import FromDirectory
from isochrone.edge_agent.artefacts.source import Source, SourceFailed, SourceRefused


class _Directory:
    def __init__(self, path: Path) -> None:
        self.title = str(path)
        self._path = path

    def open(self, path: str, start: int) -> FileIO:
        # Opened without waiting: a pipe that nobody writes to would hold the thread for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = FileIO(os.open(self._path / path, flags))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise SourceRefused(f"{self.title}: {path} is no plain file")
        file.seek(start)
        return file

    def failed(self, path: str, error: Exception) -> Exception | None:
        if not isinstance(error, OSError):
            return None
        # A disk that is not mounted now may be later: only what is surely not there is final.
        kind = SourceRefused if self._path.is_dir() else SourceFailed
        return kind(f"{self.title}: {path} cannot be read: {error.strerror}")


def make(config: FromDirectory, stall_s: float) -> Source:
    """The source that a configuration names."""
    return BlockingSource(_Directory(config.path), stall_s)
