"""What a region holds: each model's manifest, and how its replicas stand. No weights are here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from isochrone.cloud.scale import Standing
from isochrone.edge_agent.runtime.engines.table import PLATFORMS
from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.edge_agent.runtime.package.package import (
    Package,
    PackageError,
    open_package,
    packages_in,
)
from isochrone.router.errors import NotFound
from isochrone.router.wire.message import ModelMetadata
from isochrone.router.wire.report import HeldModel, ModelState, version_order


def find_package(store: Path, name: str, version: str | None) -> Package:
    """A model's package; without a version, its newest.

    Raises:
        PackageError: it is not there, or cannot be used.
    """
    if version is not None:
        return open_package(store / name / version)
    packages, errors = packages_in(store)
    named = [package for package in packages if package.name == name]
    if named:
        return max(named, key=lambda package: version_order(package.version))
    broken = [error.message for error in errors]
    raise PackageError(
        "; ".join([f"{store}: holds no usable package of {name}; build or copy one", *broken])
    )


class Catalogue:
    """The models of one region, and what was last seen of their replicas. A `Shelf`."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self.models_generation = 0
        self._manifests = {manifest.name: manifest for manifest in manifests}
        self._standings = dict.fromkeys(self._manifests, Standing())
        self._load_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}

    @property
    def standings(self) -> Mapping[str, Standing]:
        """How each model's replicas stand."""
        return self._standings

    def observe(self, seen: Mapping[str, Standing], now_s: float) -> None:
        """Take over how the replicas stand; a model that was not seen has none."""
        before = [standing.state for standing in self._standings.values()]
        self._standings = {name: seen.get(name, Standing()) for name in self._manifests}
        for name in [name for name in self._asked_s if self._standings[name].running]:
            self._load_s[name] = max(0.0, now_s - self._asked_s.pop(name))
        if before != [standing.state for standing in self._standings.values()]:
            self.models_generation += 1

    def asked(self, name: str, now_s: float) -> None:
        """A request for this model has come; a cold one starts with the first."""
        if self._standings[name].state is ModelState.COLD:
            self._asked_s.setdefault(name, now_s)

    def woke(self, name: str, ready_s: float | None) -> None:
        """A model that seemed to have no replica has answered.

        It was ready at that instant; None: before it was asked.
        """
        if ready_s is None:
            ready_s = self._asked_s.pop(name, 0.0)
        if self._standings[name].running == 0:
            self.observe({**self._standings, name: Standing(running=1)}, ready_s)

    def held(self) -> tuple[HeldModel, ...]:
        """Every model and its state."""
        return tuple(self.model(name) for name in self._manifests)

    def model(self, name: str, version: str | None = None) -> HeldModel:
        """One model and its state."""
        manifest = self._manifest(name, version)
        return HeldModel(
            name=manifest.name,
            version=manifest.version,
            state=self._standings[manifest.name].state,
            load_s=self._load_s.get(manifest.name),
            bytes=manifest.variants[0].bytes,
        )

    def metadata(self, name: str, version: str | None = None) -> ModelMetadata:
        """What a model takes and gives."""
        manifest = self._manifest(name, version)
        return ModelMetadata(
            name=manifest.name,
            versions=(manifest.version,),
            platform=PLATFORMS[manifest.variants[0].engine],
            inputs=manifest.takes(),
            outputs=manifest.gives(),
        )

    def labels(self, name: str, version: str | None = None) -> tuple[str, ...]:
        """The classes' names, in order."""
        return self._manifest(name, version).labels

    def state(self, name: str, version: str | None = None) -> ModelState:
        """Warm where a replica runs, loading where one starts, else cold."""
        return self._standings[self._manifest(name, version).name].state

    def _manifest(self, name: str, version: str | None) -> Manifest:
        manifest = self._manifests.get(name)
        if manifest is None:
            raise NotFound(f"model {name} is not held here")
        if version not in (None, manifest.version):
            raise NotFound(f"model {name} has no version {version} here; it has {manifest.version}")
        return manifest
