"""One package in a pool: its state, its one load at a time, and the calls that run inside it.

Everything but the blocking work happens on the event loop, which is therefore the only writer. A
load belongs to no caller: it runs in the loader's thread to its end, whoever stops waiting for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from math import inf

from isochrone.edge_agent.runtime.calls.holder import Loan
from isochrone.edge_agent.runtime.calls.model import DirectModel, Model
from isochrone.edge_agent.runtime.calls.quarantine import Quarantine
from isochrone.edge_agent.runtime.engines.back_off import LONGEST_BACK_OFF_S, BackOff
from isochrone.edge_agent.runtime.engines.table import PLATFORMS
from isochrone.edge_agent.runtime.loading.choice import likely
from isochrone.edge_agent.runtime.loading.load import Loaded, as_failure, load, shut_down
from isochrone.edge_agent.runtime.loading.one_load import OneLoad
from isochrone.edge_agent.runtime.loading.sample import IS_SAMPLE
from isochrone.edge_agent.runtime.memory.footprint import Footprint
from isochrone.edge_agent.runtime.memory.residency import NoRoomNow
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.edge_agent.runtime.package.state import Step, after
from isochrone.edge_agent.runtime.residence.outlook import Outlook
from isochrone.edge_agent.runtime.residence.workshop import ColdStart, ModelMoved, Workshop
from isochrone.router.errors import (
    Crashed,
    IsochroneError,
    NoSpace,
    NotFound,
    Unavailable,
    Unloadable,
    let_go,
)
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.report import HeldModel, ModelState

_log = logging.getLogger(__name__)
_LEAST_STAY_S, _STAY_LOADS, _LONGEST_STAY_S = 2.0, 5.0, 30.0
"""A model that others wait for stays for so many times its load, between these: then two models
under room for one are loaded thirty times a minute at most, and most of the time one answers."""
_DOUBTED_S = 600.0
"""A size for which there was no room may be what else went on: after that it is measured again."""


class Held:
    """One model version on this machine."""

    def __init__(self, package: Package, workshop: Workshop) -> None:
        self.package = package
        self.state = after(ModelState.ABSENT, Step.STORE)
        self.failure: IsochroneError | None = None
        """Why the newest load failed, or how the model was lost; None where neither was."""
        self.title = f"{package.name} {package.version}"
        variant = likely(package)
        self.platform = PLATFORMS[variant.engine]
        tools = workshop.tools
        self._file_sizes_bytes = tools.choices.needs_bytes(package, tools.threads)
        self.size_bytes = self._file_sizes_bytes
        """In memory, once it was measured; before, of all files that a load has there at once."""
        self._too_large_s = inf
        """When it was last measured to be larger than there was room for."""
        self._file_bytes = variant.bytes
        self._workshop = workshop
        self._clock = tools.clock
        upkeep = workshop.upkeep
        poisoned = partial(workshop.poisoned, package)
        self._quarantine = Quarantine(self._clock, poisoned) if upkeep.isolated(package) else None
        self.outlook = Outlook(package.name, variant.bytes, upkeep, workshop.loads, self._clock())
        self._variant: str | None = None
        self._model: Model | None = None
        self._load: OneLoad | None = None
        """The one that goes on, or the thread of which does although it has failed."""
        self._loading: asyncio.Future[Loaded] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._began_s = 0.0
        self._warm_s = 0.0
        """When it became warm."""
        self._back_off = BackOff()
        self._footprint: Footprint | None = None
        """Of its runs, since it was first loaded."""
        self._running = 0
        self._wished = 0
        """Of the running calls, those that are no samples."""
        self._retired = False
        self._put_away = False
        """It was unloaded for want of calls or of room, and may come back by itself."""
        self._is_wanted_back = False
        """It was woken while its memory was being given back."""
        self._is_dismissed = False
        """Somebody asked for it to be unloaded, and nobody for it since."""
        self._is_unfit = False
        """There was no room when it was last tried again."""

    def __str__(self) -> str:
        return self.title

    def told(self, *, active: bool | None = None) -> HeldModel:
        """What is reported of it."""
        name, version = self.package.name, self.package.version
        return HeldModel(name, version, self.state, self.outlook.load_s, self._file_bytes, active)

    async def load(self, until_s: float | None = None) -> Model:
        """The model, warm; callers at the same time share one load.

        With `until_s`, an instant, a caller waits: for room that is in use, and for the end of an
        unload. One without has idle models put away at once, and is refused else.

        Raises:
            Unavailable, NoSpace: it cannot be loaded (the cause says why), or is being unloaded.
            NotFound: it was removed.
        """
        with ExitStack() as line:
            is_in_line = False
            while (model := self._warm_model()) is None:
                if self._drained is not None:
                    if until_s is None and not self._put_away:
                        raise self._leaving()
                    await asyncio.shield(self._drained)
                    continue
                if until_s is not None and 0 < self._restarts_s < self._left_s(until_s):
                    await asyncio.sleep(self._restarts_s)
                    continue
                try:
                    loading = self._loading or self._begin(in_turn=until_s is not None)
                except NoRoomNow:
                    left_s = 0.0 if until_s is None else self._left_s(until_s)
                    if left_s <= 0:
                        raise
                    if is_in_line:
                        await self._workshop.residents.turn(self, left_s)
                    else:
                        line.enter_context(self._workshop.residents.in_line(self))
                        is_in_line = True
                    continue
                await asyncio.wait([loading])
                if self.failure is not None and not (
                    until_s is not None and isinstance(self.failure, NoRoomNow)
                ):
                    raise self._refusal()
                if until_s is None and self._warm_model() is None:
                    raise self._leaving()  # another wanted it loaded to its end, then gone
            return model

    def _warm_model(self) -> Model | None:
        self.check_alive()
        return self._model if self.state is ModelState.WARM else None

    def _left_s(self, until_s: float) -> float:
        """How long it may wait for room, so that there is time left to load it."""
        return until_s - self.expected_s - self._clock()

    def wake(self) -> None:
        """Begin a load that nobody waits for, where it is cold; or as soon as it is.

        Raises:
            Unavailable, NoSpace, NotFound: as `load`, where that is known at once.
        """
        self.check_alive()
        self._is_wanted_back = self._drained is not None and self._put_away
        if self.state is ModelState.COLD:
            self._begin()

    def try_again(self) -> None:
        """Begin a load that nobody waits for, where it is cold, fits, and need not wait."""
        if self.state is ModelState.COLD and self.may_load and not self._retired:
            try:
                self._begin()
            except (NoSpace, NoRoomNow) as error:
                if not self._is_unfit:
                    _log.warning("%s", error.message)
                self._is_unfit = True

    def tend(self) -> None:
        """Let a model that is idle for too long go, fetch one that is about to be called.

        One that has to stay is fetched whenever it is not there, unless it was unloaded on demand.
        """
        self.check_alive()
        if self.evictable and not self.outlook.wants(self._clock()):
            self.put_away("idle")
        elif self.state is ModelState.COLD and (self._is_missed() or self._is_due()):
            self.try_again()

    def repaired(self) -> None:
        """Its files were brought anew: what was wrong with them before says nothing any more."""
        if self.state is ModelState.COLD:
            self.failure, self._back_off, self._too_large_s = None, BackOff(), inf
            self.size_bytes = self._file_sizes_bytes

    def retire(self) -> None:
        """It was removed: it is not loaded again."""
        self._retired = True

    def call_off(self) -> None:
        """A load that has not begun does not begin."""
        if self._load is not None:
            self._load.call_off()

    def forsake(self) -> None:
        """Nobody waits for a load any more; its process is ended, its thread cannot be."""
        if self._load is not None:
            self._load.forsake()

    async def dismiss(self) -> None:
        """Have it give its memory back once running calls have ended; a load is waited for."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
        self._put_away = self._is_wanted_back = False
        self._is_dismissed = True
        if self.state is ModelState.WARM:
            self._drain("asked")

    def recall(self) -> None:
        """Have it stay after all, where a running call has kept its memory until now."""
        if self.state is ModelState.DRAINING and self._model is not None:
            self._is_dismissed = False
            self._move(Step.RECALL)
            self._end_drain()

    async def left(self) -> None:
        """Wait until its memory was given back, or it was recalled; where neither, not at all."""
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def put_away(self, cause: str) -> None:
        """Give the memory back; who calls it later has it loaded again."""
        self._put_away = True
        self._drain(cause)

    async def request(
        self, request: InferRequest, until_s: float | None = None
    ) -> AsyncGenerator[InferResponse, None]:
        """The answers to one request; a cold model is loaded first, as `load` does."""
        model = await self.load(until_s)
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
        """The model, in memory until it is given back; None unless it is warm and direct."""
        model = self._model
        if self.state is ModelState.WARM and isinstance(model, DirectModel):
            return Loan(model, self.package.version, self._used())
        return None

    def check_alive(self) -> None:
        """Where the process that ran it died, it is cold."""
        if self.state is ModelState.WARM and self._model and not self._model.is_healthy():
            self._lose(self._model)

    def is_healthy(self) -> bool:
        """It can answer, or was never asked to be able to."""
        return self._model is None or self._model.is_healthy()

    @property
    def evictable(self) -> bool:
        """It is in memory, no call runs, and it need not stay."""
        idle = self.state is ModelState.WARM and not self._running
        return idle and not self._workshop.kept(self.package)

    @property
    def pinned(self) -> bool:
        """It has to stay in memory."""
        return self._workshop.kept(self.package)

    @property
    def rested(self) -> bool:
        """Its least stay is over."""
        stay_s = min(_LONGEST_STAY_S, max(_LEAST_STAY_S, _STAY_LOADS * self.expected_s))
        return self.state is ModelState.WARM and self._clock() - self._warm_s >= stay_s

    @property
    def leaving(self) -> bool:
        """It gives its memory back once its running calls have ended."""
        return self.state is ModelState.DRAINING

    def stay(self) -> None:
        """Keep the memory after all, unless it was unloaded on demand."""
        if self._put_away:
            self.recall()

    @property
    def expected_s(self) -> float:
        """What a load takes: measured, or a guess by the size of its file."""
        return self.outlook.expected_s

    def time_to_warm_s(self) -> float:
        """Seconds until it is warm, if it is asked for now: loads before it, back-off and all."""
        if self.state is ModelState.WARM:
            return 0.0
        return self.outlook.time_to_warm_s(self._clock(), self._wait_s)

    @property
    def sound(self) -> bool:
        """Its newest load that came to an end did not fail."""
        return self._back_off.sound

    @property
    def may_load(self) -> bool:
        """Nothing keeps it from being loaded now: no failure, or one whose back-off has passed."""
        return self._wait_s <= 0

    @property
    def _wait_s(self) -> float:
        """How long no load may begin; one that hangs already is not to be joined by another."""
        hangs = self._load is not None and self._load.hangs
        return LONGEST_BACK_OFF_S if hangs else self._back_off.left_s(self._clock())

    @property
    def _restarts_s(self) -> float:
        """How long until a process that died may be started again; 0 where none did."""
        died = isinstance(self.failure, Crashed) and self.state is ModelState.COLD
        return self._wait_s if died else 0.0

    def _is_missed(self) -> bool:
        """It has to stay in memory, and nobody asked for it to go."""
        return not self._is_dismissed and self._workshop.kept(self.package)

    def _is_due(self) -> bool:
        """It left by itself, its next call is due, and nobody has to leave for it."""
        is_due = self._put_away and self.outlook.foresees(self._clock())
        return is_due and self._workshop.residents.has_room(self)

    def _begin(self, *, in_turn: bool = False) -> asyncio.Future[Loaded]:
        if self._retired:
            raise NotFound(f"{self.title} was removed")
        if not self.may_load:
            raise self._refusal()
        if self._clock() - self._too_large_s >= _DOUBTED_S:
            self.size_bytes, self._too_large_s = self._file_sizes_bytes, inf
        residents = self._workshop.residents
        (residents.admit_in_turn if in_turn else residents.admit)(self)
        self.failure = None
        self._put_away = self._is_dismissed = self._is_unfit = False
        self._began_s = self._clock()
        self.outlook.load_joins()
        self._move(Step.LOAD)
        self._load = OneLoad(
            self.title,
            self._workshop.loader,
            partial(load, self.package, self._workshop.tools, self._quarantine),
            began=lambda: self.outlook.load_begins(self._clock()),
            read=lambda: self._move(Step.LOADED),
            timeout_s=self._workshop.upkeep.load_timeout_s,
        )
        self._load.outcome.add_done_callback(self._finish)
        self._loading = self._load.outcome
        return self._loading

    def _finish(self, loading: asyncio.Future[Loaded]) -> None:
        self._loading = None
        try:
            loaded = loading.result()
        except asyncio.CancelledError:
            self._end_load()
            self.failure = Unavailable(f"{self.title} was not loaded: the pool is closing")
            self._move(Step.FAILED, error=self.failure.message)
            return
        except BaseException as error:  # an engine may even call `exit`
            self._fail(error)
            return
        self.size_bytes = loaded.size_bytes
        wait_s = self._clock() - self._began_s - loaded.read_s - loaded.warm_up_s
        cold_start = ColdStart(max(0.0, wait_s), loaded.read_s, loaded.warm_up_s)
        self.outlook.loaded(self._clock(), cold_start.load_s)
        try:
            self._workshop.residents.admit(self)
        except (NoSpace, NoRoomNow) as unfit:
            self._too_large_s = self._clock()
            self._workshop.loader.submit(shut_down, loaded.model)
            self._fail(unfit)
            return
        self._load = None
        self._model, self._variant = loaded.model, loaded.variant
        if isinstance(loaded.model, DirectModel):
            self._footprint = loaded.model.footprint = self._footprint or loaded.model.footprint
        self._warm_s = self._clock()
        self._back_off.succeeded(self._warm_s)
        self._move(Step.ANSWERED, cold_start=cold_start)

    def _fail(self, error: BaseException) -> None:
        self._end_load()
        self.failure = as_failure(self.title, error)
        self._back_off.failed(self._clock())
        is_foreseen = isinstance(error, IsochroneError)
        _log.error("%s", self.failure.message, exc_info=None if is_foreseen else error)
        let_go(error)
        self._move(Step.FAILED, error=self.failure.message)

    def _end_load(self) -> None:
        """What it took counts as taken for as long as its thread works on."""
        self.outlook.load_failed()
        if self._load is not None:
            self._load.when_over(lambda: self._workshop.residents.leave(self))

    def _leaving(self) -> IsochroneError:
        return Unavailable(f"{self.title} is being unloaded", retry_after_s=1.0)

    def _refusal(self) -> IsochroneError:
        """What callers hear of a failed load: its cause names files, so it is not in the text."""
        wait_s = self._wait_s
        if isinstance(self.failure, NoSpace | NoRoomNow):
            never = isinstance(self.failure, NoSpace)
            refusal: IsochroneError = type(self.failure)(
                self.failure.message,
                retry_after_s=None if never else wait_s,
                reasons=self.failure.reasons,
            )
        elif isinstance(self.failure, PackageError):
            refusal = Unloadable(f"{self.title} cannot be loaded here")
        else:
            refusal = Unavailable(f"{self.title} cannot be loaded here", retry_after_s=wait_s)
        refusal.__cause__ = self.failure
        return refusal

    @contextmanager
    def _in_use(self, model: Model) -> Iterator[None]:
        """A call runs."""
        ended = self._used()
        try:
            yield
        except Crashed:
            self._lose(model)
            raise
        finally:
            ended()

    def _used(self) -> Callable[[], None]:
        """A call runs from now on until what is returned is called."""
        self._running += 1
        if IS_SAMPLE.get():
            return self._sampled
        self._workshop.residents.used(self)
        if not self._wished:
            self.outlook.keep_alive.began(self._clock())
        self._wished += 1
        return self._called

    def _called(self) -> None:
        self._wished -= 1
        if not self._wished:
            self.outlook.keep_alive.ended(self._clock())
        self._sampled()

    def _sampled(self) -> None:
        self._running -= 1
        if self.state is ModelState.DRAINING:
            self._release_if_idle()
        elif not self._running and self._workshop.residents.awaited:
            self._workshop.residents.changed()

    def _lose(self, model: Model) -> None:
        """Its process died; of several calls that saw it, the first says so."""
        if self._model is not model or self.state is not ModelState.WARM:
            return
        self._model = None
        self.failure = Crashed(f"the process of {self.title} died")
        self._back_off.crashed(self._clock())
        self._workshop.residents.leave(self)
        self._workshop.loader.submit(shut_down, model)
        self._move(Step.CRASHED, error=self.failure.message)

    def _drain(self, cause: str) -> None:
        self._drained = asyncio.get_running_loop().create_future()
        self._move(Step.DRAIN, cause=cause)
        self._release_if_idle()

    def _release_if_idle(self) -> None:
        model = self._model
        if self.state is not ModelState.DRAINING or self._running or model is None:
            return
        self._model = None
        loop = asyncio.get_running_loop()
        shutdown = loop.run_in_executor(self._workshop.loader, shut_down, model)
        shutdown.add_done_callback(self._released)

    def _released(self, _: asyncio.Future[None]) -> None:
        self._workshop.residents.leave(self)
        self._move(Step.DRAINED)
        self._end_drain()
        if self._is_wanted_back:
            self._is_wanted_back = False
            self.try_again()

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _move(
        self,
        step: Step,
        *,
        cold_start: ColdStart | None = None,
        error: str | None = None,
        cause: str | None = None,
    ) -> None:
        self.state = after(self.state, step)
        name, version = self.package.name, self.package.version
        variant = self._variant if cold_start is not None else None
        self._workshop.moved(
            ModelMoved(name, version, self.state, step, cold_start, error, cause, variant)
        )
