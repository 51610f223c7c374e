"""What this machine has left: memory, disk, cores, as the kernel tells it."""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_CONTROLLERS = ("memory", "cpu")
_NO_LIMIT_BYTES = 1 << 60
"""Version 1 of control groups writes a number of this size where there is no limit."""


class Limit(NamedTuple):
    """How much memory the machine or a control group has, and how much of it is left."""

    left_bytes: int
    most_bytes: int

    @property
    def used_share(self) -> float:
        """What is not left."""
        return 1 - self.left_bytes / self.most_bytes


@dataclass(frozen=True, slots=True)
class Readings:
    """One look at the machine; what it does not tell is 0, or None.

    `memory` are all limits that hold for this process. Others may share each, so that what is left
    of it may have been taken by them.
    """

    memory: tuple[Limit, ...] = ()
    memory_stalled_share: float = 0.0
    disk_free_bytes: int | None = None
    cores: int = 1

    @property
    def memory_used_share(self) -> float:
        """Of the limit that is nearest to its end."""
        return max((limit.used_share for limit in self.memory), default=0.0)

    @property
    def memory_left_bytes(self) -> int | None:
        """Under every limit."""
        return min((limit.left_bytes for limit in self.memory), default=None)

    @property
    def memory_limit_bytes(self) -> int:
        """The lowest limit."""
        return min((limit.most_bytes for limit in self.memory), default=sys.maxsize)


class Machine:
    """Reads files of the kernel, below `root`; `folder` is on the disk that is looked at."""

    def __init__(self, folder: Path, root: Path = Path("/")) -> None:
        self._folder = folder
        self._proc = root / "proc"
        self._groups = list(_groups(root, self._proc))

    def read(self) -> Readings:
        """How things are now."""
        limits = (self._whole(), *map(_limit, self._groups))
        return Readings(
            memory=tuple(limit for limit in limits if limit is not None),
            memory_stalled_share=self._stalled_share(),
            disk_free_bytes=_free_bytes(self._folder),
            cores=self._cores(),
        )

    def _whole(self) -> Limit | None:
        """The whole machine's memory."""
        lines = (line.split() for line in _text(self._proc / "meminfo").splitlines())
        found = {words[0]: int(words[1]) << 10 for words in lines if len(words) > 1}
        left, most = found.get("MemAvailable:"), found.get("MemTotal:")
        return Limit(left, most) if left is not None and most else None

    def _stalled_share(self) -> float:
        """Our own group's where the kernel keeps it, else the machine's."""
        own = (group / "memory.pressure" for group in self._groups)
        for path in (*own, self._proc / "pressure" / "memory"):
            for word in _text(path).split():
                if word.startswith("avg10="):
                    return float(word.removeprefix("avg10=")) / 100
        return 0.0

    def _cores(self) -> int:
        affinity = getattr(os, "sched_getaffinity", None)
        count = len(affinity(os.getpid())) if affinity else os.cpu_count() or 1
        return max(1, int(min([count, *map(_quota_cores, self._groups)])))


def _groups(root: Path, proc: Path) -> Iterator[Path]:
    """The folders of our control groups, of either version, each with all those around it."""
    top = root / "sys" / "fs" / "cgroup"
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [top / name for name in controllers.split(",") if name in _CONTROLLERS]
        for mount in mounts if controllers else [top]:
            own = mount / path.lstrip("/")
            yield from (group for group in (own, *own.parents) if group.is_relative_to(mount))


def _limit(group: Path) -> Limit | None:
    """A group's; files that the kernel may drop count as left."""
    most, used = _number(group / "memory.max"), _number(group / "memory.current")
    if most is None or used is None:
        most = _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.usage_in_bytes")
    if not most or used is None or most >= _NO_LIMIT_BYTES:
        return None
    return Limit(max(0, min(most, most - used + _droppable_bytes(group))), most)


def _droppable_bytes(group: Path) -> int:
    found = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines())
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _quota_cores(group: Path) -> float:
    quota, _, period = _text(group / "cpu.max").partition(" ")
    if not period:
        quota = _text(group / "cpu.cfs_quota_us")
        period = _text(group / "cpu.cfs_period_us")
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or nothing there
        return math.inf
    return math.ceil(share) if share > 0 else math.inf


def _free_bytes(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
