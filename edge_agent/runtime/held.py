"""One package in a pool: its state, its one load at a time, and the calls that run inside it.

Everything but the blocking work happens on the event loop, which is therefore the only writer. A
load belongs to no caller: it runs in the loader's thread to its end, whoever stops waiting for it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from edge_agent.runtime.engines import PLATFORMS, choose, installed
from edge_agent.runtime.holder import Loan
from edge_agent.runtime.model import Model
from edge_agent.runtime.package import Package, PackageError
from edge_agent.runtime.start import start
from edge_agent.runtime.state import Step, after
from router.errors import IsochroneError, NoSpace, Unavailable
from router.process.clock import Clock
from router.wire.message import InferRequest, InferResponse
from router.wire.report import HeldModel, ModelState

FIRST_BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelMoved:
    """A model's state changed; `load_s` when it became warm, `error` when it could not."""

    name: str
    version: str
    state: ModelState
    load_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every model of a pool shares: threads that load, threads that run, and time."""

    loader: Executor
    runner: Executor
    threads: int
    clock: Clock
    moved: Callable[[ModelMoved], None]
    min_load_s: float = 0.0
    """A load takes at least this long, so that a small model can play one of real size."""


class Held:
    """One model version on this machine."""

    def __init__(self, package: Package, workshop: Workshop) -> None:
        self.package = package
        self.state = after(ModelState.ABSENT, Step.STORE)
        self.load_s: float | None = None
        self.failure: IsochroneError | None = None
        """Why the newest load failed; None where it did not."""
        variants = package.manifest.variants
        likely = next(filter(installed, variants), variants[0])
        self.platform = PLATFORMS[likely.engine]
        self._bytes = likely.bytes
        self._workshop = workshop
        self._model: Model | None = None
        self._work: Future[Model] | None = None
        self._loading: asyncio.Future[Model] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._began_s = 0.0
        self._retry_s = 0.0
        self._failures = 0
        self._running = 0

    def told(self) -> HeldModel:
        """What is reported of it."""
        return HeldModel(
            self.package.name, self.package.version, self.state, self.load_s, self._bytes
        )

    async def load(self) -> Model:
        """The model, warm; callers at the same time share one load.

        Raises:
            Unavailable, NoSpace: it cannot be loaded (the cause says why), or is being unloaded.
        """
        if self._model is not None and self.state is ModelState.WARM:
            return self._model
        if self.state is ModelState.DRAINING:
            raise self._leaving()
        if self._loading is None:
            self._loading = self._begin()
        await asyncio.wait([self._loading])
        if self.failure is not None:
            raise self._refusal()
        if self._model is None or self.state is not ModelState.WARM:
            raise self._leaving()  # who waited before us wanted it loaded to its end, then gone
        return self._model

    def try_again(self) -> None:
        """Begin a load that nobody waits for, where it is cold and its back-off has passed."""
        if self.state is ModelState.COLD and self.may_load:
            self._loading = self._begin()

    def call_off(self) -> None:
        """A load that has not begun does not begin."""
        if self._work is not None:
            self._work.cancel()

    def forsake(self) -> None:
        """Nobody waits for a load any more; its thread cannot be stopped."""
        if self._loading is not None:
            self._loading.cancel()

    async def unload(self) -> None:
        """Let running calls end and give the memory back; nothing where it is not loaded."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
        if self.state is ModelState.WARM:
            self._drained = asyncio.get_running_loop().create_future()
            self._move(Step.DRAIN)
            self._release_if_idle()
        if self._drained is not None:
            await asyncio.shield(self._drained)

    async def request(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """The answers to one request; a cold model is loaded first."""
        model = await self.load()
        with self._in_use(model):
            parts = model.request(request)
            if isinstance(parts, AsyncGenerator):
                async with aclosing(parts):
                    async for part in parts:
                        yield part
            else:
                async for part in parts:
                    yield part

    def lend(self) -> Loan | None:
        """The model, in memory until it is given back; None where it is not warm."""
        model = self._model
        if model is None or self.state is not ModelState.WARM:
            return None
        use = self._in_use(model)
        use.__enter__()
        return Loan(model, use)

    def is_healthy(self) -> bool:
        """It can answer, or was never asked to be able to."""
        return self._model is None or self._model.is_healthy()

    @property
    def sound(self) -> bool:
        """Its newest load that came to an end did not fail."""
        return self._failures == 0

    @property
    def may_load(self) -> bool:
        """Nothing keeps it from being loaded now: no failure, or one whose back-off has passed."""
        return self.failure is None or self._workshop.clock() >= self._retry_s

    @property
    def _title(self) -> str:
        return f"{self.package.name} {self.package.version}"

    def _begin(self) -> asyncio.Future[Model]:
        self._began_s = self._workshop.clock()
        if not self.may_load:
            raise self._refusal()
        self.failure = None
        self._move(Step.LOAD)
        loop = asyncio.get_running_loop()

        def loaded() -> None:
            loop.call_soon_threadsafe(self._read)

        self._work = self._workshop.loader.submit(_started, self.package, self._workshop, loaded)
        loading = asyncio.wrap_future(self._work)
        loading.add_done_callback(self._finish)
        return loading

    def _read(self) -> None:
        if self._loading is not None:
            self._move(Step.LOADED)

    def _finish(self, loading: asyncio.Future[Model]) -> None:
        self._work = self._loading = None
        if loading.cancelled():
            self.failure = Unavailable(f"{self._title} was not loaded: the pool is closing")
            self._move(Step.FAILED, error=self.failure.message)
            return
        error = loading.exception()
        if error is not None:
            self._fail(error)
            return
        self._model = loading.result()
        self._failures = 0
        self.load_s = self._workshop.clock() - self._began_s
        self._move(Step.ANSWERED, load_s=self.load_s)

    def _fail(self, error: BaseException) -> None:
        self.failure = _as_failure(self._title, error)
        wait_s = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._retry_s = self._workshop.clock() + wait_s
        _log.error("%s", self.failure.message, exc_info=error)
        self._move(Step.FAILED, error=self.failure.message)

    def _leaving(self) -> IsochroneError:
        return Unavailable(f"{self._title} is being unloaded", retry_after_s=1.0)

    def _refusal(self) -> IsochroneError:
        """What callers hear of a failed load: its cause names files, so it is not in the text."""
        wait_s = max(0.0, self._retry_s - self._workshop.clock())
        kind = NoSpace if isinstance(self.failure, NoSpace) else Unavailable
        refusal = kind(f"{self._title} cannot be loaded here", retry_after_s=wait_s)
        refusal.__cause__ = self.failure
        return refusal

    @contextmanager
    def _in_use(self, model: Model) -> Iterator[None]:  # noqa: ARG002 - whose failure it would be
        """A call runs."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._release_if_idle()

    def _release_if_idle(self) -> None:
        model = self._model
        if self.state is not ModelState.DRAINING or self._running or model is None:
            return
        self._model = None
        loop = asyncio.get_running_loop()
        shutdown = loop.run_in_executor(self._workshop.loader, model.shutdown)
        shutdown.add_done_callback(self._released)

    def _released(self, shutdown: asyncio.Future[None]) -> None:
        if not shutdown.cancelled() and (error := shutdown.exception()) is not None:
            _log.error("%s did not shut down cleanly", self._title, exc_info=error)
        self._move(Step.DRAINED)
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _move(self, step: Step, load_s: float | None = None, error: str | None = None) -> None:
        self.state = after(self.state, step)
        self._workshop.moved(
            ModelMoved(self.package.name, self.package.version, self.state, load_s, error)
        )


def _started(package: Package, workshop: Workshop, loaded: Callable[[], None]) -> Model:
    until_s = workshop.clock() + workshop.min_load_s
    model = start(package, choose(package), workshop.runner, workshop.threads, loaded)
    time.sleep(max(0.0, until_s - workshop.clock()))
    return model


def _as_failure(title: str, error: BaseException) -> IsochroneError:
    if isinstance(error, IsochroneError):
        return error
    if isinstance(error, MemoryError):
        return NoSpace(f"{title} does not fit into this machine's memory")
    return PackageError(f"{title} failed to load: {error!r}; see the log")
