"""One place that can serve, its state at one instant, and all of them: views that nobody writes.

The ledger's own records satisfy `Candidate`; tests and simulations build `FrozenCandidate`s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from isochrone.router.fleet.congestion import price, turns_ahead
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.wire.report import ModelState

ANY_COUNT = 1 << 30
"""A limit that nothing reaches."""


UNLOADED = (ModelState.COLD, ModelState.DRAINING)
"""A call loads a model in one of these states. An endpoint that is unloading it (evicted, replaced,
or on demand) lets running calls end, frees its memory, and then loads it for the next call."""


class Candidate(Protocol):
    """One version of one model on one endpoint, as it is known at this instant.

    Load: `in_flight` counts what the endpoint reported and what was sent since; `unseen` is the
    part of our own that its last report could not have seen, `views` how many routers send there;
    `slots` run at once, at `limit` it refuses more. Seconds: `net_s` is the round trip from this
    router and `byte_s` what each payload byte adds to it; `service_s` is one request of
    `mean_bytes` alone in a slot and `service_byte_s` what each further byte adds; `turn_s` is how
    long whatever runs there holds a slot, and `wait` how long a request sent now should wait, with
    its variance. `load_s` is a cold start from disk, `warm_at_s` when a load under way
    should be done, `woken` that a wake is on its way.
    State: `full_until_s` is when asking again makes sense after it said that it is full; `out` why
    no traffic may go there (None: it may); `held` why only trials may go there, from
    `held_until_s` on and one at a time (`trial`: one is under way); `ramp_from_s` is when it began
    its slow start. `base_s` and `rank_byte_s` are its rank without load, kept ready for a request
    of any length (see `fleet.rank`), `base_s` infinite where the rank must be worked out; `rank_s`
    is the rank of a request without a body. `able`: it is neither out nor without the model, or out
    because it has just fallen silent, and so can serve now or may before long.
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
    def limit(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def unseen(self) -> int: ...
    @property
    def expected(self) -> float: ...
    @property
    def net_s(self) -> float: ...
    @property
    def net_variance(self) -> float: ...
    @property
    def byte_s(self) -> float: ...
    @property
    def turn_s(self) -> float: ...
    @property
    def wait(self) -> tuple[float, float]: ...
    @property
    def service_s(self) -> float: ...
    @property
    def service_variance(self) -> float: ...
    @property
    def service_byte_s(self) -> float: ...
    @property
    def mean_bytes(self) -> float: ...
    @property
    def load_s(self) -> float: ...
    @property
    def warm_at_s(self) -> float: ...
    @property
    def woken(self) -> bool: ...
    @property
    def full_until_s(self) -> float: ...
    @property
    def out(self) -> str | None: ...
    @property
    def held(self) -> str | None: ...
    @property
    def held_until_s(self) -> float: ...
    @property
    def trial(self) -> bool: ...
    @property
    def ramp_from_s(self) -> float: ...
    @property
    def base_s(self) -> float: ...
    @property
    def rank_byte_s(self) -> float: ...
    @property
    def rank_s(self) -> float: ...
    @property
    def occupancy(self) -> "SlotUse": ...
    @property
    def able(self) -> bool: ...


class SlotUse(Protocol):
    """How slots are used.

    `congestion_s` prices one more request, infinite where there is no `has_room`: it has as many
    requests as its limit.
    """

    @property
    def slots(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def congestion_s(self) -> float: ...
    @property
    def has_room(self) -> bool: ...


class Shortlist(Protocol):
    """The lawful candidates for one model, for one set of regions.

    `near` are all of them, or the nearest few of many, and then `far` the others; `nearest` has the
    shortest round trip. `holders` counts the endpoints that hold the model, `beside` those of them
    that are not lawful, `elsewhere` those that do not hold it.
    """

    @property
    def near(self) -> Sequence[Candidate]: ...
    @property
    def far(self) -> Sequence[Candidate]: ...
    @property
    def nearest(self) -> Candidate | None: ...
    @property
    def holders(self) -> int: ...
    @property
    def beside(self) -> int: ...
    @property
    def elsewhere(self) -> int: ...


class Fleet(Protocol):
    """All candidates, by model."""

    @property
    def generation(self) -> int:
        """Grows whenever an endpoint joins or leaves."""
        ...

    def candidates(self, model: str, version: str | None) -> Sequence[Candidate]:
        """Who holds that version; without one, each endpoint's active one."""
        ...

    def shortlist(
        self, model: str, version: str | None, regions: frozenset[str] | None
    ) -> Shortlist:
        """Of these, those in one of the regions (None: in any)."""
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
    limit: int = ANY_COUNT
    in_flight: int = 0
    unseen: int = 0
    drift: float = 0.0
    net_s: float = 0.01
    net_variance: float = 0.0
    byte_s: float = 0.0
    service_s: float = 0.01
    service_variance: float = 0.0
    service_byte_s: float = 0.0
    mean_bytes: float = 0.0
    load_s: float = 1.0
    warm_at_s: float = 0.0
    woken: bool = False
    full_until_s: float = 0.0
    out: str | None = None
    held: str | None = None
    held_until_s: float = 0.0
    trial: bool = False
    ramp_from_s: float = -math.inf
    base_s: float = math.inf
    rank_byte_s: float = 0.0

    @property
    def occupancy(self) -> "FrozenCandidate":
        """Its own."""
        return self

    @property
    def congestion_s(self) -> float:
        return self.turn_s * price(self.expected, self.slots) if self.has_room else math.inf

    @property
    def rank_s(self) -> float:
        return self.base_s + self.congestion_s

    @property
    def expected(self) -> float:
        """Those that are there, and how many more there will be."""
        return self.in_flight + self.drift

    @property
    def able(self) -> bool:
        """As far as health and the model go."""
        return self.out is None and self.state is not ModelState.ABSENT

    @property
    def has_room(self) -> bool:
        """As far as its limit goes."""
        return self.in_flight < self.limit

    @property
    def turn_s(self) -> float:
        """Nothing else runs there."""
        return self.service_s

    @property
    def wait(self) -> tuple[float, float]:
        """What nobody has measured better; as uncertain as it is long."""
        wait_s = self.turn_s * turns_ahead(self.in_flight, self.slots)
        return wait_s, wait_s * wait_s
