"""What a router counts: requests, attempts, decisions, prediction errors, and its endpoints.

Labels are bounded: known models, joined endpoints, words from fixed lists.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
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
from isochrone.router.process.metrics import Families

_ERRORS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
ERROR_BUCKETS = (*(-s for s in reversed(_ERRORS_S)), 0.0, *_ERRORS_S)
"""Signed: predicted less observed."""


class Metrics:
    """The counters of one router."""

    def __init__(self, registry: CollectorRegistry, ledger: Ledger, wall: Clock) -> None:
        self._ledger = ledger
        families = Families(registry, wall)
        self._requests = families.counter(
            "isochrone_requests",
            "Requests for a model, by the status they ended with: of an answer that was cut off the"
            " error's (0: the client left).",
            "model",
            "status",
        )
        self._seconds = families.histogram(
            "isochrone_request_seconds", "Seconds from decision to the end of the answer.", "model"
        )
        self._decisions = families.counter(
            "isochrone_decisions",
            "How the first choice stood to the nearest lawful endpoint.",
            "why",
        )
        self._refusals = families.counter(
            "isochrone_refusals", "Requests that this router itself refused, by error code.", "code"
        )
        self._shed = families.counter(
            "isochrone_shed",
            "Requests that were not started for want of room, time or quota, by error code.",
            "code",
            "priority",
        )
        self._waited = families.histogram(
            "isochrone_waited_seconds", "Seconds in line, of the requests that had to wait."
        )[()]
        self._retries = families.counter(
            "isochrone_retries",
            "Requests sent again, out of a budget: after a try that may have run, and after every"
            " endpoint was full.",
        )[()]
        self._hedges = families.counter(
            "isochrone_hedges",
            "Tries made beside one that was late: how many were sent, and how many were the first"
            " to answer.",
            "outcome",
        )
        errors = families.histogram(
            "isochrone_prediction_error_seconds",
            "Predicted less observed seconds of an answer, as a whole and term by term; a load is"
            " part of the wait.",
            "term",
            bounds=ERROR_BUCKETS,
        )
        self._errors = [errors[term,].counts for term in ("total", "net", "wait", "service")]
        self._whys: dict[str, set[str]] = {}
        self._tries = families.counter(
            "isochrone_tries", "Tries at an endpoint, by what sent them there.", "endpoint", "why"
        )

    def ended(self, request: RoutedRequest) -> None:
        """Count one request."""
        model = request.query.model
        self._requests[model, request.status].value += 1
        self._seconds[model,].observe(request.seconds)
        self._decisions[request.plan.why,].value += 1
        for (endpoint, why), count in request.beyond.items():
            self._count_attempts(endpoint, why, count)
        for attempt in request.attempts:
            self._count_attempts(attempt.endpoint, attempt.why, 1)
            if attempt.answered and attempt.first_byte_s is not None:
                self._compare(attempt, attempt.first_byte_s)
        if request.waited_s:
            self._waited.observe(request.waited_s)
        if request.code and not request.attempts and request.sent:
            self._shed[request.code, request.query.priority].value += 1
        if request.repeats or request.full_repeats or request.hedges:
            self._count_extra(request)

    def refused(self, code: str) -> None:
        """Count one request that this router itself refused."""
        self._refusals[code,].value += 1

    def forget(self, endpoint: str) -> None:
        """Drop the series of an endpoint that has left, or they would pile up."""
        for why in self._whys.pop(endpoint, ()):
            del self._tries[endpoint, why]

    def _count_attempts(self, endpoint: str, why: str, count: int) -> None:
        whys = self._whys.get(endpoint)
        if whys is None:
            if self._ledger.site(endpoint) is None:
                return  # it has left while the request ran
            whys = self._whys[endpoint] = set()
        whys.add(why)
        self._tries[endpoint, why].value += count

    def _count_extra(self, request: RoutedRequest) -> None:
        self._retries.value += request.repeats + request.full_repeats
        self._hedges["sent",].value += request.hedges
        won = sum(a.answered and a.why == "hedge" for a in request.attempts)
        self._hedges["won",].value += won

    def _compare(self, attempt: Attempt, observed_s: float) -> None:
        """Count the prediction errors of one answer."""
        predicted, report = attempt.scored.seconds, attempt.report
        errors_s = [predicted.total - observed_s]
        if report is not None and report.infer_s:
            errors_s += (
                predicted.net - (observed_s - report.wait_s - report.infer_s),
                predicted.wait + predicted.cold - report.wait_s,
                predicted.service - report.infer_s,
            )
        for counts, error_s in zip(self._errors, errors_s, strict=False):
            counts[bisect_left(ERROR_BUCKETS, error_s)] += 1  # not `observe`: four calls


@dataclass(eq=False)
class FleetCollector(Collector):
    """The fleet, the queue and the measurements at the instant of a scrape."""

    ledger: Ledger
    runner: Runner
    dispatcher: Dispatcher
    measured: Measured
    housekeeping: Housekeeping

    def collect(self) -> Iterator[Metric]:
        """The values of this instant."""
        yield from self._endpoints()
        yield from self._own()
        yield CounterMetricFamily(
            "isochrone_measurements_unknown",
            "Round trips told of endpoints that are not known here.",
            self.measured.unknown,
        )
        yield CounterMetricFamily(
            "isochrone_measurements_misplaced",
            "Round trips told that were faster than light between the stated places.",
            self.measured.paths.misplaced,
        )
        failures = CounterMetricFamily(
            "isochrone_housekeeping_failures",
            "Runs of a part of this router's housekeeping that failed.",
            labels=["part"],
        )
        for part, count in self.housekeeping.failures.items():
            failures.add_metric([part], count)
        yield failures

    def _endpoints(self) -> tuple[Metric, ...]:
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
        for site in self.ledger.sites():
            names = [site.endpoint.name, site.endpoint.region]
            up.add_metric(names, float(site.out is None))
            net.add_metric(names, site.net_s)
            load.add_metric(names, site.occupancy.in_flight)
            misplaced.add_metric(names, site.path.misplaced)
        return up, net, load, misplaced

    def _own(self) -> Iterator[Metric]:
        spare = self.runner.spare
        hedges_left = spare.hedge_budget.left if spare.hedge_budget is not None else 0.0
        now_s = self.runner.clock()
        for name, text, value in (
            ("isochrone_in_flight", "Requests in this router.", len(self.runner.running)),
            ("isochrone_queue_length", "Requests in line.", self.dispatcher.gate.waiting),
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
            yield GaugeMetricFamily(name, text, value)


@dataclass(eq=False)
class GeoipCollector(Collector):
    """The age of the GeoIP database in use, and whether its file is refused."""

    database: GeoDatabase
    wall: Clock

    def collect(self) -> Iterator[Metric]:
        """The values of this instant."""
        yield GaugeMetricFamily(
            "isochrone_geoip_age_seconds",
            "Since the database in use was built.",
            self.wall() - self.database.built_s,
        )
        yield GaugeMetricFamily(
            "isochrone_geoip_refused",
            "1 where the file is not in use because it cannot be used.",
            float(self.database.refused is not None),
        )
        yield CounterMetricFamily(
            "isochrone_geoip_failures",
            "Look-ups that the GeoIP database broke on.",
            self.database.failures,
        )
