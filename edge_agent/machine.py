"""What this machine has left: memory, disk, cores, as the kernel tells it."""

import logging
import os
import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

from isochrone.edge_agent.runtime.package.cores import usable_cores
from isochrone.router.process import log
from isochrone.router.process.control_groups import groups, text

_log = logging.getLogger("isochrone.agent")
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
        self._root = root
        self._groups = groups("memory", root)

    def read(self) -> Readings:
        """How things are now.

        Raises:
            OSError, ValueError: a file says something else than is known here.
        """
        limits = (self._whole(), *map(_limit, self._groups))
        return Readings(
            memory=tuple(limit for limit in limits if limit is not None),
            memory_stalled_share=self._stalled_share(),
            disk_free_bytes=_free_bytes(self._folder),
            cores=max(1, ceil(usable_cores(self._root))),
        )

    def memory_limit_bytes(self) -> int:
        """The lowest limit; where the kernel tells it otherwise than is known here, none."""
        try:
            return self.read().memory_limit_bytes
        except (OSError, ValueError) as error:
            why = f"{error}; memory counts as unlimited: say memory.budget_bytes"
            log.event(_log, "machine_unreadable", level=logging.ERROR, error=why)
            return sys.maxsize

    def _whole(self) -> Limit | None:
        """The whole machine's memory."""
        lines = (line.split() for line in text(self._root / "proc" / "meminfo").splitlines())
        found = {words[0]: int(words[1]) << 10 for words in lines if len(words) > 1}
        left, most = found.get("MemAvailable:"), found.get("MemTotal:")
        return Limit(left, most) if left is not None and most else None

    def _stalled_share(self) -> float:
        """Our own group's where the kernel keeps it, else the machine's."""
        own = (group / "memory.pressure" for group in self._groups)
        for path in (*own, self._root / "proc" / "pressure" / "memory"):
            for word in text(path).split():
                if word.startswith("avg10="):
                    return float(word.removeprefix("avg10=")) / 100
        return 0.0


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
    found = dict(line.split(" ", 1) for line in text(group / "memory.stat").splitlines())
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _free_bytes(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _number(path: Path) -> int | None:
    found = text(path)
    return int(found) if found.isdecimal() else None
