"""What an agent counts, for Prometheus. Label sets are bounded by the packages on disk."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from router.process.metrics import SECONDS_BUCKETS
from router.wire.report import Pressure

_LOAD_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_OUTCOMES = {
    HTTPStatus.SERVICE_UNAVAILABLE: "refused",
    HTTPStatus.GATEWAY_TIMEOUT: "late",
}
_MACHINE = {
    "memory_used_share": "Of the tightest limit on this agent's memory.",
    "memory_stalled_share": "Of the last ten seconds: something waited for memory.",
    "disk_free_bytes": "On the disk of the agent's own files.",
    "cores": "That this agent may use.",
    "lost_lines": "Of its logs and notes that the disk did not take.",
    "degraded": "In how many ways the agent does less well than it should.",
}


class Metrics:
    """The agent's counters, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
        self._machine = {
            field: Gauge(f"isochrone_agent_{field}", text, registry=registry)
            for field, text in _MACHINE.items()
        }
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

    def watch_machine(self, pressure: Callable[[], Pressure]) -> None:
        """Where the gauges of the machine have their values from."""
        for field, gauge in self._machine.items():
            gauge.set_function(partial(_number, pressure, field))

    def served(self, model: str, wait_s: float, infer_s: float) -> None:
        """A call of a model ended well."""
        self._wait.labels(model).observe(wait_s)
        self._infer.labels(model).observe(infer_s)

    def loaded(self, model: str, load_s: float) -> None:
        """A model has become warm."""
        self._load.labels(model).observe(load_s)

    def answered(self, status: int) -> None:
        """A request was answered with an HTTP status."""
        self._requests.labels(_outcome(status)).inc()


def _outcome(status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST:
        return "ok"
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "bad_request"
    return _OUTCOMES.get(HTTPStatus(status), "failed")


def _number(pressure: Callable[[], Pressure], field: str) -> float:
    """A field of the newest pressure; of a list, its length."""
    value = getattr(pressure(), field)
    return float(len(value) if isinstance(value, tuple) else value or 0)
