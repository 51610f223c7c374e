"""What memory processes take.

Where the system has no /proc, everything counts as nothing and no limit is known.
"""

import mmap
import re
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS, _PEAK = Path("/proc/self/clear_refs"), "5"
"""From the kernel's proc(5)."""
_KIB = 1024


def process_bytes(pid: int) -> int:
    """Resident memory of another process, what it shares with others counted in part (PSS)."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (OSError, ValueError):
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) * _KIB if found else 0


def can_take(size_bytes: int) -> bool:
    """Could this process get so much memory more? Nothing is taken.

    Control groups are not asked: in them memory ends when it is touched.
    """
    try:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, OverflowError):
        return False
    return True


def forget_peak() -> int | None:
    """What this process has in memory; `peak_bytes` counts from here. None where it cannot."""
    try:
        _CLEAR_REFS.write_text(_PEAK)
        return _status_bytes("VmRSS")
    except (OSError, ValueError):
        return None


def peak_bytes() -> int:
    """The most that this process had in memory since `forget_peak`."""
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(name)
    return int(found[1]) * _KIB
