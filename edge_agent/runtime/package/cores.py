"""How many cores this process may use: by its affinity, and by its control group's quota."""

import os
from math import inf
from pathlib import Path

from isochrone.router.process.control_groups import groups, text


def usable_cores(root: Path = Path("/")) -> float:
    """Cores, perhaps a part of one; the kernel's files are below `root`."""
    quotas = (_cores(group) for group in groups("cpu", root))
    return min([float(_affine()), *quotas])


def _affine() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on this platform, or not allowed
        return os.cpu_count() or 1


def _cores(group: Path) -> float:
    quota, _, period = text(group / "cpu.max").partition(" ")
    if not period:
        quota, period = text(group / "cpu.cfs_quota_us"), text(group / "cpu.cfs_period_us")
    if not quota.isdecimal() or not period.isdecimal() or not int(period):  # "max", "-1", nothing
        return inf
    return int(quota) / int(period)
