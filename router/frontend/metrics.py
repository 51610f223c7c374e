"""What a router counts: requests, tries, decisions and the state of its endpoints.

Labels are bounded: models that are known, endpoints that have joined, words from fixed lists.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.dispatch.record import Record
from router.dispatch.runner import Runner
from router.fleet.ledger import Ledger
from router.process.metrics import SECONDS_BUCKETS


class Metrics:
    """The counters of one router."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "isochrone_requests",
            "Requests for a model, by the status they ended with (0: the client left).",
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
        self._whys: dict[str, set[str]] = {}
        self._tries = Counter(
            "isochrone_tries",
            "Tries at an endpoint, by what sent them there.",
            ["endpoint", "why"],
            registry=registry,
        )

    def ended(self, record: Record) -> None:
        """Count one request."""
        model = record.plan.query.model
        self._requests.labels(model, str(record.status)).inc()
        self._seconds.labels(model).observe(record.seconds)
        self._decisions.labels(record.plan.why).inc()
        for tried in record.tried:
            self._whys.setdefault(tried.endpoint, set()).add(tried.why)
            self._tries.labels(tried.endpoint, tried.why).inc()

    def refused(self, code: str) -> None:
        """Count one request that this router itself refused."""
        self._refusals.labels(code).inc()

    def forget(self, endpoint: str) -> None:
        """An endpoint has left: names that come and go must not pile up."""
        for why in self._whys.pop(endpoint, ()):
            self._tries.remove(endpoint, why)


class FleetCollector(Collector):
    """The fleet as it stands when somebody scrapes."""

    def __init__(self, ledger: Ledger, runner: Runner) -> None:
        self._ledger = ledger
        self._runner = runner

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of this instant."""
        labels = ["endpoint", "region"]
        up = GaugeMetricFamily("isochrone_endpoint_in", "1 where traffic may go.", labels=labels)
        net = GaugeMetricFamily(
            "isochrone_endpoint_rtt_seconds", "Round trip from this router.", labels=labels
        )
        load = GaugeMetricFamily(
            "isochrone_endpoint_in_flight", "Requests there, as far as known.", labels=labels
        )
        for site in self._ledger.sites():
            names = [site.endpoint.name, site.endpoint.region]
            up.add_metric(names, float(site.out is None))
            net.add_metric(names, site.net_s)
            load.add_metric(names, site.in_flight)
        running = GaugeMetricFamily("isochrone_in_flight", "Requests in this router.")
        running.add_metric([], len(self._runner.running))
        yield from (up, net, load, running)
