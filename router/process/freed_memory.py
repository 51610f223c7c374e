"""Memory that malloc keeps after it was freed, and giving it back to the system.

glibc keeps what was freed below something that is still in use: answers of megabytes that clients
were slow to take leave hundreds of megabytes behind. Where the system has no /proc, everything
counts as nothing; where it is not glibc, nothing is given back.
"""

import asyncio
import ctypes
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")
_LIBRARY = ctypes.CDLL(None)
_trim = getattr(_LIBRARY, "malloc_trim", None)
_mallopt = getattr(_LIBRARY, "mallopt", None)
_mallinfo = getattr(_LIBRARY, "mallinfo2", None)
_M_ARENA_MAX = -8
"""From glibc's malloc.h."""
_EVERY_S = 2.0
_SURPLUS_BYTES = 16 << 20


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )
    hblkhd: int
    """Bytes in use that have a mapping of their own."""
    uordblks: int
    """Bytes in use on the heaps."""


if _mallinfo is not None:
    _mallinfo.restype = _Mallinfo


def private_bytes() -> int:
    """Resident memory of this process that no file backs: what loading a model adds to."""
    try:
        _, resident, shared, *_ = map(int, _STATM.read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _PAGE_BYTES


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


def unaccounted_bytes() -> int:
    """Private memory that malloc does not say is in use: freed, or not taken from malloc."""
    if _mallinfo is None:
        return 0
    told = _mallinfo()
    return private_bytes() - int(told.uordblks) - int(told.hblkhd)


class FreedMemory:
    """Gives back what was freed since the last time, once that is much. Blocking.

    What was never taken from malloc cannot be given back: it is what is left after a trim.
    """

    def __init__(self) -> None:
        self._least_bytes = unaccounted_bytes()

    def tend(self) -> None:
        """Look, and give back where it is worth it."""
        now_bytes = unaccounted_bytes()
        if now_bytes > self._least_bytes + _SURPLUS_BYTES:
            give_back()
            self._least_bytes = unaccounted_bytes()
        else:
            self._least_bytes = min(self._least_bytes, now_bytes)


async def keep_trimmed(every_s: float = _EVERY_S) -> None:
    """Give back what is freed in this process, for as long as this is not cancelled."""
    freed = FreedMemory()
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(freed.tend)
