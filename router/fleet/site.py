"""The ledger's own records: one per endpoint, and one per model version that it holds.

Only the ledger writes them. Everyone else sees a `Holding` as a `Candidate`.
"""

from collections.abc import Iterable

from router.fleet.endpoint import Endpoint, Tier
from router.fleet.latency import Ewma
from router.fleet.outlier import UNPROVEN
from router.geo.network import RttWindow
from router.wire.report import CallReport, EndpointReport, HeldModel, ModelState, version_order

PRIOR_SERVICE_S = 0.02
PRIOR_LOAD_S = 1.0
_LEAST_S = 1e-9
"""No wait at all, as a positive time."""
REPORT_LASTS_S = 10.0
"""What one replica of a cloud region said counts for this long."""


class Site:
    """What is known of one endpoint, whatever the model."""

    __slots__ = (
        "_reports",
        "_told",
        "boot",
        "draining",
        "endpoint",
        "generation",
        "health",
        "holdings",
        "in_flight",
        "net_s",
        "network",
        "open_sequences",
        "probed_s",
        "probing",
        "reported_in_flight",
        "seen_sequence",
        "slots",
        "stale",
        "unseen",
        "views",
    )

    def __init__(self, endpoint: Endpoint, prior_rtt_s: float) -> None:
        self.endpoint = endpoint
        self.boot: str | None = None
        self.health = UNPROVEN
        self.draining = False
        self.network = RttWindow()
        self.net_s = prior_rtt_s
        self.slots = 1
        self.in_flight = 0
        self.unseen = 0
        self.views = 1
        self.reported_in_flight = 0
        self.generation = -1
        self.seen_sequence = 0
        self.open_sequences: list[int] = []
        self.holdings: dict[tuple[str, str], Holding] = {}
        self.probed_s = float("-inf")
        self.probing = False
        self.stale = True
        self._reports: dict[str, tuple[int, int, float]] = {}
        self._told: dict[str, int] = {}

    @property
    def proven(self) -> bool:
        """Its first probe has been answered or missed."""
        return self.health is not UNPROVEN

    @property
    def out(self) -> str | None:
        """Why no traffic may go here (None: it may)."""
        return "draining" if self.draining else self.health.out

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
        if not self._is_news(report.instance, report.sequence):
            return
        self._note(report.instance, report.sequence, report.in_flight, now_s)
        self.slots = max(1, report.slots)
        self.seen_sequence = max(self.seen_sequence, report.seq_seen)
        if self.endpoint.tier is Tier.EDGE and report.models_generation != self.generation:
            self.stale = True
        self.refresh()

    def told(self, report: EndpointReport, seen_sequence: int, now_s: float) -> None:
        """The full report of a probe."""
        if report.sequence <= self._told.get(report.instance, -1):
            return
        if self._is_news(report.instance, report.sequence):
            self._note(report.instance, report.sequence, report.in_flight, now_s)
        self._told = {i: s for i, s in self._told.items() if i in self._reports}
        self._told[report.instance] = report.sequence
        self.slots = max(1, report.slots)
        self.seen_sequence = max(self.seen_sequence, seen_sequence)
        self.views = max(1, len({sender.rpartition(".")[0] for sender in report.seen}))
        self.draining = report.draining
        self.generation = report.models_generation
        self.hold(report.models, now_s)
        self.refresh()

    def hold(self, models: Iterable[HeldModel], now_s: float) -> None:
        """These model versions are here, and no others."""
        named = {(m.name, m.version): m for m in models if m.state is not ModelState.ABSENT}
        for gone in self.holdings.keys() - named.keys():
            del self.holdings[gone]
        for key, model in named.items():
            holding = self.holdings.get(key)
            if holding is None:
                holding = self.holdings[key] = Holding(self, model.name, model.version)
            if model.load_s is not None:
                holding.load_s = model.load_s
            holding.saw(model.state, now_s)

    def refresh(self) -> None:
        """Count anew what is in flight here."""
        own = self.open_sequences
        unseen = 0
        while unseen < len(own) and own[-1 - unseen] > self.seen_sequence:
            unseen += 1
        self.unseen = unseen
        self.in_flight = max(self.reported_in_flight + unseen, len(own))

    def settle_net(self, now_s: float) -> None:
        """Take over the measured round trip."""
        measured_s = self.network.estimate(now_s)
        if measured_s is not None:
            self.net_s = measured_s

    def _is_news(self, instance: str, sequence: int) -> bool:
        present = self._reports.get(instance)
        return present is None or sequence > present[0]

    def _note(self, instance: str, sequence: int, in_flight: int, now_s: float) -> None:
        """An agent is one instance; a cloud region is the sum of its instances' newest reports."""
        if self.endpoint.tier is Tier.EDGE and instance not in self._reports:
            self._reports.clear()
            self.seen_sequence = 0  # a new process has seen nothing of ours yet
        self._reports[instance] = (sequence, in_flight, now_s)
        fresh = {i: r for i, r in self._reports.items() if now_s - r[2] <= REPORT_LASTS_S}
        self._reports = fresh
        self.reported_in_flight = sum(count for _, count, _ in fresh.values())


class Holding:
    """One model version on one endpoint. Satisfies `Candidate`."""

    __slots__ = (
        "_infer",
        "_site",
        "_wait",
        "full_until_s",
        "load_s",
        "model",
        "service_s",
        "state",
        "version",
        "warm_at_s",
        "woken",
        "woken_until_s",
    )

    def __init__(self, site: Site, model: str, version: str) -> None:
        self._site = site
        self.model = model
        self.version = version
        self.state = ModelState.COLD
        self.service_s = PRIOR_SERVICE_S
        self._infer = Ewma(PRIOR_SERVICE_S)
        self._wait = RttWindow()
        self.load_s = PRIOR_LOAD_S
        self.warm_at_s = 0.0
        self.full_until_s = 0.0
        self.woken = False
        self.woken_until_s = 0.0

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        return self._site.endpoint

    @property
    def slots(self) -> int:
        """How many requests run there at once."""
        return self._site.slots

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
    def net_s(self) -> float:
        """The round trip from this router."""
        return self._site.net_s

    @property
    def out(self) -> str | None:
        """Why no traffic may go there (None: it may)."""
        return self._site.out

    def served(self, wait_s: float, infer_s: float, now_s: float) -> None:
        """It answered after this wait and run.

        The least wait lately seen is no queue but what the endpoint adds to every request (a proxy
        and a hop, on the cloud tier), so it belongs to the service.
        """
        self._infer.observe(infer_s, now_s)
        self._wait.observe(max(wait_s, _LEAST_S), now_s)
        self.service_s = self._infer.value + (self._wait.estimate(now_s) or 0.0)
        self.saw(ModelState.WARM, now_s)

    def saw(self, state: ModelState, now_s: float) -> None:
        """The model was seen in this state."""
        loading = state in (ModelState.LOADING, ModelState.WARMING)
        if loading and self.state not in (ModelState.LOADING, ModelState.WARMING):
            self.warm_at_s = now_s + self.load_s
        if state is not ModelState.COLD:
            self.woken = False
        self.state = state
