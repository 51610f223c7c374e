"""The life of an agent as a machine without I/O: starting, warming, ready, draining, stopped."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where an agent stands, in the order of its life."""

    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets accept connections."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A model that is kept warm has become warm, or has turned out to be unusable.

    An agent that waited for an unusable package would keep the others from being used.
    """

    model: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Nothing new is to come; what runs is to be finished."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing runs any more."""


Event = Listening | Settled | Drain | Idle


class Lifecycle:
    """Starts in `starting`; an event that does not fit the phase changes nothing."""

    def __init__(self, keep_warm: Iterable[str]) -> None:
        self.phase = Phase.STARTING
        self._awaited = set(keep_warm)

    @property
    def ready(self) -> bool:
        """Traffic is welcome."""
        return self.phase is Phase.READY

    @property
    def draining(self) -> bool:
        """The agent is leaving, or has left."""
        return self.phase in (Phase.DRAINING, Phase.STOPPED)

    def on(self, event: Event) -> Phase:
        """The phase after an event."""
        match event, self.phase:
            case Listening(), Phase.STARTING:
                self.phase = Phase.WARMING
            case Settled(model), _:
                self._awaited.discard(model)
            case Drain(), Phase.STARTING | Phase.WARMING | Phase.READY:
                self.phase = Phase.DRAINING
            case Idle(), Phase.DRAINING:
                self.phase = Phase.STOPPED
        if self.phase is Phase.WARMING and not self._awaited:
            self.phase = Phase.READY
        return self.phase
