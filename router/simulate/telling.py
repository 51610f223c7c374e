"""What a simulated endpoint says of itself, in the words that agents use (`wire.report`)."""

from collections.abc import Sized
from typing import Protocol

from isochrone.router.simulate.engine import Engine
from isochrone.router.simulate.visit import Visit
from isochrone.router.simulate.warmth import Warmth
from isochrone.router.wire.report import (
    WIRE_VERSION,
    CallReport,
    EndpointReport,
    HeldModel,
    ModelState,
    Waking,
)

VERSION = "1"
"""The only version of the only model there is."""
_NEWEST_SHARE = 0.2
_SILENT_S = 60.0
"""A sender that has sent nothing for so long is not named any more."""


class Teller(Protocol):
    """The endpoint that tells."""

    name: str
    region: str
    slots: int
    warmth: Warmth

    @property
    def in_flight(self) -> int:
        """What runs and what waits."""
        ...

    @property
    def queued(self) -> int:
        """What waits."""
        ...

    @property
    def active(self) -> Sized:
        """What runs."""
        ...


class Telling:
    """Its reports, its recent service times, and the highest number seen of every sender."""

    def __init__(self, endpoint: Teller, model: str, engine: Engine) -> None:
        self.service_s = 0.0
        """The recent service time of any call; 0 where there was none."""
        self._endpoint = endpoint
        self._model = model
        self._engine = engine
        self._boot = 1
        self._instance = f"{endpoint.name}.1"
        self._sequence = 0
        self._seen: dict[str, tuple[int, float]] = {}
        self._latency_s: dict[int, float] = {}

    def restart(self) -> None:
        """A new process knows nothing of what the old one saw."""
        self._boot += 1
        self._instance = f"{self._endpoint.name}.{self._boot}"
        self._sequence = 0
        self._seen.clear()
        self._latency_s.clear()
        self.service_s = 0.0

    @property
    def instance(self) -> str:
        """The name of this process, and of no other."""
        return self._instance

    def note(self, visit: Visit) -> None:
        """A request has come; one without a sender is not numbered."""
        if not visit.sender:
            return
        highest, _ = self._seen.get(visit.sender, (0, 0.0))
        self._seen[visit.sender] = max(highest, visit.sequence), self._engine.now_s

    def served(self, infer_s: float) -> None:
        """Fold in one service time, at as many as run beside it."""
        running = len(self._endpoint.active)
        before_s = self._latency_s.get(running, infer_s)
        self._latency_s[running] = before_s + _NEWEST_SHARE * (infer_s - before_s)
        before_s = self.service_s or infer_s
        self.service_s = before_s + _NEWEST_SHARE * (infer_s - before_s)

    @property
    def latency_s(self) -> float:
        """The recent service time at as many as run now."""
        running = max(1, len(self._endpoint.active))
        return self._latency_s.get(running, self.service_s)

    def call(self, visit: Visit) -> CallReport:
        """What goes with one answer; made when its slot is free again."""
        seen = self._seen.get(visit.sender, (0, 0.0))[0]
        return self._brief(visit.wait_s, visit.infer_s, seen)

    def probe(self) -> CallReport:
        """The same for who only asks how it is."""
        return self._brief(0.0, 0.0, 0)

    def _brief(self, wait_s: float, infer_s: float, seen: int) -> CallReport:
        self._sequence += 1
        endpoint = self._endpoint
        return CallReport(
            instance=self._instance,
            sequence=self._sequence,
            in_flight=endpoint.in_flight,
            slots=endpoint.slots,
            latency_s=self.latency_s,
            wait_s=wait_s,
            infer_s=infer_s,
            models_generation=endpoint.warmth.generation,
            seq_seen=seen,
        )

    def full(self) -> EndpointReport:
        """Everything."""
        self._sequence += 1
        endpoint = self._endpoint
        since_s = self._engine.now_s - _SILENT_S
        return EndpointReport(
            wire_version=WIRE_VERSION,
            name=endpoint.name,
            region=endpoint.region,
            instance=self._instance,
            sequence=self._sequence,
            in_flight=endpoint.in_flight,
            slots=endpoint.slots,
            queued=endpoint.queued,
            ready=True,
            draining=False,
            models_generation=endpoint.warmth.generation,
            models=self.models(),
            seen={name: seen for name, (seen, at_s) in self._seen.items() if at_s >= since_s},
        )

    def waking(self) -> Waking:
        """The answer to a wake."""
        (held,) = self.models()
        expected_s = 0.0 if held.state is ModelState.WARM else held.load_s
        return Waking(held.name, held.version, held.state, expected_s)

    def models(self) -> tuple[HeldModel, ...]:
        """The model that it holds, and in which state."""
        warmth = self._endpoint.warmth
        return (HeldModel(self._model, VERSION, warmth.state, warmth.measured_load_s),)
