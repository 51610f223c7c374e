"""Writing so that a power cut leaves the old or the new, and no half of either."""

import os
from pathlib import Path


def write_through(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file and have its bytes on the disk, not in a cache of it.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another, or where none was.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        write_through(draft, data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Have a directory's entries on the disk: what was made in it, renamed or removed.

    Raises:
        OSError: it cannot be opened or synced.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
