"""An ONNX file with the data that its exporter wrote beside it, as one file.

Whatever the file says of its data is held to its own folder: no other folder is read, no link
followed.
"""

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from isochrone.edge_agent.runtime.package.onnx_file import (
    ExternalData,
    has_external_data,
    with_data_inside,
)
from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import ConfigError

MOST_BYTES = (1 << 31) - 1
"""Of one protobuf message, as every reader of ONNX has it."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_POINTER = b"version https://git-lfs.github.com/spec/"
_PULL = "run git lfs pull where it was cloned"
_COPY = "copy the file itself to beside the model (cp -L)"


def read_whole(onnx: Path) -> bytes:
    """The file, the data of all its tensors inside.

    Raises:
        ConfigError: it cannot be read.
        PackageError: it is no ONNX file, or its data are elsewhere or incomplete, or are too many.
    """
    try:
        if onnx.stat().st_size > MOST_BYTES:
            raise _too_large(onnx, onnx.stat().st_size)
        data = onnx.read_bytes()
        if data.startswith(_POINTER):
            raise PackageError(f"{onnx}: is a Git LFS pointer, not the model; {_PULL}")
        if not has_external_data(data):
            return data
        return _Folder(onnx, len(data)).with_data_inside(data)
    except OSError as error:
        raise ConfigError(f"--onnx {onnx}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PackageError(f"{onnx}: is no ONNX file: {error}; export it to ONNX again") from error


class _Folder:
    """What stands beside an ONNX file."""

    def __init__(self, onnx: Path, size_bytes: int) -> None:
        self._onnx = onnx
        self._size_bytes = size_bytes

    def with_data_inside(self, data: bytes) -> bytes:
        """The file, its data inside."""
        return with_data_inside(data, self._read)

    def _read(self, where: ExternalData) -> bytes:
        named = f"{self._onnx}: tensor {where.tensor!r} keeps its data in {where.location!r}"
        try:
            descriptor = self._opened(where.location, named)
        except (OSError, ValueError) as error:
            raise PackageError(f"{named}: {_why(error)}") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(descriptor)  # open() refuses a folder, and leaves it open
            raise PackageError(f"{named}: it is no file of that folder alone; {_COPY}")
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            if file.read(len(_POINTER)) == _POINTER:
                raise PackageError(f"{named}: it is a Git LFS pointer, not the data; {_PULL}")
            length = found.st_size - where.offset if where.length is None else where.length
            if length < 0 or where.offset + length > found.st_size:
                raise PackageError(
                    f"{named}, bytes {where.offset} to {where.offset + length}: it has"
                    f" {found.st_size}; copy all of it, or export the model again"
                )
            self._size_bytes += length
            if self._size_bytes > MOST_BYTES:
                raise _too_large(self._onnx, self._size_bytes)
            file.seek(where.offset)
            return file.read(length)

    def _opened(self, location: str, named: str) -> int:
        """Each step on its own: a link on the way would lead out of the folder."""
        *folders, name = PurePosixPath(location).parts or (location,)
        if location.startswith("/") or ".." in (*folders, name):
            raise PackageError(
                f"{named}: that is outside the model's folder; export it with its data beside it"
            )
        at = os.open(self._onnx.absolute().parent, _FOLDER)
        try:
            for folder in folders:
                at, before = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=at), at
                os.close(before)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=at)
        finally:
            os.close(at)


def _too_large(onnx: Path, size_bytes: int) -> PackageError:
    return PackageError(
        f"{onnx}: takes {size_bytes} bytes with its data or more, and an ONNX file can have"
        f" {MOST_BYTES}; export it in 16 bits, or quantise it"
    )


def _why(error: OSError | ValueError) -> str:
    code = getattr(error, "errno", errno.ENOENT)
    if code in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return f"that is a link, or leads over one; {_COPY}"
    if code == errno.ENOENT:
        return "it is not there; copy it with the model"
    return f"it cannot be read: {os.strerror(code)}"
