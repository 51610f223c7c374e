"""The models that one process holds: found by name, loaded once however many ask, unloaded."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from isochrone.edge_agent.runtime.calls.holder import Loan
from isochrone.edge_agent.runtime.calls.lanes import NONE_SHARED, Sharing
from isochrone.edge_agent.runtime.calls.unheard import unheard
from isochrone.edge_agent.runtime.loading.choice import Choices
from isochrone.edge_agent.runtime.loading.load import Tools
from isochrone.edge_agent.runtime.loading.loader import Loader
from isochrone.edge_agent.runtime.loading.loads import Loads
from isochrone.edge_agent.runtime.loading.proven import Proofs
from isochrone.edge_agent.runtime.memory.residency import Residency
from isochrone.edge_agent.runtime.memory.residents import Residents
from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.edge_agent.runtime.residence.held import Held
from isochrone.edge_agent.runtime.residence.lineage import Lineage
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved, Workshop
from isochrone.router.errors import NoSpace, NotFound, Unavailable
from isochrone.router.process.clock import Clock, monotonic
from isochrone.router.wire.message import InferRequest, InferResponse, ModelMetadata
from isochrone.router.wire.report import HeldModel, ModelState

_NONE_ACTIVE: Mapping[str, str] = {}
_ALL_STAY = Upkeep()


class Pool:
    """Packages and their loaded models. Made and used on one event loop.

    Wherever a version may be None, it stands for the active one, or else the highest one, that may
    be loaded; where that one failed when it was last loaded, for a warm one, if there is any.
    """

    def __init__(
        self,
        packages: Iterable[Package],
        *,
        slots: int = 1,
        threads: int = 1,
        clock: Clock = monotonic,
        on_event: Callable[[ModelMoved], None] = unheard,
        on_poison: Callable[[Package], None] = unheard,
        min_load_s: float = 0.0,
        active: Mapping[str, str] = _NONE_ACTIVE,
        upkeep: Upkeep = _ALL_STAY,
        sharing: Sharing = NONE_SHARED,
    ) -> None:
        """`slots` calls run at once, each on `threads` cores; `on_event` hears of every move,
        `on_poison` of every request that is not asked again because it ends its model's process.

        No load takes less than `min_load_s`. `active` names the version of a model that calls
        without a version get; for other models it is the highest. `upkeep` says what stays in
        memory; of it follows what `tend` does. `sharing` says how many rows calls may have in a
        run that they share, where that is proven.

        Raises:
            PackageError: two packages have the same name and version.
        """
        self.runner = ThreadPoolExecutor(slots, thread_name_prefix="infer")
        self._loader = Loader()
        self._on_event = on_event
        self._generation = 0
        self._closed = False
        self._models: dict[str, Lineage] = {}
        self._active = active
        self._upkeep = upkeep
        self.residents = Residents(Residency(upkeep.budget_bytes, overcommit=upkeep.overcommit))
        most_bytes = sys.maxsize if upkeep.overcommit else upkeep.budget_bytes
        choices = Choices(clock, pinned=upkeep.variant_of, most_bytes=most_bytes)
        self._workshop = Workshop(
            self._loader,
            Tools(self.runner, slots, threads, clock, choices, Proofs(clock, sharing), min_load_s),
            self.residents,
            Loads(),
            upkeep,
            self._kept,
            self._moved,
            on_poison,
        )
        for package in packages:
            if self._held_as(package) is not None:
                raise PackageError(
                    f"{package.path}: {package.name} {package.version} is here twice; remove one"
                )
            self._put(package)

    @property
    def models_generation(self) -> int:
        """Grows whenever a model's state changes."""
        return self._generation

    def held(self) -> tuple[HeldModel, ...]:
        """Every model version, its state, and whether it answers the calls that name none."""
        return tuple(
            held.told(active=held is active)
            for lineage in self._models.values()
            for active in (lineage.preferred(),)
            for held in lineage
        )

    def package(self, name: str, version: str | None = None) -> Package:
        """A model's package.

        Raises:
            NotFound: no such model or version is held.
        """
        return self._find(name, version).package

    def labels(self, name: str, version: str | None = None) -> tuple[str, ...]:
        """The classes' names, in order; none where the package has none.

        Raises:
            NotFound: no such model or version is held.
        """
        return self.package(name, version).manifest.labels

    def metadata(self, name: str, version: str | None = None) -> ModelMetadata:
        """What a model takes and gives.

        Raises:
            NotFound: no such model or version is held.
        """
        held = self._find(name, version)
        manifest = held.package.manifest
        versions = (held.package.version,) if version else self._models[name].versions
        return ModelMetadata(name, versions, held.platform, manifest.takes(), manifest.gives())

    def state(self, name: str, version: str | None = None) -> ModelState:
        """Where a model stands.

        Raises:
            NotFound: no such model or version is held.
        """
        return self._find(name, version).state

    def is_healthy(self) -> bool:
        """Every loaded model can still answer."""
        return all(held.is_healthy() for held in self._all())

    def time_to_warm_s(self, name: str, version: str | None = None) -> float:
        """Seconds until a model is warm, were it asked for now: what loads before it included.

        Raises:
            NotFound: no such model or version is held.
        """
        return self._find(name, version).time_to_warm_s()

    def tend(self, *, short: bool = False) -> None:
        """Unload what is idle for too long, load what is due, or kept warm and not there.

        To be called every second or so. Where the machine is `short` of memory, nothing is loaded
        in advance and one idle model leaves.
        """
        if self._closed:
            return
        if short:
            self.residents.shrink()
            return
        for held in self._all():
            held.tend()

    def choose(self, name: str, version: str | None = None) -> HeldModel:
        """The version that is to answer a call, warm or not.

        One that it stands in for is tried again beside it, once its back-off has passed.

        Raises:
            NotFound: no such model or version is held.
            Unavailable: the pool is closed.
        """
        return self._chosen(name, version).told()

    def lend(self, name: str, version: str | None = None) -> Loan | None:
        """The version that `choose` names, in memory until it is given back; None if it is cold.

        Raises:
            NotFound, Unavailable: as `choose`.
        """
        return self._chosen(name, version).lend()

    def wake(self, name: str, version: str | None = None) -> None:
        """Begin to load a model that is cold; nobody waits for it.

        Raises:
            NotFound, Unavailable, NoSpace: as `load`, where that is known at once.
        """
        self._open(name, version).wake()

    async def load(
        self, name: str, version: str | None = None, until_s: float | None = None
    ) -> str:
        """Have a model warm; callers at the same time share one load. Returns which version.

        With `until_s`, an instant, room that is in use is waited for. Where no version was named
        and the one that was loaded fails, another stands in for it.

        Raises:
            NotFound: no such model or version is held.
            Unloadable: its package is broken; the cause is a PackageError that says how.
            Unavailable, NoSpace: it cannot be loaded now.
                It is tried again after `retry_after_s`, no sooner.
        """
        held = self._open(name, version)
        try:
            await held.load(until_s)
        except (Unavailable, NoSpace, NotFound):
            failed, held = held, self._find(name, version)
            if held is failed:
                raise
            await held.load(until_s)
        return held.package.version

    async def unload(self, name: str, version: str | None = None) -> None:
        """Let a model's running calls end, then give its memory back; it stays on disk.

        Every version of it, where none is named.

        Raises:
            NotFound: no such model or version is held.
        """
        for held in await self.dismiss(name, version):
            await held.left()

    async def dismiss(self, name: str, version: str | None = None) -> list[Held]:
        """The same without waiting for running calls; a load is waited for. Returns who leaves.

        Raises:
            NotFound: no such model or version is held.
        """
        one = self._find(name, version)
        leaving = [one] if version else list(self._models[name])
        for held in leaving:
            await held.dismiss()
        return leaving

    def add(self, package: Package) -> None:
        """One more version, cold; who answers calls without a version stays the same.

        The same package again may be a repair: it can be loaded at once, whatever failed before.

        Raises:
            PackageError: that version is here with other content.
        """
        self.check_same(package.manifest)
        known = self._held_as(package)
        if known is not None:
            known.repaired()
            return
        if package.name in self._models:
            self._models[package.name].keep_first()
        self._put(package)
        self._generation += 1

    def check_same(self, manifest: Manifest) -> None:
        """Refuse other content for a version that is here.

        Raises:
            PackageError: it has other content.
        """
        known = self._held_as(manifest)
        if known is not None and known.package.manifest != manifest:
            raise PackageError(
                f"{known.title} is in use with other content; give the new content another"
                " version, or restart the agent"
            )

    async def remove(self, name: str, version: str) -> None:
        """No call finds this version any more; once the running ones have ended, it is gone.

        Raises:
            NotFound: no such model or version is held.
        """
        held = self._find(name, version)
        held.retire()
        self._models[name].remove(version)
        if not self._models[name].versions:
            del self._models[name]
        self._generation += 1
        await held.dismiss()
        await held.left()

    async def activate(self, name: str, version: str) -> str | None:
        """Have a version warm, and let it answer the calls that name none.

        One that was about to leave stays; no call is waited for.

        Returns who did before and is in memory still, to be unloaded; None where this one did.

        Raises:
            NotFound, Unavailable, NoSpace: as `load`; who answered goes on answering.
        """
        held = self._open(name, version)
        held.recall()
        await held.left()
        await held.load()
        self._open(name, version)  # it may have been removed meanwhile
        before = self._models[name].preferred()
        self._models[name].activate(version)
        if before is held:
            return None
        held.outlook.learn(before.outlook)
        self._generation += 1
        return before.package.version

    def active(self, name: str) -> str | None:
        """The version that a call without a version gets; None where the model is not held."""
        lineage = self._models.get(name)
        return None if lineage is None else lineage.preferred().package.version

    async def request(
        self, name: str, version: str | None, request: InferRequest, until_s: float | None = None
    ) -> AsyncIterator[InferResponse]:
        """The answers of a model: one, or several where it streams; a cold one is loaded first.

        Raises:
            NotFound, Unavailable, NoSpace: as `load`.
            BadRequest: the inputs do not fit the model.
        """
        found = await self.load(name, version, until_s)
        parts = self._open(name, found).request(request, until_s)
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()

    async def close(self, grace_s: float | None = None) -> bool:
        """Refuse new calls, let running ones end, unload everything: True.

        Loads that have not begun do not begin. What still runs after `grace_s` is left to its
        threads: False.
        """
        if self._closed:
            return True
        self._closed = True
        for held in self._all():
            held.call_off()
        ended = await self._unloaded(grace_s)
        for threads in (self._loader, self.runner):
            threads.shutdown(wait=False, cancel_futures=True)
        return ended and not self._loader.hangs

    async def _unloaded(self, grace_s: float | None) -> bool:
        try:
            async with asyncio.timeout(grace_s):
                for held in self._all():
                    await held.dismiss()
                for held in self._all():
                    await held.left()
                await asyncio.get_running_loop().run_in_executor(self._loader, _all_done)
        except TimeoutError:
            for held in self._all():
                held.forsake()
            return False
        return True

    def _all(self) -> Iterable[Held]:
        return [held for lineage in self._models.values() for held in lineage]

    def _put(self, package: Package) -> None:
        name = package.name
        lineage = self._models.setdefault(name, Lineage(name, self._active.get(name)))
        lineage.add(Held(package, self._workshop))

    def _held_as(self, one: Package | Manifest) -> Held | None:
        lineage = self._models.get(one.name)
        return None if lineage is None else lineage.get(one.version)

    def _open(self, name: str, version: str | None) -> Held:
        if self._closed:
            raise Unavailable("this endpoint is shutting down", retry_after_s=1.0)
        return self._find(name, version)

    def _chosen(self, name: str, version: str | None) -> Held:
        held = self._open(name, version)
        if version is None:
            self._models[name].retry_for(held)
        return held

    def _find(self, name: str, version: str | None) -> Held:
        lineage = self._models.get(name)
        if lineage is None:
            raise NotFound(f"no model {name!r} is here")
        return lineage.preferred() if version is None else lineage.find(version)

    def _kept(self, package: Package) -> bool:
        """It has to stay in memory: it is kept warm, and answers the calls that name no version."""
        name = package.name
        return name in self._upkeep.keep_warm and self.active(name) == package.version

    def _moved(self, event: ModelMoved) -> None:
        self._generation += 1
        self._on_event(event)


def _all_done() -> None:
    """Runs after whatever its thread was given before: models that were lost are shut down."""
