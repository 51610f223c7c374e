"""The ledger's own records: one per endpoint, and one per model version that it holds.

Only the ledger writes them. Everyone else sees a `Holding` as a `Candidate`.
"""

import math
from collections.abc import Iterable

from router.fleet.breaker import Breaker, Tolerance
from router.fleet.congestion import others_share, price
from router.fleet.endpoint import ANY_COUNT, Endpoint, Tier
from router.fleet.latency import Ewma, ServiceTime
from router.fleet.outlier import UNPROVEN, Health
from router.fleet.priors import SERVICE_S, Priors
from router.fleet.slowstart import RAMP_S
from router.fleet.waiting import WaitCurve, place
from router.geo.network import Path, RttWindow
from router.wire.report import CallReport, EndpointReport, HeldModel, ModelState, version_order

_LEAST_S = 1e-9
"""No wait at all, as a positive time."""
REPORT_LASTS_S = 10.0
"""What one replica of a cloud region said counts for this long."""
LEAST_TURN_S = 1e-4
"""Whatever an endpoint says, it holds a slot for as long as this."""
TEACH_S = 1.0
"""How often an endpoint's own estimate teaches what to expect of its like."""
LIMIT_LASTS_S = 10.0
"""How long the load at which an endpoint refused is not sent there again."""
_LOADING = (ModelState.LOADING, ModelState.WARMING)


class Lease:
    """One request that is at an endpoint; closing it twice is the same as once.

    `trial` says that it tests a quarantine. `place` is the load that it was sent at, `cold_s` how
    long it may have to wait for a load of the model.
    """

    __slots__ = (
        "answered",
        "body_bytes",
        "cold_s",
        "holding",
        "open",
        "place",
        "sent_s",
        "sequence",
        "site",
        "trial",
    )

    def __init__(
        self, site: "Site", holding: "Holding | None", sequence: int, sent_s: float, body_bytes: int
    ) -> None:
        self.site = site
        self.holding = holding
        self.sequence = sequence
        self.sent_s = sent_s
        self.body_bytes = body_bytes
        self.place = place(site.in_flight, site.slots)
        self.cold_s = 0.0
        self.answered = False
        self.trial = False
        self.open = True


