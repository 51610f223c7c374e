"""What memory this process takes, what it may take, and giving back what was freed.

Where the system has no /proc, everything counts as nothing and no limit is known.
"""

import ctypes
import os
import re
from pathlib import Path

from edge_agent.runtime.cgroup import memory_groups

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")
_MEMINFO = Path("/proc/meminfo")
_KIB = 1024
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
_M_ARENA_MAX = -8
"""From glibc's malloc.h."""


def private_bytes() -> int:
    """Resident memory of this process that no file backs: what loading a model adds to."""
    try:
        _, resident, shared, *_ = _STATM.read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES


def process_bytes(pid: int) -> int:
    """Resident memory of another process, what it shares with others counted in part (PSS)."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) * _KIB if found else 0


def use_one_heap() -> None:
    """Have all threads take memory from one heap, of which all that is free can be given back.

    To be called when a process starts, before it has threads.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return freed memory to the system: glibc keeps it, in case it is wanted again."""
    if _trim is not None:
        _trim(0)


def limit_bytes() -> int:
    """What this process may take at most: the machine's memory, or less by a control group."""
    return min([_machine_bytes(), *(group.limit_bytes for group in memory_groups())])


def used_share() -> float:
    """How full the machine's memory is, or a control group's, whichever is fuller: 0 to 1.

    What could be dropped at once, as caches of files, does not count.
    """
    limited = (group for group in memory_groups() if group.limit_bytes < _machine_bytes())
    return max([_machine_share(), *(one.used_bytes / one.limit_bytes for one in limited)])


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES


def _machine_share() -> float:
    try:
        told = _MEMINFO.read_text()
    except OSError:
        return 0.0
    available = re.search(r"^MemAvailable:\s+(\d+) kB", told, re.MULTILINE)
    return 1 - int(available[1]) * _KIB / _machine_bytes() if available else 0.0
