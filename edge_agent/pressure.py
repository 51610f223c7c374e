"""What an agent gives up, and in which order, when its machine runs short. No I/O.

Logging first: a full disk costs lines and old notes, never an answer. Then comfort: what is idle
and need not be warm is unloaded. Then new work: it is refused at once while what runs is finished.
The health checks, the report and the administration are answered always.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from isochrone.edge_agent.machine import Limit, Readings
from isochrone.router.errors import Overloaded
from isochrone.router.wire.report import Pressure


@dataclass(frozen=True, slots=True)
class Threshold:
    """Memory is short where less than `left_share` of a limit is left, and less than `left_bytes`.

    The second speaks on large machines: what other programs hold there leaves more than enough for
    models, however large its share is. Once short, it is so until clearly more is left.
    """

    left_share: float
    left_bytes: int
    relief_share: float
    relief_bytes: int

    def kept_bytes(self, limit: Limit) -> int:
        """What is to be left of it."""
        return int(min(self.left_share * limit.most_bytes, self.left_bytes))

    def holds(self, limit: Limit, already: bool) -> bool:
        """Is it short; was it so before?"""
        share, floor = self.left_share, self.left_bytes
        if already:
            share, floor = self.relief_share, self.relief_bytes
        return limit.left_bytes <= min(share * limit.most_bytes, floor)


_MIB = 1 << 20
SHRINK = Threshold(0.05, 256 * _MIB, 0.07, 384 * _MIB)
REFUSE = Threshold(0.02, 64 * _MIB, 0.04, 96 * _MIB)
"""The shares are those of hardened proxies."""
_STALLED_SHARE = 0.10
_LOW_DISK_BYTES = 32 << 20
_LOSING_S = 60.0
"""A log that has lost a line within this time is losing lines."""
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Writing:
    """What writing came to: lines lost since the start, and why notes cannot be kept."""

    lost_lines: int = 0
    failing: str | None = None


def room_bytes(limits: Sequence[Limit]) -> int | None:
    """What may be taken before memory is short under one of them; None where none is known."""
    rooms = [limit.left_bytes - SHRINK.kept_bytes(limit) for limit in limits]
    return min(rooms, default=None)


class Pressing:
    """What is short now; `slots` is how many calls should run at once."""

    def __init__(self, slots: int) -> None:
        """`slots` are those of the configuration, for as many cores as are seen first."""
        self.pressure = Pressure()
        self.slots = slots
        self.shrinks = False
        self.refuses = False
        self._configured = slots
        self._cores: int | None = None
        self._lost_lines = 0
        self._losing_until_s = 0.0

    def on(self, readings: Readings, writing: Writing, now_s: float) -> Pressure:
        """Fold in one look at the machine."""
        if self._cores is None:
            self._cores = readings.cores
        if writing.lost_lines > self._lost_lines:
            self._losing_until_s = now_s + _LOSING_S
        self._lost_lines = writing.lost_lines
        self.slots = self._slots_on(readings.cores)
        self._judge_memory(readings)
        self.pressure = Pressure(
            memory_used_share=readings.memory_used_share,
            memory_stalled_share=min(1.0, readings.memory_stalled_share),
            disk_free_bytes=readings.disk_free_bytes,
            cores=readings.cores,
            lost_lines=writing.lost_lines,
            degraded=tuple(self._degraded(readings, writing, now_s)),
        )
        return self.pressure

    def admit(self) -> None:
        """May new work come in?

        Raises:
            Overloaded: the memory is full; what runs is finished first.
        """
        if self.refuses:
            raise Overloaded("this machine's memory is full", retry_after_s=_RETRY_S)

    def _slots_on(self, cores: int) -> int:
        """In proportion to the cores that are left; more than configured never."""
        assert self._cores is not None
        return max(1, min(self._configured, self._configured * cores // self._cores))

    def _judge_memory(self, readings: Readings) -> None:
        stalls = readings.memory_stalled_share >= _STALLED_SHARE
        limits, shrinks, refuses = readings.memory, self.shrinks, self.refuses
        self.shrinks = stalls or any(SHRINK.holds(one, shrinks) for one in limits)
        self.refuses = any(REFUSE.holds(one, refuses) for one in limits)

    def _degraded(self, readings: Readings, writing: Writing, now_s: float) -> list[str]:
        free = readings.disk_free_bytes
        said = {
            "disk: nearly full": free is not None and free < _LOW_DISK_BYTES,
            "disk: lines of the log are lost": now_s < self._losing_until_s,
            "disk: notes wait in memory": writing.failing is not None,
            f"cores: {readings.cores} of {self._cores}, {self.slots} slots": self.slots
            < self._configured,
            "memory: idle models are unloaded": self.shrinks,
            "memory: new calls are refused": self.refuses,
        }
        return [words for words, is_so in said.items() if is_so]
