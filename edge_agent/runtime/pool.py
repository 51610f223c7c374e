"""The models that one process holds: found by name, loaded once however many ask, unloaded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from edge_agent.runtime.held import Held, ModelMoved, Workshop
from edge_agent.runtime.holder import Loan
from edge_agent.runtime.package import Package, PackageError
from router.errors import NoSpace, NotFound, Unavailable
from router.process.clock import Clock, monotonic
from router.wire.message import InferRequest, InferResponse, ModelMetadata
from router.wire.report import HeldModel, ModelState, version_order


def _unheard(_moved: ModelMoved) -> None:
    """Nobody listens."""


class Pool:
    """Packages and their loaded models. Made and used on one event loop.

    Wherever a version may be None, it stands for the highest one that may be loaded; where that one
    failed when it was last loaded, for the highest warm one, if there is any.
    """

    def __init__(
        self,
        packages: Iterable[Package],
        *,
        slots: int = 1,
        threads: int = 1,
        clock: Clock = monotonic,
        on_event: Callable[[ModelMoved], None] = _unheard,
        min_load_s: float = 0.0,
    ) -> None:
        """`slots` calls run at once, each on `threads` cores; `on_event` hears of every move.

        No load takes less than `min_load_s`.

        Raises:
            PackageError: two packages have the same name and version.
        """
        self.runner = ThreadPoolExecutor(slots, thread_name_prefix="infer")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._on_event = on_event
        self._generation = 0
        self._closed = False
        self._models: dict[str, dict[str, Held]] = {}
        workshop = Workshop(self._loader, self.runner, threads, clock, self._moved, min_load_s)
        for package in sorted(packages, key=_highest_first, reverse=True):
            versions = self._models.setdefault(package.name, {})
            if package.version in versions:
                raise PackageError(
                    f"{package.path}: {package.name} {package.version} is here twice; remove one"
                )
            versions[package.version] = Held(package, workshop)

    @property
    def models_generation(self) -> int:
        """Grows whenever a model's state changes."""
        return self._generation

    def held(self) -> tuple[HeldModel, ...]:
        """Every model version and its state."""
        return tuple(held.told() for held in self._all())

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
        versions = (held.package.version,) if version else tuple(self._models[name])
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

    def choose(self, name: str, version: str | None = None) -> HeldModel:
        """The version that is to answer a call, warm or not.

        A higher one that it stands in for is tried again beside it, once its back-off has passed.

        Raises:
            NotFound: no such model or version is held.
            Unavailable: the pool is closed.
        """
        held = self._open(name, version)
        highest = _highest(self._models[name].values())
        if version is None and highest is not held:
            highest.try_again()
        return held.told()

    async def load(self, name: str, version: str | None = None) -> str:
        """Have a model warm; callers at the same time share one load. Returns which version.

        Where none was named and the one that was loaded fails, another stands in for it.

        Raises:
            NotFound: no such model or version is held.
            Unavailable, NoSpace: it cannot be loaded; the cause is a PackageError that says why.
                It is tried again after `retry_after_s`, no sooner.
        """
        held = self._open(name, version)
        try:
            await held.load()
        except (Unavailable, NoSpace):
            failed, held = held, self._find(name, version)
            if held is failed:
                raise
            await held.load()
        return held.package.version

    async def unload(self, name: str, version: str | None = None) -> None:
        """Let a model's running calls end, then give its memory back; it stays on disk.

        Every version of it, where none is named.

        Raises:
            NotFound: no such model or version is held.
        """
        one = self._find(name, version)
        for held in [one] if version else list(self._models[name].values()):
            await held.unload()

    def lend(self, name: str, version: str) -> Loan | None:
        """A model that stays in memory until it is given back; None where it is not warm.

        Raises:
            NotFound: no such model or version is held.
            Unavailable: the pool is closed.
        """
        return self._open(name, version).lend()

    async def request(
        self, name: str, version: str | None, request: InferRequest
    ) -> AsyncIterator[InferResponse]:
        """The answers of a model: one, or several where it streams; a cold one is loaded first.

        Raises:
            NotFound, Unavailable, NoSpace: as `load`.
            BadRequest: the inputs do not fit the model.
        """
        parts = self._open(name, await self.load(name, version)).request(request)
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
        self._closed = True
        for held in self._all():
            held.call_off()
        ended = await self._unloaded(grace_s)
        for threads in (self._loader, self.runner):
            threads.shutdown(wait=False, cancel_futures=True)
        return ended

    async def _unloaded(self, grace_s: float | None) -> bool:
        try:
            async with asyncio.timeout(grace_s):
                for held in self._all():
                    await held.unload()
        except TimeoutError:
            for held in self._all():
                held.forsake()
            return False
        return True

    def _all(self) -> Iterable[Held]:
        return (held for versions in self._models.values() for held in versions.values())

    def _open(self, name: str, version: str | None) -> Held:
        if self._closed:
            raise Unavailable("this endpoint is shutting down", retry_after_s=1.0)
        return self._find(name, version)

    def _find(self, name: str, version: str | None) -> Held:
        versions = self._models.get(name)
        if versions is None:
            raise NotFound(f"no model {name!r} is here")
        if version is None:
            return _preferred(versions.values())
        held = versions.get(version)
        if held is None:
            raise NotFound(f"{name!r} has no version {version!r}; it has {', '.join(versions)}")
        return held

    def _moved(self, event: ModelMoved) -> None:
        self._generation += 1
        self._on_event(event)


def _preferred(versions: Collection[Held]) -> Held:
    highest = _highest(versions)
    warm = (held for held in versions if held.state is ModelState.WARM)
    return highest if highest.sound else next(warm, highest)


def _highest(versions: Collection[Held]) -> Held:
    """Of those that may be loaded; of all, where none may."""
    return next((held for held in versions if held.may_load), next(iter(versions)))


def _highest_first(package: Package) -> tuple[tuple[int, int | str], ...]:
    return version_order(package.version)
