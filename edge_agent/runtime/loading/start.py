"""From a package to a warm model: build, load, ask the warm-up samples. Everything here blocks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from isochrone.edge_agent.runtime.calls.model import Model
from isochrone.edge_agent.runtime.calls.unheard import unheard
from isochrone.edge_agent.runtime.engines.table import engine
from isochrone.edge_agent.runtime.engines.text_model import TextModel
from isochrone.edge_agent.runtime.loading import warmup
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package

Build = Callable[[Package, Variant, Executor, int], Model]
"""Makes a model that is not loaded yet; see `EngineModule.build`."""


def start(
    package: Package,
    variant: Variant,
    executor: Executor,
    threads: int = 1,
    loaded: Callable[[], None] = unheard,
    build: Build | None = None,
) -> Model:
    """A variant's model, warm; `loaded` is called when its weights are in memory.

    It is made by its engine, or by `build`, where one is given.

    Must run outside any event loop, and not in one of `executor`'s own threads.

    Raises:
        PackageError: the package or its file is wrong; nothing of it stays in memory.
        MemoryError: it does not fit.
    """
    built = (build or engine(variant.engine).build)(package, variant, executor, threads)
    generate = package.manifest.generate
    model = built if generate is None else TextModel(built, package, generate)
    try:
        model.startup()
        loaded()
        asyncio.run(_warm(model, package))
    except BaseException:  # whatever it was, nothing may stay in memory
        model.shutdown()
        raise
    return model


async def _warm(model: Model, package: Package) -> None:
    await warmup.answers(model.request, package)
