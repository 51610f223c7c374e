"""The control groups that bound this process's memory, of either version: their limits, their use.

Files of the kernel's documentation, admin-guide/cgroup-v1/memory and admin-guide/cgroup-v2.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_TOLD = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Group:
    """A group with a limit: the limit, and what its processes use without caches of files."""

    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class _Files:
    limit: str
    used: str
    cached: str


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def memory_groups(told: Path = _TOLD, root: Path = _ROOT) -> Iterator[Group]:
    """Every limited group above this process: one may be limited by its parents, too."""
    try:
        lines = told.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, group = line.split(":", 2)
        if "memory" in kinds.split(","):
            yield from _groups(root / "memory", group, _V1)
        elif number == "0":
            yield from _groups(root, group, _V2)


def _groups(root: Path, group: str, files: _Files) -> Iterator[Group]:
    for place in (inner := PurePosixPath(group), *inner.parents):
        if ".." in place.parts:  # a group outside what this process can see
            continue
        found = _group(root / place.relative_to("/"), files)
        if found is not None:
            yield found


def _group(folder: Path, files: _Files) -> Group | None:
    try:
        limit = (folder / files.limit).read_text().strip()
        if not limit.isdecimal():
            return None
        used_bytes = int((folder / files.used).read_text())
        cached = re.search(
            rf"^{files.cached} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE
        )
    except (OSError, ValueError):
        return None
    return Group(int(limit), max(0, used_bytes - (int(cached[1]) if cached else 0)))
