"""A file on its way to the disk: written, counted and digested chunk by chunk, renamed when right.

Blocking; one thread at a time.
"""

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from isochrone.edge_agent.artefacts.source import CHUNK_BYTES, SourceFailed, SourceRefused
from isochrone.edge_agent.runtime.package.durable import sync
from isochrone.edge_agent.runtime.package.manifest import StoredFile
from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import IsochroneError, NoSpace

SUFFIX = ".partial"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Partial:
    """A file of a package in a folder, kept as `FILE.partial` until it is whole and right."""

    def __init__(self, folder: Path, stored: StoredFile) -> None:
        """What an earlier process left there is read again, and goes on being written.

        Raises:
            NoSpace, PackageError: it cannot be written.
        """
        self._stored = stored
        self._done = folder / stored.file
        self._path = folder / f"{stored.file}{SUFFIX}"
        self._digest = hashlib.sha256()
        self.size = 0
        try:
            # Not appended to blindly: writes go where reading ended.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file: BinaryIO = os.fdopen(os.open(self._path, flags, 0o644), "r+b", buffering=0)
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._take_in()
        self.resumed = self.size > 0

    def append(self, chunk: bytes) -> None:
        """Write what comes next.

        Raises:
            SourceRefused: it is more than the manifest promises.
            NoSpace, PackageError: it cannot be written.
        """
        if self.size + len(chunk) > self._stored.bytes:
            self.discard()
            raise SourceRefused(
                f"{self._stored.file}: the source gives more than the {self._stored.bytes} bytes"
                " that the manifest promises"
            )
        try:
            rest = memoryview(chunk)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.discard()
            raise unwritable(self._path, error) from error
        self._digest.update(chunk)
        self.size += len(chunk)

    def restart(self) -> None:
        """Forget what has come."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0
        self.resumed = False

    def finish(self) -> None:
        """Have it on the disk under its own name.

        Raises:
            SourceFailed: something is missing; or it is wrong, but part of it came earlier.
            SourceRefused: it is wrong.
            NoSpace, PackageError: it cannot be written.
        """
        if self.size < self._stored.bytes:
            raise SourceFailed(
                f"{self._stored.file} broke off after {self.size} of {self._stored.bytes} bytes"
            )
        found = self._digest.hexdigest()
        if found != self._stored.sha256:
            self.discard()
            kind = SourceFailed if self.resumed else SourceRefused
            raise kind(f"{self._stored.file}: sha256 is {found}, not {self._stored.sha256}")
        try:
            os.fsync(self._file.fileno())
            self._path.rename(self._done)
            sync(self._done.parent)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def discard(self) -> None:
        """Remove it."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; what has come stays."""
        self._file.close()

    def _take_in(self) -> None:
        while chunk := self._file.read(CHUNK_BYTES):
            self._digest.update(chunk)
            self.size += len(chunk)
            if self.size > self._stored.bytes:
                self.restart()
                return


def unwritable(path: Path, error: OSError) -> IsochroneError:
    """What to say where the disk is full, or does not let us write."""
    if error.errno in _FULL:
        return NoSpace(f"{path}: the disk is full ({error.strerror}); free some of it")
    return PackageError(f"{path}: cannot be written: {error.strerror}; see to the disk")
