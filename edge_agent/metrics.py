"""What an agent counts, for Prometheus. Label sets are bounded by the packages on disk."""

from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from router.process.metrics import SECONDS_BUCKETS

_LOAD_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_OUTCOMES = {
    HTTPStatus.SERVICE_UNAVAILABLE: "refused",
    HTTPStatus.GATEWAY_TIMEOUT: "late",
}


class Metrics:
    """The agent's counters, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._served: dict[str, tuple[Histogram, Histogram]] = {}
        self._answered: dict[int, Counter] = {}
        self._requests = Counter(
            "isochrone_agent_requests", "Requests answered.", ["outcome"], registry=registry
        )
        self._load = Histogram(
            "isochrone_agent_load_seconds",
            "From cold to warm.",
            ["model"],
            buckets=_LOAD_S,
            registry=registry,
        )
        self._wait = Histogram(
            "isochrone_agent_wait_seconds",
            "Before the inference: the queue, and a cold model's load.",
            ["model"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._infer = Histogram(
            "isochrone_agent_infer_seconds",
            "The inference itself.",
            ["model"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "isochrone_agent_in_flight", "Calls that hold a slot.", registry=registry
        )
        self._queued = Gauge(
            "isochrone_agent_queued", "Calls that wait for a slot.", registry=registry
        )

    def watch(self, in_flight: Callable[[], float], queued: Callable[[], float]) -> None:
        """Where the gauges' values come from."""
        self._in_flight.set_function(in_flight)
        self._queued.set_function(queued)

    def served(self, model: str, wait_s: float, infer_s: float) -> None:
        """A call of a model ended well."""
        kept = self._served.get(model)
        if kept is None:  # finding them costs more than the rest
            kept = self._served[model] = self._wait.labels(model), self._infer.labels(model)
        kept[0].observe(wait_s)
        kept[1].observe(infer_s)

    def loaded(self, model: str, load_s: float) -> None:
        """A model has become warm."""
        self._load.labels(model).observe(load_s)

    def answered(self, status: int) -> None:
        """A request was answered with an HTTP status."""
        kept = self._answered.get(status)
        if kept is None:
            kept = self._answered[status] = self._requests.labels(_outcome(status))
        kept.inc()


def _outcome(status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST:
        return "ok"
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "bad_request"
    return _OUTCOMES.get(HTTPStatus(status), "failed")
