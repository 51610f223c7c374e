"""Looks at the machine every second, and does what it has become too short for."""

import asyncio
import logging
from collections.abc import Callable, Collection

from edge_agent.machine import Machine
from edge_agent.notes import Notes
from edge_agent.pressure import Disk, Pressing
from edge_agent.runtime.pool import Pool
from edge_agent.slots import SlotGate
from router.errors import IsochroneError
from router.process import log
from router.process.clock import Clock
from router.wire.report import HeldModel, ModelState

_EVERY_S = 1.0
_IDLE_S = 10.0
"""What has answered within this time is in use."""
_log = logging.getLogger("isochrone.agent.relief")


class Relief:
    """Keeps `pressing` up to date, and acts on it."""

    def __init__(
        self,
        machine: Machine,
        pressing: Pressing,
        pool: Pool,
        gate: SlotGate,
        notes: Notes,
        *,
        keep_warm: Collection[str],
        lost_lines: Callable[[], int],
        changed: Callable[[], None],
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """`changed` is called when routers should hear of it; unloading runs in `tasks`."""
        self._machine = machine
        self._pressing = pressing
        self._pool = pool
        self._gate = gate
        self._notes = notes
        self._keep_warm = frozenset(keep_warm)
        self._lost_lines = lost_lines
        self._changed = changed
        self._clock = clock
        self._tasks = tasks
        self._unloading: asyncio.Task[None] | None = None
        self._used_s: dict[str, float] = {}

    def served(self, model: str) -> None:
        """A model has answered."""
        self._used_s[model] = self._clock()

    async def keep(self, every_s: float = _EVERY_S) -> None:
        """Look, for as long as this is not cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Look once."""
        try:
            readings = await asyncio.to_thread(self._machine.read)
        except (OSError, ValueError):  # a kernel that tells it otherwise: what was known holds
            return
        disk = Disk(self._lost_lines() + self._notes.lost, self._notes.failing)
        before = self._pressing.pressure.degraded
        after = self._pressing.on(readings, disk, self._clock()).degraded
        if self._gate.slots != self._pressing.slots:
            self._gate.resize(self._pressing.slots)
        if after != before:
            self._tell(set(before), after)
        if self._pressing.shrinks and (self._unloading is None or self._unloading.done()):
            self._shrink()

    def _tell(self, before: Collection[str], after: Collection[str]) -> None:
        level = logging.WARNING if after else logging.INFO
        log.event(_log, "degraded", level=level, now="; ".join(after) or "nothing")
        for words in after:
            if words not in before:
                self._notes.note("degraded", detail=words)
        self._changed()

    def _shrink(self) -> None:
        """Unload what was used longest ago, of what is idle and need not be warm: one at a time."""
        idle = [held for held in self._pool.held() if self._is_idle(held)]
        if idle:
            least = min(idle, key=lambda held: self._used_s.get(held.name, 0.0))
            self._unloading = self._tasks.create_task(self._unload(least))

    async def _unload(self, least: HeldModel) -> None:
        try:
            await self._pool.unload(least.name, least.version)
        except IsochroneError:  # somebody else has changed it meanwhile
            return
        log.event(_log, "unloaded_for_memory", model=least.name, version=least.version)

    def _is_idle(self, held: HeldModel) -> bool:
        warm = held.state is ModelState.WARM and held.name not in self._keep_warm
        return warm and self._clock() - self._used_s.get(held.name, -_IDLE_S) >= _IDLE_S
