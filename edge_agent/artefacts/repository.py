"""What administrators ask of the models here: list, pull, load, unload, another version, back.

Which version serves is changed in one order: the change is drafted on disk, the new version is
warmed, the change counts, the old one drains. A failure on the way leaves the old one serving.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from isochrone.edge_agent.artefacts.activation import Activation, Activations
from isochrone.edge_agent.artefacts.disk import Disk
from isochrone.edge_agent.artefacts.pull import Progress, Wish
from isochrone.edge_agent.artefacts.pulls import Pull, Pulls
from isochrone.edge_agent.artefacts.store import Store
from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.edge_agent.runtime.package.package import Check, Package
from isochrone.edge_agent.runtime.residence.held import Held
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.errors import BadRequest, IsochroneError, NotFound, Unavailable
from isochrone.router.process import log
from isochrone.router.wire.report import HeldModel, ModelState, version_order

T = TypeVar("T")
LEAVE_S = 5.0
"""So long who asks for it waits for a model to be out of memory; it leaves in any case."""
_log = logging.getLogger("isochrone.agent.models")


class Change(StrEnum):
    """What happens to the packages of an agent while it runs."""

    ARRIVED = "arrived"
    REMOVED = "removed"
    UPDATED = "updated"
    """Another version was made active."""
    ROLLED_BACK = "rolled_back"
    """The one before was."""


Heard = Callable[[Change, str, str], None]
"""Is told of a change, of which model, and of which version of it."""


class ModelTold(msgspec.Struct, frozen=True):
    """A model version as administrators see it."""

    name: str
    version: str
    state: ModelState
    active: bool
    """Calls that name no version get it."""
    previous: bool
    """Rolling back makes it active."""
    pulled: bool
    """It came from the source, and may be removed to make room."""
    bytes: int
    """Of every file."""
    load_s: float | None
    digest: str


class PullTold(msgspec.Struct, frozen=True):
    """A pull as administrators see it."""

    name: str
    version: str
    done: bool
    bytes_done: int
    bytes_total: int
    interrupted: str
    """Why it waits before it goes on; nothing while it does."""


class Repository:
    """The models of one agent."""

    def __init__(
        self,
        pool: Pool,
        store: Store,
        disk: Disk,
        activations: Activations,
        heard: Heard,
        check: Check | None = None,
    ) -> None:
        """Pulls nothing and changes no version before `keep` runs.

        `check` refuses packages that lie in the store and are not to be used.
        """
        self._check = check
        self._heard = heard
        self._pool = pool
        self._store = store
        self._disk = disk
        self._activations = activations
        self._tasks: asyncio.TaskGroup | None = None
        self._changing = asyncio.Lock()
        self._pulls: Pulls | None = None

    def pull_with(self, pulls: Pulls) -> None:
        """From now on packages can be pulled."""
        self._pulls = pulls

    async def models(self) -> list[ModelTold]:
        """Every version that is here."""
        held = self._pool.held()
        packages = [self._pool.package(one.name, one.version) for one in held]
        pulled = await asyncio.to_thread(lambda: [self._store.pulled(one) for one in packages])
        return [self._told(*one) for one in zip(held, packages, pulled, strict=True)]

    def pulling(self) -> list[PullTold]:
        """Every pull that runs."""
        running = () if self._pulls is None else self._pulls.running()
        return [_told(progress, done=False) for progress in running]

    async def pull(self, wish: Wish, wait_s: float) -> PullTold:
        """Have a package come, or join the pull that brings it; how far it is in `wait_s` at most.

        Raises:
            IsochroneError: it failed, and why.
        """
        pull = self._begun(wish)
        try:
            async with asyncio.timeout(wait_s):
                await pull.ended.wait()
        except TimeoutError:
            return _told(pull.progress, done=False)
        if pull.error is not None:
            raise pull.error
        return _told(pull.progress, done=True)

    async def load(self, name: str, version: str | None = None) -> str:
        """Have a version warm and active; without one, the chosen version, or else the highest.

        What is not known yet is looked for on disk.

        Raises:
            NotFound, Unavailable, NoSpace, PackageError: it cannot be; who served goes on.
        """
        await self._look_for(name, version)
        if version is not None:
            return await self._change(name, version, Change.UPDATED)
        versions, choice = self._pool.metadata(name).versions, self._activations.get(name)
        chosen = choice is not None and choice.active in versions
        return await self._pool.load(name, choice.active if choice and chosen else versions[0])

    async def _look_for(self, name: str, version: str | None) -> None:
        """Take up packages that came into the store's folder by other ways than a pull."""
        with suppress(NotFound):
            self._pool.package(name, version)
            return
        packages = await self._disk.do(self._store.lying, name, version, self._check)
        for package in packages:
            self.arrived(package)
        if not packages:
            title = f"model {name}" if version is None else f"version {version} of model {name}"
            raise NotFound(
                f"no {title} is in the agent's folder of packages: build it there"
                " (isochrone package build --output), or pull it (isochrone models pull)"
            )

    async def unload(self, name: str, version: str | None = None, wait_s: float = LEAVE_S) -> bool:
        """Let a version's running calls end and give its memory back; without one, every version.

        It begins when no version is being changed. False where that goes on after `wait_s`.

        Raises:
            NotFound: it is not here.
            Unavailable: the agent is starting or leaving.
        """
        self._pool.package(name, version)
        dismissing = self.spawn(self._dismissed(name, version))
        return await _within(wait_s, _left_after(dismissing))

    async def _dismissed(self, name: str, version: str | None) -> list[Held]:
        async with self._changing:
            with suppress(NotFound):  # removed meanwhile
                return await self._pool.dismiss(name, version)
        return []

    async def rollback(self, name: str) -> str:
        """Have the version active that was so before; the one that was is kept as the previous.

        Raises:
            BadRequest: none was.
            NotFound, Unavailable, NoSpace, PackageError: it cannot be; who served goes on.
        """
        self._pool.package(name)
        choice = self._activations.get(name)
        if choice is None or choice.previous is None:
            raise BadRequest(f"{name}: no other version has been active; load one by its number")
        return await self._change(name, choice.previous, Change.ROLLED_BACK)

    async def keep(self, now_s: float) -> None:
        """Go on with pulls that were cut, then do what is asked for until this is cancelled.

        What is begun runs to its end, whoever stops waiting for it. `now_s` is wall-clock time:
        what crashed pulls left behind is removed once it is a week old.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    await self._resume(now_s)
                    await asyncio.Event().wait()
                finally:
                    self._tasks = None
        finally:
            self._disk.close()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something until its end, or the agent's.

        Raises:
            Unavailable: the agent is starting or leaving.
        """
        if self._tasks is None:
            work.close()
            raise Unavailable("this agent is starting or leaving", retry_after_s=1.0)
        return self._tasks.create_task(work)

    async def expect(self, manifest: Manifest) -> None:
        """Whoever serves now goes on doing so, also after a restart, when this package is there.

        Raises:
            PackageError: that version is in use with other content.
            NoSpace: the disk is full.
        """
        name, active = manifest.name, self._pool.active(manifest.name)
        if active is None:
            return
        self._pool.check_same(manifest)
        async with self._changing:
            if self._activations.get(name) is None:
                commit = await self._disk.do(self._activations.draft, name, Activation(active))
                await self._disk.do(commit)

    def arrived(self, package: Package) -> None:
        """A package has come."""
        self._pool.add(package)
        self._heard(Change.ARRIVED, package.name, package.version)

    async def spare(self) -> Sequence[Package]:
        """Pulled, cold, not the active version nor the one to go back to; the lowest first."""
        held = sorted(self._pool.held(), key=lambda one: version_order(one.version))
        cold = filter(_is_cold, held)
        packages = [self._pool.package(one.name, one.version) for one in cold]
        unneeded = [one for one in packages if not self._needed(one)]
        return await asyncio.to_thread(lambda: [p for p in unneeded if self._store.pulled(p)])

    async def let_go(self, package: Package) -> bool:
        """Use it no more; False where it was wanted meanwhile, or has gone already."""
        async with self._changing:
            cold = [(one.name, one.version) for one in self._pool.held() if _is_cold(one)]
            if (package.name, package.version) not in cold or self._needed(package):
                return False
            await self._pool.remove(package.name, package.version)
        self._heard(Change.REMOVED, package.name, package.version)
        return True

    async def _activate(self, name: str, version: str, change: Change) -> None:
        async with self._changing:
            before = await self._chosen(name, version)
            leaving = [] if before is None else await self._pool.dismiss(name, before)
        if before is not None:
            self._heard(change, name, version)
            # long calls may keep it for minutes; other changes do not wait
            await _within(LEAVE_S, _left(leaving))

    async def _chosen(self, name: str, version: str) -> str | None:
        """Have a version active, on disk too; which one answered before and may leave."""
        self._pool.package(name, version)
        choice = self._activations.get(name)
        if choice is not None and choice.active == version:
            return await self._pool.activate(name, version)
        active = choice.active if choice else self._pool.active(name)
        chosen = Activation(version, active if active != version else None)
        commit = await self._disk.do(self._activations.draft, name, chosen)
        before = await self._pool.activate(name, version)
        try:
            await self._disk.do(commit)
        except IsochroneError:
            if before is not None:
                await self._pool.activate(name, before)
            raise
        return before

    def _begun(self, wish: Wish) -> Pull:
        if self._pulls is None:
            raise BadRequest("nothing can be pulled: agent.yaml names no artefacts.source")
        return self._pulls.begin(wish)

    def _needed(self, package: Package) -> bool:
        choice = self._activations.get(package.name)
        active = self._pool.active(package.name)
        kept = (active,) if choice is None else (active, choice.active, choice.previous)
        pulled = [] if self._pulls is None else [one.wish for one in self._pulls.running()]
        is_pulled = any((w.model, w.version) == (package.name, package.version) for w in pulled)
        return package.version in kept or is_pulled

    def _told(self, held: HeldModel, package: Package, pulled: bool) -> ModelTold:
        choice = self._activations.get(held.name)
        return ModelTold(
            name=held.name,
            version=held.version,
            state=held.state,
            active=self._pool.active(held.name) == held.version,
            previous=choice is not None and choice.previous == held.version,
            pulled=pulled,
            bytes=sum(stored.bytes for stored in package.manifest.files()),
            load_s=held.load_s,
            digest=package.digest,
        )

    async def _resume(self, now_s: float) -> None:
        try:
            cut = await self._disk.do(self._store.sweep, now_s)
        except OSError as error:  # a disk that is not well must not keep the agent from serving
            log.event(_log, "not_swept", level=logging.ERROR, error=str(error))
            return
        for manifest, digest in cut if self._pulls is not None else ():
            wish = Wish(manifest.name, manifest.version, digest)
            try:
                self._begun(wish)
            except IsochroneError as error:  # what two pulls of one version left behind
                log.event(
                    _log, "not_resumed", level=logging.ERROR, model=wish.title, error=error.message
                )

    async def _change(self, name: str, version: str, change: Change) -> str:
        outcome = await asyncio.shield(self.spawn(self._outcome(name, version, change)))
        if isinstance(outcome, Exception):
            raise outcome
        return version

    async def _outcome(self, name: str, version: str, change: Change) -> Exception | None:
        """An error belongs to who asked; raised in a task, it would end the agent."""
        try:
            await self._activate(name, version, change)
        except Exception as error:  # whoever asked hears of it, whatever it is
            return error
        return None


async def _left_after(dismissing: asyncio.Task[list[Held]]) -> None:
    """Whoever stops waiting does not keep it from being done."""
    await _left(await asyncio.shield(dismissing))


async def _left(leaving: Iterable[Held]) -> None:
    for held in leaving:
        await held.left()


async def _within(most_s: float, work: Coroutine[Any, Any, object]) -> bool:
    """Did it end in time?"""
    try:
        async with asyncio.timeout(most_s):
            await work
    except TimeoutError:
        return False
    return True


def _is_cold(held: HeldModel) -> bool:
    return held.state is ModelState.COLD


def _told(pull: Progress, *, done: bool) -> PullTold:
    wish = pull.wish
    here, total = pull.bytes_done, pull.bytes_total
    return PullTold(wish.model, wish.version, done, here, total, pull.interrupted)
