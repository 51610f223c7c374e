"""Packages to pull: two files of random bytes, which no engine ever sees."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest
from blockbuster import BlockBuster

from isochrone.edge_agent.artefacts.disk import Disk
from isochrone.edge_agent.artefacts.parts import source_of
from isochrone.edge_agent.artefacts.pull import Bringing, Wish
from isochrone.edge_agent.artefacts.pulls import Pulls
from isochrone.edge_agent.artefacts.room import Room
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig, FromHttp
from isochrone.edge_agent.artefacts.store import Store
from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import Package, described, write_package
from tests.edge_agent.artefacts.shop import open_shop

BIG_BYTES = 400_000
SMALL_BYTES = 10_000
ON_THE_LOOP = ("pulls", "pull", "room", "http", "blocking", "disk", "parts")
"""Modules that the event loop runs: nothing in them may hold it."""


def write_weights(folder, version="1", name="net", seed=1, sizes=(BIG_BYTES, SMALL_BYTES)):
    """A package of random bytes."""
    rng = Random(seed)
    files = {
        f"{letter}.onnx": rng.randbytes(size) for letter, size in zip("abc", sizes, strict=False)
    }
    manifest = Manifest(
        name=name,
        version=version,
        inputs=(Declared("x", "FP32", (-1, 2)),),
        outputs=(Declared("y", "FP32", (-1, 2)),),
        warm_up=(Sample((SampleTensor("x", (1, 2)),)),),
        variants=tuple(
            described(data, name=file[0], engine="onnx", file=file) for file, data in files.items()
        ),
    )
    return write_package(folder, manifest, files)


@dataclass
class Nobody:
    """Uses no package; what it is told of is kept."""

    spared: tuple = ()
    gone: tuple = ()

    async def expect(self, manifest):
        self.expected = manifest

    async def spare(self):
        return self.spared

    async def let_go(self, package):
        self.gone += (package.version,)
        return True


class Pulling:
    """Pulls into a store of a test's own."""

    def __init__(self, root, config, tasks, trust=None):
        self.root = root
        self.store = Store(root)
        self.keeper = Nobody()
        self.tasks: list[asyncio.Task] = []
        self.came: list[Package] = []
        disk = Disk()
        room = Room(
            self.store, disk, self.keeper, config.disk_budget_bytes, config.disk_reserve_bytes
        )
        self.disk = disk
        self.pulls = Pulls(
            Bringing(self.store, disk, room, trust),
            lambda: source_of(config),
            self.came.append,
            self._spawned(tasks),
            Random(1),
            timeout_s=config.pull_timeout_s,
            first_pause_s=0.01,
        )

    def _spawned(self, tasks):
        def spawn(work):
            self.tasks.append(tasks.create_task(work))

        return spawn

    async def stop(self):
        """End every pull, as an agent does that leaves."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def pull(self, package):
        """The package as it came; raises what keeps it from coming."""
        return await self.have(Wish(package.name, package.version, package.digest))

    async def have(self, wish):
        """The same of what was wished for."""
        pull = self.pulls.begin(wish)
        await pull.ended.wait()
        if pull.error is not None:
            raise pull.error
        return pull.package


@asynccontextmanager
async def pulling(root, config, trust=None):
    root.mkdir(exist_ok=True)
    guard = BlockBuster([f"isochrone.edge_agent.artefacts.{name}" for name in ON_THE_LOOP])
    async with asyncio.TaskGroup() as tasks:
        one = Pulling(root, config, tasks, trust)
        guard.activate()
        try:
            yield one
        finally:
            guard.deactivate()
            await one.stop()
            one.disk.close()


@pytest.fixture
def remote(tmp_path):
    """Where a source's packages lie."""
    path = tmp_path / "remote"
    path.mkdir()
    return path


@pytest.fixture
async def shop(remote):
    """A server of the packages in `remote`."""
    async with open_shop(remote) as shop:
        yield shop


@pytest.fixture
def package(remote):
    """One package at the source."""
    return write_weights(remote)


@pytest.fixture
async def here(tmp_path, shop):
    """Pulls from the shop."""
    async with pulling(tmp_path / "here", config_for(shop)) as one:
        yield one


def config_for(shop, **changes):
    return ArtefactsConfig(
        source=FromHttp(url=shop.url), disk_reserve_bytes=0, stall_s=1.0, **changes
    )
