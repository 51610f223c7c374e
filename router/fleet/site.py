"""The ledger's record of one endpoint, and of each request that is there."""

import math
from collections.abc import Iterable

import msgspec

from isochrone.router.fleet.breaker import Tolerance
from isochrone.router.fleet.holding import LOADING, Holding
from isochrone.router.fleet.occupancy import Occupancy
from isochrone.router.fleet.outlier import UNPROVEN, Health
from isochrone.router.fleet.priors import Priors
from isochrone.router.fleet.waiting import WaitCurve
from isochrone.router.geo.network import Path
from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.wire.report import (
    CallReport,
    EndpointReport,
    HeldModel,
    ModelState,
    version_order,
)

_SIGMAS = 4
RETURN_S = 30.0
"""What has fallen silent may be back before long, if it was heard of in this time."""


class Lease(msgspec.Struct, eq=False):
    """One request at an endpoint; closing it twice is the same as once.

    `place` is the load that it was sent at, `cold_s` how long it may have to wait for a load of the
    model. `vouched`: the endpoint itself has answered. `trial`: it tests a quarantine.
    """

    site: "Site"
    holding: Holding | None
    sequence: int
    sent_s: float
    body_bytes: int
    place: int
    cold_s: float = 0.0
    answered: bool = False
    vouched: bool = False
    trial: bool = False
    open: bool = True


class Site:
    """What is known of one endpoint, whatever the model."""

    __slots__ = (
        "_told",
        "boot",
        "curve",
        "degraded",
        "draining",
        "endpoint",
        "generation",
        "health",
        "heard_s",
        "holdings",
        "late_s",
        "occupancy",
        "open",
        "path",
        "priors",
        "probe_rtt_s",
        "probed_s",
        "probing",
        "ramp_from_s",
        "sent_s",
        "silent",
        "stale",
        "tolerance",
        "trial",
        "wake_s",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        path: Path,
        priors: Priors,
        curve: WaitCurve,
        tolerance: Tolerance,
    ) -> None:
        self.endpoint = endpoint
        self.priors = priors
        self.curve = curve
        self.tolerance = tolerance
        self.boot: str | None = None
        self.health = UNPROVEN
        self.draining = False
        self.degraded: tuple[str, ...] = ()
        """What it says that it does less well than it should."""
        self.trial = False
        self.ramp_from_s = -math.inf
        self.path = path
        self.occupancy = Occupancy(one_process=endpoint.tier is Tier.EDGE)
        self.open: dict[int, Lease] = {}
        self.late_s = 0.0
        self.generation = -1
        self.holdings: dict[tuple[str, str], Holding] = {}
        self.heard_s = -math.inf
        self.sent_s = -math.inf
        self.wake_s = -math.inf
        self.probed_s = -math.inf
        self.probing = False
        self.probe_rtt_s = 0.0
        """The round trip of the last probe that was answered."""
        self.silent = False
        """It is out, or nearly, because probes were neither answered nor refused."""
        self.stale = True
        self._told: dict[str, int] = {}

    @property
    def net_s(self) -> float:
        """The round trip from this router."""
        return self.path.mean_s

    @property
    def proven(self) -> bool:
        """Its first probe has been answered or missed."""
        return self.health is not UNPROVEN

    @property
    def out(self) -> str | None:
        """Why no traffic may go here (None: it may)."""
        if self.draining:
            return "draining"
        return None if self.health.trials else self.health.out

    @property
    def probe_rtt_most_s(self) -> float:
        """By then a probe should be back: a round trip for a connection, and one for the answer."""
        return 2 * max(self.path.mean_s, self.probe_rtt_s) + _SIGMAS * self.path.sigma_s

    def may_return(self, now_s: float) -> bool:
        """It is out because it has fallen silent, not long ago."""
        return self.silent and not self.draining and now_s < self.heard_s + RETURN_S

    @property
    def loading(self) -> bool:
        """Some model is on its way to be warm."""
        return any(holding.state in LOADING for holding in self.holdings.values())

    @property
    def cooling(self) -> bool:
        """Some model is warm that is not kept for ever."""
        return any(h.falls_cold and h.state is ModelState.WARM for h in self.holdings.values())

    def active(self) -> Iterable[Holding]:
        """Of each model, the version that a request without one gets here.

        The endpoint says which; of one that does not, it is the highest.
        """
        active: dict[str, Holding] = {}
        for holding in self.holdings.values():
            present = active.get(holding.model)
            if present is None or _precedence(holding) > _precedence(present):
                active[holding.model] = holding
        return active.values()

    def differs(self, models: Iterable[HeldModel]) -> bool:
        """These models are not, or not in these states, what is known to be here."""
        said = {(m.name, m.version): m.state for m in models if m.state is not ModelState.ABSENT}
        return said != {key: holding.state for key, holding in self.holdings.items()}

    def heard(self, report: CallReport, now_s: float, ended_count: int = 0) -> None:
        """The brief report of one answer; `ended_count` of ours are open still, but not there."""
        self.heard_s = now_s
        occupancy = self.occupancy
        if not occupancy.hears(report.instance, report.sequence, report.in_flight, now_s):
            return
        occupancy.slots = report.slots or 1
        if report.seq_seen > occupancy.seen_sequence:
            occupancy.seen_sequence = report.seq_seen
        if report.models_generation != self.generation and self.endpoint.tier is Tier.EDGE:
            self.stale = True
        occupancy.count(self.open, self.path.mean_s, ended_count)

    def told(self, report: EndpointReport, seen_sequence: int, now_s: float) -> None:
        """The full report of a probe."""
        self.heard_s = now_s
        if report.sequence <= self._told.get(report.instance, -1):
            return
        occupancy = self.occupancy
        occupancy.hears(report.instance, report.sequence, report.in_flight, now_s)
        self._told = {i: s for i, s in self._told.items() if occupancy.knows(i)}
        self._told[report.instance] = report.sequence
        occupancy.slots = max(1, report.slots)
        occupancy.seen_sequence = max(occupancy.seen_sequence, seen_sequence)
        occupancy.count(self.open, self.path.mean_s)
        self.draining = report.draining
        self.degraded = report.pressure.degraded
        self.generation = report.models_generation
        self.hold(report.models, now_s)
        self.settle(now_s)

    def hold(self, models: Iterable[HeldModel], now_s: float) -> None:
        """These model versions are here, and no others."""
        named = {(m.name, m.version): m for m in models if m.state is not ModelState.ABSENT}
        for gone in self.holdings.keys() - named.keys():
            self.holdings.pop(gone).leave()
        for key, model in named.items():
            holding = self.holdings.get(key)
            if holding is None:
                holding = self.holdings[key] = Holding(self, model.name, model.version)
            holding.expect(model.load_s, now_s)
            holding.saw(model.state, now_s)
            holding.active = model.active

    def settle(self, now_s: float) -> None:
        """Work out every rank anew."""
        for holding in self.holdings.values():
            holding.settle(now_s)
        self.occupancy.count(self.open)

    def leave(self) -> None:
        """It is no member any more; whoever still holds on to it sees that."""
        self.health = Health(out="left")
        for holding in self.holdings.values():
            holding.leave()


def _precedence(holding: Holding) -> tuple[bool, tuple[tuple[int, int | str], ...]]:
    return holding.active is True, version_order(holding.version)
