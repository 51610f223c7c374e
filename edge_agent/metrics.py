"""What an agent counts, for Prometheus. Label sets are bounded by the packages on disk."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from isochrone.edge_agent.runtime.memory.residents import Residents
from isochrone.edge_agent.runtime.package.state import Step
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved
from isochrone.router.process.freed_memory import private_bytes
from isochrone.router.process.metrics import Spread, Spreads
from isochrone.router.wire.report import Pressure

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
        self._answered: dict[int, Counter] = {}
        self._served: dict[str, tuple[Spread, Spread]] = {}
        self._requests = Counter(
            "isochrone_agent_requests", "Requests answered.", ["outcome"], registry=registry
        )
        self._cold_start = Histogram(
            "isochrone_agent_cold_start_seconds",
            "From cold to warm: behind other loads, the load, the warm-up.",
            ["model"],
            buckets=_LOAD_S,
            registry=registry,
        )
        self._load = Histogram(
            "isochrone_agent_load_seconds",
            "Having a model's weights in memory.",
            ["model"],
            buckets=_LOAD_S,
            registry=registry,
        )
        self._warm_up = Histogram(
            "isochrone_agent_warm_up_seconds",
            "Answering a model's warm-up samples.",
            ["model"],
            buckets=_LOAD_S,
            registry=registry,
        )
        self._failed = Counter(
            "isochrone_agent_failed_loads", "Loads that failed.", ["model"], registry=registry
        )
        self._crashes = Counter(
            "isochrone_agent_crashes",
            "Processes of isolated models that died.",
            ["model"],
            registry=registry,
        )
        self._unloads = Counter(
            "isochrone_agent_unloads",
            "Models unloaded: asked, evicted or idle.",
            ["model", "cause"],
            registry=registry,
        )
        self._budget = Gauge(
            "isochrone_agent_memory_budget_bytes", "What models may take.", registry=registry
        )
        self._taken = Gauge(
            "isochrone_agent_memory_taken_bytes",
            "What models in memory take, as measured.",
            registry=registry,
        )
        self._private = Gauge(
            "isochrone_agent_memory_private_bytes",
            "Resident memory of the agent's process that no file backs.",
            registry=registry,
        )
        self._variant = Gauge(
            "isochrone_agent_variant",
            "1 for the variant that was loaded last, which is the fastest here.",
            ["model", "version", "variant"],
            registry=registry,
        )
        self._variants: dict[tuple[str, str], str] = {}
        self._wait = Spreads(
            "isochrone_agent_wait_seconds",
            "Before the inference: the queue, and a cold model's load.",
            "model",
            registry,
        )
        self._infer = Spreads(
            "isochrone_agent_infer_seconds", "The inference itself.", "model", registry
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
        kept = self._served.get(model)
        if kept is None:
            kept = self._served[model] = self._wait.of(model), self._infer.of(model)
        kept[0].observe(wait_s)
        kept[1].observe(infer_s)

    def watch_memory(self, residents: Residents) -> None:
        """Where the values of memory come from."""
        self._budget.set_function(lambda: residents.budget_bytes)
        self._taken.set_function(lambda: residents.taken_bytes)
        self._private.set_function(private_bytes)

    def moved(self, event: ModelMoved) -> None:
        """A model's state changed."""
        model, cold_start = event.name, event.cold_start
        if cold_start is not None:
            self._cold_start.labels(model).observe(cold_start.wait_s + cold_start.load_s)
            self._load.labels(model).observe(cold_start.read_s)
            self._warm_up.labels(model).observe(cold_start.warm_up_s)
            self._tell_variant(model, event.version, event.variant)
        if event.cause is not None:
            self._unloads.labels(model, event.cause).inc()
        if event.step is Step.FAILED:
            self._failed.labels(model).inc()
        if event.step is Step.CRASHED:
            self._crashes.labels(model).inc()

    def _tell_variant(self, model: str, version: str, variant: str | None) -> None:
        """It stands in for the one before."""
        before = self._variants.pop((model, version), None)
        if before is not None:
            self._variant.remove(model, version, before)
        if variant is not None:
            self._variant.labels(model, version, variant).set(1)
            self._variants[model, version] = variant

    def answered(self, status: int) -> None:
        """A request was answered with an HTTP status."""
        kept = self._answered.get(status)
        if kept is None:
            kept = self._answered[status] = self._requests.labels(_outcome(status))
        kept.inc()


def _outcome(status: int) -> str:
    if not status:
        return "left"
    if status < HTTPStatus.BAD_REQUEST:
        return "ok"
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "bad_request"
    return _OUTCOMES.get(HTTPStatus(status), "failed")


def _number(pressure: Callable[[], Pressure], field: str) -> float:
    """A field of the newest pressure; of a list, its length."""
    value = getattr(pressure(), field)
    return float(len(value) if isinstance(value, tuple) else value or 0)
