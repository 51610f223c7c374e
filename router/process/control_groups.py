"""The control groups that this process is in, of either version, and files of the kernel as text.

Nothing here raises: what is not there, may not be read, or is written otherwise, tells nothing.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path


def groups(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders in which our group is limited by a controller, each with all those around it."""
    return list(_groups(controller, root))


def text(path: Path) -> str:
    """What a file says; nothing where it says none."""
    try:
        return path.read_text(errors="replace").strip()
    except (OSError, ValueError):  # a name may be one that no file can have
        return ""


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """The lowest limit that holds for this process: the machine's memory, or that of a group."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", text(root / "proc" / "meminfo"), re.MULTILINE)
    limits = [int(total[1]) << 10] if total else []
    for group in _groups("memory", root):
        most = text(group / "memory.max") or text(group / "memory.limit_in_bytes")
        limits += [int(most)] if most.isdecimal() else []
    return min(limits, default=sys.maxsize)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    top = root / "sys" / "fs" / "cgroup"
    for line in text(root / "proc" / "self" / "cgroup").splitlines():
        _, _, found = line.partition(":")
        controllers, _, path = found.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mount = top / controller if controllers else top
        own = mount / path.strip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(mount))
