"""The ledger's record of one model version on one endpoint."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isochrone.router.errors import IsochroneError
from isochrone.router.fleet.breaker import Breaker
from isochrone.router.fleet.latency import LEAST_S, ServiceTime
from isochrone.router.fleet.rank import line
from isochrone.router.fleet.slowstart import RAMP_S
from isochrone.router.geo.network import RttWindow
from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.wire.report import ModelState

if TYPE_CHECKING:  # each knows the other
    from isochrone.router.fleet.site import Lease, Site

_WARM = ModelState.WARM
_LEAST_S = 1e-9
"""No wait at all, as a positive time."""
MOST_TURNS = 16.0
"""Longer waits are clipped: they are about one endpoint, and the curve is for all."""
TEACH_S = 1.0
"""How often an endpoint's own estimate teaches what to expect of its like."""
LOADING = (ModelState.LOADING, ModelState.WARMING)


_WORDS = 500


@dataclass(frozen=True, slots=True)
class StandingRefusal:
    """What an endpoint has said of a model that it cannot serve, until the next report of it.

    `until_s` bounds it where nothing is reported.
    """

    kind: type[IsochroneError]
    text: str
    why: str
    until_s: float


class Holding:
    """One model version on one endpoint. Satisfies `Candidate`."""

    __slots__ = (
        "_curve",
        "_wait",
        "able",
        "active",
        "base_s",
        "breaker",
        "byte_s",
        "endpoint",
        "falls_cold",
        "full_until_s",
        "gone",
        "mean_bytes",
        "measured_load_s",
        "missed_s",
        "model",
        "net_s",
        "net_variance",
        "occupancy",
        "overhead_s",
        "ramps_from_s",
        "rank_byte_s",
        "refusal",
        "refusals",
        "refused_s",
        "sampled_s",
        "samples",
        "sampling",
        "service",
        "service_byte_s",
        "service_s",
        "service_variance",
        "site",
        "state",
        "taught_s",
        "version",
        "warm_at_s",
        "woken",
        "woken_until_s",
    )

    def __init__(self, site: "Site", model: str, version: str) -> None:
        self.site = site
        self.occupancy = site.occupancy
        self._curve = site.curve
        self.endpoint: Endpoint = site.endpoint
        self.model = model
        self.version = version
        self.state = ModelState.COLD
        self.active: bool | None = None
        """It answers requests that name no version; None: the endpoint has not said."""
        self.service = ServiceTime(site.priors.service_s(model, site.endpoint.hardware_class))
        self._wait = RttWindow() if site.endpoint.tier is Tier.CLOUD else None
        self.overhead_s = 0.0
        """The least wait lately seen: no queue, but what a proxy and a hop add on the cloud tier.

        It belongs to the service.
        """
        self.breaker = Breaker(site.tolerance)
        self.measured_load_s: float | None = None
        self.warm_at_s = 0.0
        self.full_until_s = 0.0
        self.refusals = 0
        """How often it has refused in a row; what was sent before the last one was known counts
        with it."""
        self.refused_s = -math.inf
        self.refusal: StandingRefusal | None = None
        self.taught_s = -math.inf
        self.ramps_from_s = -math.inf
        self.sampled_s = -math.inf
        self.sampling = False
        self.samples = site.endpoint.reports
        """Whether it runs the model's own sample for us."""
        self.woken = False
        self.woken_until_s = 0.0
        self.falls_cold = False
        """It was seen to be unloaded: its endpoint does not keep it for ever."""
        self.missed_s = 0.0
        """How much sooner requests would have been answered since then, had it been warm."""
        self.gone = False
        self.able = False
        self.base_s = math.inf
        self.rank_byte_s = 0.0
        self.renew()

    @property
    def slots(self) -> int:
        """How many requests run there at once."""
        return self.occupancy.slots

    @property
    def limit(self) -> int:
        """With how many there it refuses more."""
        return self.occupancy.limit

    @property
    def in_flight(self) -> int:
        """How many requests are there."""
        return self.occupancy.in_flight

    @property
    def unseen(self) -> int:
        """How many of ours its last report could not have seen."""
        return self.occupancy.unseen

    @property
    def expected(self) -> float:
        """How many will be there when a request sent now arrives."""
        return self.occupancy.expected

    @property
    def turn_s(self) -> float:
        """How long what runs there holds a slot."""
        return self.occupancy.turn_s

    @property
    def wait(self) -> tuple[float, float]:
        """How long a request sent now should wait, and the variance of that."""
        occupancy = self.occupancy
        turn_s = occupancy.turn_s
        turns, variance = self._curve.turns[occupancy.place]
        return turn_s * turns, turn_s * turn_s * variance

    @property
    def rank_s(self) -> float:
        """The kept rank of a request without a body."""
        return self.base_s + self.occupancy.congestion_s

    @property
    def load_s(self) -> float:
        """A cold start from disk, measured there or by its like."""
        if self.measured_load_s is not None:
            return self.measured_load_s
        return self.site.priors.load_s(self.model, self.endpoint.hardware_class)

    @property
    def out(self) -> str | None:
        """Why no traffic may go there (None: it may)."""
        return "left" if self.gone else self.site.out

    @property
    def held(self) -> str | None:
        """Why only trials may go there (None: anything may)."""
        health = self.site.health
        return health.out if health.trials else self.breaker.why

    @property
    def held_until_s(self) -> float:
        """When a request may be a trial; not before a test where it can be tested without one."""
        breaker = self.breaker
        testable = self.samples and self.state is ModelState.WARM and not breaker.tested
        return math.inf if self.site.health.trials or testable else breaker.until_s

    @property
    def trial(self) -> bool:
        """One is under way."""
        return self.site.trial or self.breaker.trial

    @property
    def ramp_from_s(self) -> float:
        """When it began its slow start."""
        return max(self.ramps_from_s, self.site.ramp_from_s)

    def expect(self, load_s: float | None, now_s: float) -> None:
        """What this endpoint says of a load is what its like are expected to need.

        Until it has served, what they need to serve is expected of it.
        """
        priors, hardware_class = self.site.priors, self.endpoint.hardware_class
        if load_s is not None and load_s != self.measured_load_s:
            self.measured_load_s = load_s
            priors.loaded(self.model, hardware_class, load_s, now_s)
        if not self.service.measured:
            self.service.expect(priors.service_s(self.model, hardware_class))

    def served(
        self,
        wait_s: float,
        infer_s: float,
        body_bytes: int,
        now_s: float,
        lease: "Lease | None" = None,
    ) -> None:
        """It ran this long, after this wait: a request with a `lease`, or its own sample."""
        occupancy, cold = self.occupancy, lease is not None and lease.cold_s > 0
        if lease is not None and not cold:  # waiting for a load says nothing of a queue
            turns = max(0.0, wait_s - self.overhead_s) / occupancy.turn_s
            self._curve.observe(lease.place, min(turns, MOST_TURNS), occupancy.turn_s)
        occupancy.turn_s = max(LEAST_S, occupancy.turn.observe(infer_s, now_s))
        self.service.observe(infer_s, body_bytes, now_s)
        if now_s - self.taught_s >= TEACH_S:
            self.taught_s = now_s
            site = self.site
            hardware_class = site.endpoint.hardware_class
            site.priors.served(self.model, hardware_class, self.service.mean_s, now_s)
        window = self._wait
        if window is not None and not cold:
            wait_s = max(wait_s, _LEAST_S)
            new = wait_s < window.newest_s or now_s >= window.until_s
            if new and window.observe(wait_s, now_s):
                self.overhead_s = window.estimate(now_s) or 0.0
        if self.state in (_WARM, ModelState.DRAINING):  # a call that runs outlives its model's stay
            self.renew()
        else:
            self.saw(ModelState.WARM, now_s)
            self.settle(now_s)

    def saw(self, state: ModelState, now_s: float) -> None:
        """The model was seen in this state."""
        if state in LOADING and self.state not in LOADING:
            self.warm_at_s = now_s + self.load_s
        if state is not ModelState.COLD:
            self.woken = False
        elif self.state in (ModelState.WARM, ModelState.DRAINING):
            self.falls_cold = True
            self.missed_s = 0.0
        self.state = state
        self.refusal = None

    def refused(self, error: IsochroneError, why: str, until_s: float) -> None:
        """It cannot serve, it says, in these words."""
        text = error.message[:_WORDS]
        self.refusal = StandingRefusal(type(error), text, why[:_WORDS], until_s)

    def settle(self, now_s: float) -> None:
        """Keep the part of its rank that does not depend on load; infinite where time decides."""
        there = self.out is None or (self.site.may_return(now_s) and not self.gone)
        self.able = there and self.state is not ModelState.ABSENT
        self.base_s = 0.0 if self._plain(now_s) else math.inf
        self.renew()

    def renew(self) -> None:
        """The same, where nothing but the estimates of the way and of the service has changed."""
        site, service = self.site, self.service
        path, service_s = site.path, service.mean_s
        if service_s < site.late_s:
            service_s = site.late_s
        self.service_s = service_s + self.overhead_s
        self.net_s, self.net_variance, self.byte_s = path.mean_s, path.variance, path.byte_s
        self.mean_bytes, self.service_byte_s = service.mean_bytes, service.byte_s
        self.service_variance = service.variance
        if self.base_s < math.inf:
            self.base_s, self.rank_byte_s = line(self)

    def leave(self) -> None:
        """It is not held any more."""
        self.gone = True
        self.able = False
        self.base_s = math.inf

    def _plain(self, now_s: float) -> bool:
        return (
            self.state is ModelState.WARM
            and self.full_until_s <= now_s
            and self.out is None
            and self.held is None
            and now_s >= self.ramp_from_s + RAMP_S
        )
