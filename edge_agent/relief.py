"""Looks at the machine every second, and has models and slots follow what it has left."""

import asyncio
import logging
from collections.abc import Callable, Collection

from isochrone.edge_agent.machine import Machine
from isochrone.edge_agent.notes import Notes
from isochrone.edge_agent.pressure import Pressing, Writing
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.process import log
from isochrone.router.process.clock import Clock

_EVERY_S = 1.0
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
        lost_lines: Callable[[], int],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`changed` is called when routers should hear of it."""
        self._machine = machine
        self._pressing = pressing
        self._pool = pool
        self._gate = gate
        self._notes = notes
        self._lost_lines = lost_lines
        self._changed = changed
        self._clock = clock

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
            self._pool.tend(short=self._pressing.shrinks)
            return
        writing = Writing(self._lost_lines() + self._notes.lost, self._notes.failing)
        before = self._pressing.pressure.degraded
        after = self._pressing.on(readings, writing, self._clock()).degraded
        if self._gate.slots != self._pressing.slots:
            self._gate.resize(self._pressing.slots)
        if after != before:
            self._tell(set(before), after)
        self._pool.tend(short=self._pressing.shrinks)

    def _tell(self, before: Collection[str], after: Collection[str]) -> None:
        level = logging.WARNING if after else logging.INFO
        log.event(_log, "degraded", level=level, now="; ".join(after) or "nothing")
        for words in after:
            if words not in before:
                self._notes.note("degraded", detail=words)
        self._changed()
