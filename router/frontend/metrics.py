"""What a router counts: requests, tries, decisions, how good predictions were, and its endpoints.

Labels are bounded: models that are known, endpoints that have joined, words from fixed lists.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from isochrone.router.dispatch.attempt import Attempt
from isochrone.router.dispatch.dispatcher import Dispatcher
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.dispatch.runner import Runner
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.frontend.measured import Measured
from isochrone.router.geo.database import GeoDatabase
from isochrone.router.process.clock import Clock
from isochrone.router.process.housekeeping import Housekeeping
from isochrone.router.process.metrics import SECONDS_BUCKETS

_ERRORS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
ERROR_BUCKETS = (*(-s for s in reversed(_ERRORS_S)), 0.0, *_ERRORS_S)
"""Signed: predicted less observed."""


class Metrics:
    """The counters of one router."""

    def __init__(self, registry: CollectorRegistry, ledger: Ledger) -> None:
        self._ledger = ledger
        self._requests = Counter(
            "isochrone_requests",
            "Requests for a model, by the status they ended with: of an answer that was cut off the"
            " error's (0: the client left).",
            ["model", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "isochrone_request_seconds",
            "Seconds from decision to the end of the answer.",
            ["model"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._decisions = Counter(
            "isochrone_decisions",
            "How the first choice stood to the nearest lawful endpoint.",
            ["why"],
            registry=registry,
        )
        self._refusals = Counter(
            "isochrone_refusals",
            "Requests that this router itself refused, by error code.",
            ["code"],
            registry=registry,
        )
        self._shed = Counter(
            "isochrone_shed",
            "Requests that were not started for want of room, time or quota, by error code.",
            ["code", "priority"],
            registry=registry,
        )
        self._waited = Histogram(
            "isochrone_waited_seconds",
            "Seconds in line, of the requests that had to wait.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._retries = Counter(
            "isochrone_retries",
            "Requests sent again, out of a budget: after a try that may have run, and after every"
            " endpoint was full.",
            registry=registry,
        )
        self._hedges = Counter(
            "isochrone_hedges",
            "Tries made beside one that was late: how many were sent, and how many were the first"
            " to answer.",
            ["outcome"],
            registry=registry,
        )
        errors = Histogram(
            "isochrone_prediction_error_seconds",
            "Predicted less observed seconds of an answer, as a whole and term by term; a load is"
            " part of the wait.",
            ["term"],
            buckets=ERROR_BUCKETS,
            registry=registry,
        )
        self._total_error = errors.labels("total")
        self._net_error = errors.labels("net")
        self._wait_error = errors.labels("wait")
        self._service_error = errors.labels("service")
        self._whys: dict[str, set[str]] = {}
        self._tries = Counter(
            "isochrone_tries",
            "Tries at an endpoint, by what sent them there.",
            ["endpoint", "why"],
            registry=registry,
        )

    def ended(self, request: RoutedRequest) -> None:
        """Count one request."""
        model = request.query.model
        self._requests.labels(model, str(request.status)).inc()
        self._seconds.labels(model).observe(request.seconds)
        self._decisions.labels(request.plan.why).inc()
        for (endpoint, why), count in request.beyond.items():
            self._count_tries(endpoint, why, count)
        for attempt in request.attempts:
            self._count_tries(attempt.endpoint, attempt.why)
            if attempt.answered:
                self._judge(attempt)
        if request.waited_s:
            self._waited.observe(request.waited_s)
        if request.code and not request.attempts and request.sent:
            self._shed.labels(request.code, str(request.query.priority)).inc()
        if request.repeats or request.full_repeats or request.hedges:
            self._count_spare(request)

    def refused(self, code: str) -> None:
        """Count one request that this router itself refused."""
        self._refusals.labels(code).inc()

    def forget(self, endpoint: str) -> None:
        """An endpoint has left: names that come and go must not pile up."""
        for why in self._whys.pop(endpoint, ()):
            self._tries.remove(endpoint, why)

    def _count_tries(self, endpoint: str, why: str, count: int = 1) -> None:
        """Tries at an endpoint that has left meanwhile are forgotten with it."""
        if self._ledger.site(endpoint) is not None:
            self._whys.setdefault(endpoint, set()).add(why)
            self._tries.labels(endpoint, why).inc(count)

    def _count_spare(self, request: RoutedRequest) -> None:
        self._retries.inc(request.repeats + request.full_repeats)
        self._hedges.labels("sent").inc(request.hedges)
        won = sum(t.answered and t.why == "hedge" for t in request.attempts)
        self._hedges.labels("won").inc(won)

    def _judge(self, attempt: Attempt) -> None:
        """Hold the prediction against what was then observed."""
        predicted, report, observed_s = attempt.scored.seconds, attempt.report, attempt.first_byte_s
        if observed_s is None:
            return
        self._total_error.observe(predicted.total - observed_s)
        if report is None or not report.infer_s:
            return
        net_s = observed_s - report.wait_s - report.infer_s
        self._net_error.observe(predicted.net - net_s)
        self._wait_error.observe(predicted.wait + predicted.cold - report.wait_s)
        self._service_error.observe(predicted.service - report.infer_s)


class FleetCollector(Collector):
    """The fleet, the line and the measurements as they stand when somebody scrapes."""

    def __init__(
        self,
        ledger: Ledger,
        runner: Runner,
        dispatcher: Dispatcher,
        measured: Measured,
        housekeeping: Housekeeping,
    ) -> None:
        self._ledger = ledger
        self._runner = runner
        self._dispatcher = dispatcher
        self._measured = measured
        self._housekeeping = housekeeping

    def collect(self) -> Iterator[Metric]:
        """The numbers of this instant."""
        yield from self._endpoints()
        yield from self._own()
        yield from self._clients()
        failures = CounterMetricFamily(
            "isochrone_housekeeping_failures",
            "Runs of a part of this router's housekeeping that failed.",
            labels=["part"],
        )
        for part, count in self._housekeeping.failures.items():
            failures.add_metric([part], count)
        yield failures

    def _endpoints(self) -> Iterable[Metric]:
        labels = ["endpoint", "region"]
        up = GaugeMetricFamily("isochrone_endpoint_in", "1 where traffic may go.", labels=labels)
        net = GaugeMetricFamily(
            "isochrone_endpoint_rtt_seconds", "Round trip from this router.", labels=labels
        )
        load = GaugeMetricFamily(
            "isochrone_endpoint_in_flight", "Requests there, as far as known.", labels=labels
        )
        misplaced = CounterMetricFamily(
            "isochrone_endpoint_rtt_misplaced",
            "Round trips from this router that were faster than light to the endpoint's region.",
            labels=labels,
        )
        for site in self._ledger.sites():
            names = [site.endpoint.name, site.endpoint.region]
            up.add_metric(names, float(site.out is None))
            net.add_metric(names, site.net_s)
            load.add_metric(names, site.occupancy.in_flight)
            misplaced.add_metric(names, site.path.misplaced)
        return up, net, load, misplaced

    def _clients(self) -> Iterator[Metric]:
        for name, text, count in (
            (
                "isochrone_measurements_unknown",
                "Round trips told of endpoints that are not known here.",
                self._measured.unknown,
            ),
            (
                "isochrone_measurements_misplaced",
                "Round trips told that were faster than light between the stated places.",
                self._measured.paths.misplaced,
            ),
        ):
            yield CounterMetricFamily(name, text, value=count)

    def _own(self) -> Iterator[Metric]:
        spare = self._runner.spare
        hedges_left = spare.hedge_budget.left if spare.hedge_budget is not None else 0.0
        now_s = self._runner.clock()
        for name, text, value in (
            ("isochrone_in_flight", "Requests in this router.", len(self._runner.running)),
            ("isochrone_queue_length", "Requests in line.", self._dispatcher.gate.waiting),
            (
                "isochrone_retry_budget_left",
                "Retries after a try that may have run that there is leave for.",
                spare.retries.left(now_s),
            ),
            (
                "isochrone_full_retry_budget_left",
                "Requests that found every endpoint full that there is leave to send again.",
                spare.full_retries.left(now_s),
            ),
            ("isochrone_hedge_budget_left", "Hedges there is leave for.", hedges_left),
        ):
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric([], value)
            yield gauge


class GeoipCollector(Collector):
    """How old the GeoIP database in use is, and whether the file is another one."""

    def __init__(self, database: GeoDatabase, wall: Clock) -> None:
        self._database = database
        self._wall = wall

    def collect(self) -> Iterator[Metric]:
        """The numbers of this instant."""
        database = self._database
        age_s = self._wall() - database.built_s
        for name, text, value in (
            ("isochrone_geoip_age_seconds", "Since the database in use was built.", age_s),
            (
                "isochrone_geoip_refused",
                "1 where the file is not in use because it cannot be used.",
                float(database.refused is not None),
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        yield CounterMetricFamily(
            "isochrone_geoip_failures",
            "Look-ups that the GeoIP database broke on.",
            value=database.failures,
        )
