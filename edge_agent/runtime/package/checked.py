"""A variant's file copied once into memory that only this process reaches, hashed on the way.

What was checked is what an engine then opens by name: the file on disk may change meanwhile.
"""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package

_CHUNK_BYTES = 1 << 20
"""It stays in a core's cache between being read, hashed and copied."""


@dataclass(frozen=True, slots=True)
class CheckedCopy:
    """The checked bytes: under a name for engines that open files, and to look at."""

    path: str
    content: mmap.mmap


@contextmanager
def checked_copy(package: Package, variant: Variant) -> Iterator[CheckedCopy]:
    """A variant's weights, their digest found right; gone from memory afterwards.

    Raises:
        PackageError: as `Package.read`.
    """
    descriptor = _anonymous()
    try:
        _copy(package, variant, descriptor)
        content = mmap.mmap(descriptor, variant.bytes, prot=mmap.PROT_READ)
        yield CheckedCopy(f"/dev/fd/{descriptor}", content)
    finally:
        os.close(descriptor)


def _copy(package: Package, variant: Variant, descriptor: int) -> None:
    digest = hashlib.sha256()
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    size_bytes = 0
    with package.opened(variant) as file:
        while size_bytes <= variant.bytes and (count := file.readinto(chunk)):
            digest.update(chunk[:count])
            os.write(descriptor, chunk[:count])
            size_bytes += count
    package.check(variant, size_bytes, digest.hexdigest())


def _anonymous() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("weights", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
