"""One place that can serve, its state at one instant, and all of them: views that nobody writes.

The ledger's own records satisfy `Candidate`; tests and simulations build `FrozenCandidate`s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from router.wire.report import ModelState


class Tier(StrEnum):
    """Where an endpoint sits."""

    EDGE = "edge"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An edge agent, or one region's cloud ingress."""

    name: str
    url: str
    region: str
    zone: str = ""
    tier: Tier = Tier.EDGE
    hardware_class: str = "unknown"
    reports: bool = True


class Candidate(Protocol):
    """One version of one model on one endpoint, as it is known at this instant.

    `in_flight` counts what the endpoint reported and what was sent since; `unseen` is the part of
    our own that its last report could not have seen, `views` how many routers send there. `net_s`
    is the round trip from this router, `service_s` one request alone in a slot, `load_s` a cold
    start from disk. `warm_at_s` is when a load under way should be done; `full_until_s` when asking
    again makes sense after it said that it is full; `woken` says that a wake is on its way. `out`
    is the text why no traffic may go there (None: it may).
    """

    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def version(self) -> str: ...
    @property
    def state(self) -> ModelState: ...
    @property
    def slots(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def unseen(self) -> int: ...
    @property
    def views(self) -> int: ...
    @property
    def net_s(self) -> float: ...
    @property
    def service_s(self) -> float: ...
    @property
    def load_s(self) -> float: ...
    @property
    def warm_at_s(self) -> float: ...
    @property
    def full_until_s(self) -> float: ...
    @property
    def woken(self) -> bool: ...
    @property
    def out(self) -> str | None: ...


class Fleet(Protocol):
    """All candidates, by model."""

    @property
    def generation(self) -> int:
        """Grows whenever an endpoint joins or leaves."""
        ...

    def candidates(self, model: str, version: str | None) -> Sequence[Candidate]:
        """Who holds that version; without one, each endpoint's newest."""
        ...

    def elsewhere(self, model: str, version: str | None) -> int:
        """How many endpoints do not hold it."""
        ...


@dataclass(frozen=True, slots=True)
class FrozenCandidate:
    """A candidate whose state is given."""

    endpoint: Endpoint
    version: str = "1"
    state: ModelState = ModelState.WARM
    slots: int = 1
    in_flight: int = 0
    unseen: int = 0
    views: int = 1
    net_s: float = 0.01
    service_s: float = 0.01
    load_s: float = 1.0
    warm_at_s: float = 0.0
    full_until_s: float = 0.0
    woken: bool = False
    out: str | None = None


@dataclass(frozen=True, slots=True)
class FrozenFleet:
    """A fleet that holds exactly these candidates, all for one model."""

    held: tuple[Candidate, ...] = ()
    generation: int = 1

    def candidates(self, model: str, version: str | None) -> Sequence[Candidate]:
        """Every candidate of that version."""
        del model
        return [c for c in self.held if version is None or c.version == version]

    def elsewhere(self, model: str, version: str | None) -> int:
        """Those of another version."""
        return len(self.held) - len(self.candidates(model, version))