class Site:
    """What is known of one endpoint, whatever the model."""

    __slots__ = (
        "_reports",
        "_told",
        "_turn",
        "boot",
        "congestion_s",
        "curve",
        "draining",
        "endpoint",
        "generation",
        "health",
        "heard_s",
        "holdings",
        "in_flight",
        "late_s",
        "limit",
        "limit_until_s",
        "open",
        "others",
        "path",
        "priors",
        "probed_s",
        "probing",
        "ramp_from_s",
        "reported_in_flight",
        "seen_sequence",
        "sent_s",
        "slots",
        "stale",
        "tolerance",
        "trial",
        "unseen",
        "views",
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
        self.trial = False
        self.ramp_from_s = -math.inf
        self.path = path
        self.slots = 1
        self.limit = ANY_COUNT
        self.limit_until_s = 0.0
        self.in_flight = 0
        self.unseen = 0
        self.views = 1
        self.others = others_share(1)
        self.late_s = 0.0
        self.congestion_s = 0.0
        self.reported_in_flight = 0
        self.generation = -1
        self.seen_sequence = 0
        self.open: dict[int, Lease] = {}
        self.holdings: dict[tuple[str, str], Holding] = {}
        self.heard_s = -math.inf
        self.sent_s = -math.inf
        self.wake_s = -math.inf
        self.probed_s = -math.inf
        self.probing = False
        self.stale = True
        self._turn = Ewma(SERVICE_S)
        self._reports: dict[str, tuple[int, int, float]] = {}
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
    def turn_s(self) -> float:
        """How long what runs here holds a slot."""
        return max(self._turn.value, LEAST_TURN_S)

    @property
    def loading(self) -> bool:
        """Some model is on its way to be warm."""
        return any(holding.state in _LOADING for holding in self.holdings.values())

    @property
    def cooling(self) -> bool:
        """Some model is warm that is not kept for ever."""
        return any(h.falls_cold and h.state is ModelState.WARM for h in self.holdings.values())

    def newest(self) -> Iterable["Holding"]:
        """The newest version of each model."""
        newest: dict[str, Holding] = {}
        for holding in self.holdings.values():
            present = newest.get(holding.model)
            if present is None or version_order(holding.version) > version_order(present.version):
                newest[holding.model] = holding
        return newest.values()

    def heard(self, report: CallReport, now_s: float) -> None:
        """The brief report of one answer."""
        self.heard_s = now_s
        if not self._is_news(report.instance, report.sequence):
            return
        self._note(report.instance, report.sequence, report.in_flight, now_s)
        self.slots = report.slots or 1
        if report.seq_seen > self.seen_sequence:
            self.seen_sequence = report.seq_seen
        if report.models_generation != self.generation and self.endpoint.tier is Tier.EDGE:
            self.stale = True
        self.refresh()

    def told(self, report: EndpointReport, seen_sequence: int, now_s: float) -> None:
        """The full report of a probe."""
        self.heard_s = now_s
        if report.sequence <= self._told.get(report.instance, -1):
            return
        if self._is_news(report.instance, report.sequence):
            self._note(report.instance, report.sequence, report.in_flight, now_s)
        self._told = {i: s for i, s in self._told.items() if i in self._reports}
        self._told[report.instance] = report.sequence
        self.slots = max(1, report.slots)
        self.seen_sequence = max(self.seen_sequence, seen_sequence)
        self.views = max(1, len({sender.rpartition(".")[0] for sender in report.seen}))
        self.others = others_share(self.views)
        self.draining = report.draining
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
            self._teach(holding, model.load_s, now_s)
            holding.saw(model.state, now_s)

    def ran(self, infer_s: float, now_s: float) -> None:
        """Something held a slot here for so long."""
        self._turn.observe(infer_s, now_s)

    def fill(self, count: int, now_s: float) -> None:
        """It refused when so many were here; for a while that counts as its limit."""
        self.limit = max(self.slots, count)
        self.limit_until_s = now_s + LIMIT_LASTS_S

    def refresh(self) -> None:
        """Count anew what is in flight here, and what that makes of every rank."""
        own = self.open
        unseen, seen = 0, self.seen_sequence
        for sequence in reversed(own):
            if sequence <= seen:
                break
            unseen += 1
        self.unseen = unseen
        in_flight = self.reported_in_flight + unseen
        if in_flight < len(own):
            in_flight = len(own)
        self.in_flight = in_flight
        if in_flight >= self.limit:
            congestion_s = math.inf
        else:
            load = (in_flight + self.others * unseen + 1) / self.slots
            congestion_s = self.turn_s * price(load, self.slots)
        self.congestion_s = congestion_s
        for holding in self.holdings.values():
            holding.rank_s = holding.base_s + congestion_s

    def settle(self, now_s: float) -> None:
        """Work out every rank anew."""
        for holding in self.holdings.values():
            holding.settle(now_s)
        self.refresh()

    def leave(self) -> None:
        """It is no member any more; whoever still holds on to it sees that."""
        self.health = Health(out="left")
        for holding in self.holdings.values():
            holding.leave()

    def _teach(self, holding: "Holding", load_s: float | None, now_s: float) -> None:
        """What this endpoint shows of a model is what its like are expected to do."""
        hardware_class = self.endpoint.hardware_class
        if load_s is not None and load_s != holding.measured_load_s:
            holding.measured_load_s = load_s
            self.priors.loaded(holding.model, hardware_class, load_s, now_s)
        if not holding.service.measured:
            holding.service.expect(self.priors.service_s(holding.model, hardware_class))

    def _is_news(self, instance: str, sequence: int) -> bool:
        present = self._reports.get(instance)
        return present is None or sequence > present[0]

    def _note(self, instance: str, sequence: int, in_flight: int, now_s: float) -> None:
        """An agent is one instance; a cloud region is the sum of its instances' newest reports."""
        if self.endpoint.tier is Tier.EDGE:
            if instance not in self._reports:
                self._reports.clear()
                self.seen_sequence = 0  # a new process has seen nothing of ours yet
                self.limit = ANY_COUNT
            self._reports[instance] = (sequence, in_flight, now_s)
            self.reported_in_flight = in_flight
            return
        self._reports[instance] = (sequence, in_flight, now_s)
        fresh = {i: r for i, r in self._reports.items() if now_s - r[2] <= REPORT_LASTS_S}
        self._reports = fresh
        self.reported_in_flight = sum(count for _, count, _ in fresh.values())


class Holding:
    """One model version on one endpoint. Satisfies `Candidate`."""

    __slots__ = (
        "_site",
        "_wait",
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
        "overhead_s",
        "ramps_from_s",
        "rank_byte_s",
        "rank_s",
        "sampled_s",
        "samples",
        "sampling",
        "service",
        "service_byte_s",
        "service_s",
        "state",
        "taught_s",
        "version",
        "warm_at_s",
        "woken",
        "woken_until_s",
    )

    def __init__(self, site: Site, model: str, version: str) -> None:
        self._site = site
        self.endpoint: Endpoint = site.endpoint
        self.model = model
        self.version = version
        self.state = ModelState.COLD
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
        self.base_s = math.inf
        self.rank_s = math.inf
        self.rank_byte_s = 0.0
        self.estimate()

    @property
    def site(self) -> Site:
        """The endpoint's record."""
        return self._site

    @property
    def slots(self) -> int:
        """How many requests run there at once."""
        return self._site.slots

    @property
    def limit(self) -> int:
        """With how many there it refuses more."""
        return self._site.limit

    @property
    def in_flight(self) -> int:
        """How many requests are there."""
        return self._site.in_flight

    @property
    def unseen(self) -> int:
        """How many of ours its last report could not have seen."""
        return self._site.unseen

    @property
    def views(self) -> int:
        """How many routers send there."""
        return self._site.views

    @property
    def net_sigma_s(self) -> float:
        """How single round trips differ."""
        return self._site.path.sigma_s

    @property
    def service_sigma_s(self) -> float:
        """How single requests differ."""
        return self.service.sigma_s

    @property
    def turn_s(self) -> float:
        """How long what runs there holds a slot."""
        return self._site.turn_s

    @property
    def turns(self) -> tuple[float, float]:
        """How many such turns a request sent now should wait, and how uncertain that is."""
        site = self._site
        return site.curve.turns(place(site.in_flight, site.slots))

    @property
    def load_s(self) -> float:
        """A cold start from disk, measured there or by its like."""
        if self.measured_load_s is not None:
            return self.measured_load_s
        return self._site.priors.load_s(self.model, self.endpoint.hardware_class)

    @property
    def out(self) -> str | None:
        """Why no traffic may go there (None: it may)."""
        return "left" if self.gone else self._site.out

    @property
    def held(self) -> str | None:
        """Why only trials may go there (None: anything may)."""
        health = self._site.health
        return health.out if health.trials else self.breaker.why

    @property
    def held_until_s(self) -> float:
        """When a request may be a trial; not before a test where it can be tested without one."""
        breaker = self.breaker
        testable = self.samples and self.state is ModelState.WARM and not breaker.tested
        return math.inf if self._site.health.trials or testable else breaker.until_s

    @property
    def trial(self) -> bool:
        """One is under way."""
        return self._site.trial or self.breaker.trial

    @property
    def ramp_from_s(self) -> float:
        """When it began its slow start."""
        return max(self.ramps_from_s, self._site.ramp_from_s)

    def served(self, wait_s: float, infer_s: float, body_bytes: int, now_s: float) -> None:
        """It answered after this wait and run."""
        self.service.observe(infer_s, body_bytes, now_s)
        if now_s - self.taught_s >= TEACH_S:
            self.taught_s = now_s
            site = self._site
            hardware_class = site.endpoint.hardware_class
            site.priors.served(self.model, hardware_class, self.service.mean_s, now_s)
        if self._wait is not None:
            self._wait.observe(max(wait_s, _LEAST_S), now_s)
            self.overhead_s = self._wait.estimate(now_s) or 0.0
        if self.state is ModelState.WARM:
            self.renew()
        else:
            self.saw(ModelState.WARM, now_s)
            self.settle(now_s)

    def saw(self, state: ModelState, now_s: float) -> None:
        """The model was seen in this state."""
        if state in _LOADING and self.state not in _LOADING:
            self.warm_at_s = now_s + self.load_s
        if state is not ModelState.COLD:
            self.woken = False
        elif self.state is ModelState.WARM:
            self.falls_cold = True
            self.missed_s = 0.0
        self.state = state

    def estimate(self) -> None:
        """Take over what is known of the way there and of the service."""
        site, service = self._site, self.service
        path = site.path
        self.net_s = path.mean_s
        self.byte_s = path.byte_s
        self.mean_bytes = service.mean_bytes
        self.service_byte_s = service.byte_s
        self.service_s = max(service.mean_s, site.late_s) + self.overhead_s

    def settle(self, now_s: float) -> None:
        """Keep the part of its rank that does not depend on load; infinite where time decides."""
        self.base_s = 0.0 if self._plain(now_s) else math.inf
        self.renew()

    def renew(self) -> None:
        """The same, where nothing but the estimates has changed."""
        self.estimate()
        if self.base_s < math.inf:
            slope_s = self.service_byte_s
            self.rank_byte_s = self.byte_s + slope_s
            self.base_s = self.net_s + self.service_s - slope_s * self.mean_bytes
        self.rank_s = self.base_s + self._site.congestion_s

    def leave(self) -> None:
        """It is not held any more."""
        self.gone = True
        self.base_s = self.rank_s = math.inf

    def _plain(self, now_s: float) -> bool:
        return (
            self.state is ModelState.WARM
            and self.full_until_s <= now_s
            and self.out is None
            and self.held is None
            and now_s >= self.ramp_from_s + RAMP_S
        )
