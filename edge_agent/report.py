"""What an agent says of itself: its report when asked, its enrolment to every router."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from isochrone.edge_agent.config import AgentConfig
from isochrone.edge_agent.lifecycle import Lifecycle
from isochrone.edge_agent.pressure import Pressing
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.wire.report import (
    WIRE_VERSION,
    EndpointReport,
    Enrolment,
    HeldModel,
    ModelState,
    Pressure,
)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process this is: `instance` is new at every start, `boot_id` at every boot."""

    instance: str
    boot_id: str


def identity(instance: str) -> Identity:
    """This process's; where the system has no boot id, a restart counts as a boot."""
    try:
        return Identity(instance, _BOOT_ID.read_text().strip())
    except (OSError, ValueError):
        return Identity(instance, instance)


def broken_in(store: Path, packages: Iterable[Package]) -> tuple[HeldModel, ...]:
    """What lies in the packages' directory and could not be opened: there, and of no use."""
    sound = {(package.name, package.version) for package in packages}
    found = ((path.parent.name, path.name) for path in sorted(store.glob("[!.]*/[!.]*/")))
    unsound = [_absent(name, version) for name, version in found if (name, version) not in sound]
    return tuple(held for held in unsound if held is not None)


def _of_every_version(models: Iterable[HeldModel]) -> tuple[HeldModel, ...]:
    """Without what only a newer router reads: which version that is, an enrolment cannot ask."""
    return tuple(msgspec.structs.replace(model, active=None) for model in models)


def _absent(name: str, version: str) -> HeldModel | None:
    try:
        return msgspec.convert(
            {"name": name, "version": version, "state": ModelState.ABSENT}, HeldModel
        )
    except msgspec.ValidationError:  # a name that nothing can be called by
        return None


class Report:
    """Puts together what the agent says; `broken` are packages that it cannot use."""

    def __init__(
        self,
        config: AgentConfig,
        identity: Identity,
        pool: Pool,
        load: Load,
        lifecycle: Lifecycle,
        broken: tuple[HeldModel, ...],
        pressing: Pressing,
    ) -> None:
        self._pressing = pressing
        self._config = config
        self._identity = identity
        self._pool = pool
        self._load = load
        self._lifecycle = lifecycle
        self._broken = broken
        self._sequence = 0

    def full(self) -> EndpointReport:
        """`GET /isochrone/report`."""
        ready, draining = self._lifecycle.ready, self._lifecycle.draining
        told = self._load.endpoint_report(ready=ready, draining=draining)
        models, pressure = told.models + self._still_broken(), self._pressure(ready)
        degraded = (*pressure.degraded, *self._config.staged())
        pressure = msgspec.structs.replace(pressure, degraded=degraded)
        return msgspec.structs.replace(told, models=models, pressure=pressure)

    def _pressure(self, ready: bool) -> Pressure:
        """With those that should be warm and are not, though all of them were tried."""
        pressure = self._pressing.pressure
        if not ready:
            return pressure
        warm = {one.name for one in self._pool.held() if one.state is ModelState.WARM}
        cold = [name for name in self._config.keep_warm if name not in warm]
        missing = [f"keep_warm: {name} is not warm" for name in cold]
        return msgspec.structs.replace(pressure, degraded=(*pressure.degraded, *missing))

    def enrolment_at(self, url: str) -> Callable[[], Enrolment]:
        """Makes the enrolment with a router that reaches this agent at `url`."""

        def enrolment() -> Enrolment:
            self._sequence += 1
            config = self._config
            return Enrolment(
                wire_version=WIRE_VERSION,
                name=config.name,
                instance=self._identity.instance,
                boot_id=self._identity.boot_id,
                sequence=self._sequence,
                url=url,
                region=config.region,
                zone=config.zone,
                hardware_class=config.hardware_class,
                slots=self._pressing.slots,
                models=_of_every_version(self._pool.held() + self._still_broken()),
            )

        return enrolment

    def _still_broken(self) -> tuple[HeldModel, ...]:
        """Without those that were replaced meanwhile by sound ones."""
        sound = {(held.name, held.version) for held in self._pool.held()}
        return tuple(held for held in self._broken if (held.name, held.version) not in sound)
