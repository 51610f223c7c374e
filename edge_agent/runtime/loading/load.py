"""One load from package to warm model, measured: how long it took and what it takes. Blocks."""

import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from isochrone.edge_agent.runtime.calls.model import DirectModel, Model
from isochrone.edge_agent.runtime.calls.quarantine import Quarantine
from isochrone.edge_agent.runtime.engines.process_engine import ProcessModel
from isochrone.edge_agent.runtime.engines.table import engine
from isochrone.edge_agent.runtime.loading.choice import Choices
from isochrone.edge_agent.runtime.loading.proven import Proofs
from isochrone.edge_agent.runtime.loading.start import Build, start
from isochrone.edge_agent.runtime.memory.residency import NoRoomNow
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.edge_agent.runtime.package.thread import Warming
from isochrone.router.errors import IsochroneError
from isochrone.router.process import freed_memory
from isochrone.router.process.clock import Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A warm model: its variant, the seconds of its weights and its warm-up, its size in memory."""

    model: Model
    variant: str
    read_s: float
    warm_up_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Tools:
    """What loading needs: threads that run calls, how many, on how many cores each, and time.

    `choices` knows which variant to load, `proofs` how many rows of it may share a run. No load
    takes less than `min_load_s`, so that a small model can play one of real size.
    """

    runner: Executor
    slots: int
    threads: int
    clock: Clock
    choices: Choices
    proofs: Proofs
    min_load_s: float = 0.0


class Processes:
    """Those that one load has begun, so that they can be ended from another thread."""

    def __init__(self) -> None:
        self._models: list[ProcessModel] = []
        self._ended = False

    def add(self, model: ProcessModel) -> ProcessModel:
        """One more."""
        self._models.append(model)
        if self._ended:
            model.kill()
        return model

    def end(self) -> None:
        """End them, and each that may still come."""
        self._ended = True
        for model in self._models:
            model.kill()


def load(
    package: Package,
    tools: Tools,
    quarantine: Quarantine | None,
    processes: Processes,
    read: Callable[[], None],
) -> Loaded:
    """Load and warm a package; `read` is called when its weights are in memory.

    Which variant is the fastest, and whether its calls may share runs, is measured before, once,
    and not counted as part of the load.
    With a `quarantine` it gets a process of its own, one of `processes`, which refuses what is in
    there.

    Raises:
        PackageError: the package or its file is wrong; nothing of it stays in memory.
        MemoryError: it does not fit.
        Crashed: its own process died.
    """
    if quarantine is None:
        variant = tools.choices.choose(package, tools.threads)
        return _inside(package, variant, tools, read)
    begin = partial(_begun_outside, tools, processes)
    variant = tools.choices.choose(package, tools.threads, begin)
    return _outside(package, variant, tools, read, quarantine, processes)


def _inside(package: Package, variant: Variant, tools: Tools, read: Callable[[], None]) -> Loaded:
    most_rows = tools.proofs.most_rows(package, variant, tools.threads)
    began_s = tools.clock()
    engine(variant.engine)  # imported now, it is not counted as part of the model
    before_bytes = freed_memory.private_bytes()
    model, read_s = _started(package, variant, tools, read, began_s)
    if isinstance(model, DirectModel):
        model.most_rows = most_rows
    freed_memory.give_back()  # what parsing took and freed
    grown_bytes = freed_memory.private_bytes() - before_bytes
    # Freed memory that is used again does not show as growth; the weights are there in any case.
    size_bytes = max(grown_bytes, variant.bytes)
    return Loaded(model, variant.name, read_s, tools.clock() - began_s - read_s, size_bytes)


def _begun_outside(
    tools: Tools,
    processes: Processes,
    package: Package,
    variant: Variant,
    executor: Executor,
    threads: int,
) -> Model:
    """A variant that is only measured, in the kind of process in which it will run."""
    build = _apart(tools, Quarantine(tools.clock), processes)
    return start(package, variant, executor, threads, build=build)


def _apart(
    tools: Tools, quarantine: Quarantine, processes: Processes
) -> Callable[[Package, Variant, Executor, int], ProcessModel]:
    """Builds models in processes of their own."""

    def build(package: Package, variant: Variant, executor: Executor, threads: int) -> ProcessModel:
        return processes.add(
            ProcessModel(package, variant, executor, threads, quarantine, tools.slots)
        )

    return build


def _outside(
    package: Package,
    variant: Variant,
    tools: Tools,
    read: Callable[[], None],
    quarantine: Quarantine,
    processes: Processes,
) -> Loaded:
    began_s = tools.clock()
    made: list[ProcessModel] = []

    def build(package: Package, variant: Variant, executor: Executor, threads: int) -> ProcessModel:
        made.append(_apart(tools, quarantine, processes)(package, variant, executor, threads))
        return made[0]

    model, read_s = _started(package, variant, tools, read, began_s, build)
    made[0].warmed()
    warm_up_s = tools.clock() - began_s - read_s
    return Loaded(model, variant.name, read_s, warm_up_s, made[0].size_bytes)


def _started(
    package: Package,
    variant: Variant,
    tools: Tools,
    read: Callable[[], None],
    began_s: float,
    build: Build | None = None,
) -> tuple[Model, float]:
    """The model, warm, and the seconds until its weights were there.

    It is warmed in this thread: a warm-up that hangs takes none of those that answer.
    """
    read_at_s = began_s
    runner = Warming(tools.runner)

    def note() -> None:
        nonlocal read_at_s
        read_at_s = tools.clock()
        read()

    model = start(package, variant, runner, tools.threads, note, build)
    runner.over()
    time.sleep(max(0.0, began_s + tools.min_load_s - tools.clock()))
    return model, read_at_s - began_s


def shut_down(model: Model) -> None:
    """Give a model's memory back; one that cannot do even that must not keep others from it."""
    try:
        model.shutdown()
    except Exception:  # whatever an engine raises at its end
        _log.exception("a model did not shut down cleanly")
    freed_memory.give_back()


def as_failure(title: str, error: BaseException) -> IsochroneError:
    """What a load that ended so is to be told as."""
    if isinstance(error, IsochroneError):
        return error
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return NoRoomNow(f"{title} does not fit into this machine's memory now")
    return PackageError(f"{title} failed to load: {error!r}; see the log")
