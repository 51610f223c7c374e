"""Whether a package fits: the budget of its directory, the free space of the disk, what may go."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from isochrone.edge_agent.artefacts.disk import Disk
from isochrone.edge_agent.artefacts.store import Staging, Store
from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.errors import NoSpace
from isochrone.router.process import log

_log = logging.getLogger("isochrone.agent.pull")


class Keeper(Protocol):
    """Who uses the packages of the store."""

    async def expect(self, manifest: Manifest) -> None:
        """A package is about to come.

        Raises:
            PackageError: that version is in use with other content.
            NoSpace: the disk is full.
        """
        ...

    async def spare(self) -> Sequence[Package]:
        """Packages that nobody needs, the least wanted first."""
        ...

    async def let_go(self, package: Package) -> bool:
        """Use it no more, it is about to be removed; False where it must stay after all."""
        ...


@dataclass(frozen=True, slots=True)
class Need:
    """What a package still needs, and what a directory and its disk have; all in bytes."""

    needed: int
    used: int
    budget: int
    free: int
    reserve: int

    @property
    def short(self) -> int:
        """How much must go first; 0 or less where it fits."""
        return max(self.used + self.needed - self.budget, self.needed + self.reserve - self.free)

    def refusal(self, title: str) -> NoSpace:
        """Says the numbers, and what to do."""
        return NoSpace(
            f"{title} needs {self.needed} bytes more: the packages hold {self.used} of"
            f" {self.budget} (artefacts.disk_budget_bytes), the disk has {self.free} free and keeps"
            f" {self.reserve} (artefacts.disk_reserve_bytes); raise the budget or remove packages"
        )


class Room:
    """Makes it, within `budget` bytes for the directory and `reserve` bytes left on the disk."""

    def __init__(self, store: Store, disk: Disk, keeper: Keeper, budget: int, reserve: int) -> None:
        self._store = store
        self._disk = disk
        self._keeper = keeper
        self._budget = budget
        self._reserve = reserve
        self._making = asyncio.Lock()
        self._coming: dict[Path, Staging] = {}
        """What has its room and is not all here yet."""

    @asynccontextmanager
    async def made(self, staging: Staging) -> AsyncIterator[None]:
        """Announce a package, and remove what nobody needs, where that makes it fit.

        Its room is its own while the block runs, whatever else comes.

        Raises:
            PackageError: that version is in use with other content.
            NoSpace: it does not; nothing but what other pulls left behind was removed.
        """
        async with self._making:
            await self._make(staging)
            self._coming[staging.path] = staging
        try:
            yield
        finally:
            self._coming.pop(staging.path, None)

    async def _make(self, staging: Staging) -> None:
        await self._keeper.expect(staging.manifest)
        if (await self._disk.do(self._need, staging)).short <= 0:
            return
        await self._disk.do(self._store.remove_abandoned, staging)
        short = (await self._disk.do(self._need, staging)).short
        spare = await self._keeper.spare()
        sizes = await self._disk.do(lambda: [self._store.own_bytes(package) for package in spare])
        for package in enough_of(list(zip(spare, sizes, strict=True)), short):
            if await self._keeper.let_go(package):
                log.event(_log, "removed_for_room", model=package.name, version=package.version)
                await self._disk.do(self._store.remove, package)
        need = await self._disk.do(self._need, staging)
        if need.short > 0:
            raise need.refusal(f"{staging.manifest.name} {staging.manifest.version}")

    def _need(self, staging: Staging) -> Need:
        used, free = self._store.used_bytes(), self._store.free_bytes()
        others = [one for path, one in self._coming.items() if path != staging.path]
        coming = sum(one.missing_bytes() for one in others)
        used, free = used + coming, free - coming
        return Need(staging.missing_bytes(), used, self._budget, free, self._reserve)


def enough_of(spare: Sequence[tuple[Package, int]], short: int) -> list[Package]:
    """The first of `spare`, each with its bytes, that take so many; none where all take less."""
    total = 0
    taken = []
    for package, size_bytes in spare:
        if total >= short:
            break
        taken.append(package)
        total += size_bytes
    return taken if total >= short else []
