"""How many cores this process may use: by its affinity, and by its control group's quota."""

import os
from collections.abc import Iterator
from math import inf
from pathlib import Path

_OWN = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def usable_cores(own: Path = _OWN, root: Path = _ROOT) -> float:
    """Cores, perhaps a part of one; `own` names the process's groups, `root` holds them all."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min([float(affine or 1), *_quotas(own, root)])


def _quotas(own: Path, root: Path) -> Iterator[float]:
    """Those of its group and of every one above it, in either version of control groups."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(root, path):
                yield _cores(*_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "cpu", path):
                quota, period = "cpu.cfs_quota_us", "cpu.cfs_period_us"
                yield _cores(_read(folder / quota).strip(), _read(folder / period).strip())


def _upwards(root: Path, path: str) -> Iterator[Path]:
    folder = root / path.strip("/")
    yield folder
    yield from (above for above in folder.parents if above.is_relative_to(root))


def _cores(quota: str = "", period: str = "") -> float:
    if not quota.isdigit() or not period.isdigit():  # "max", "-1", or nothing at all
        return inf
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
