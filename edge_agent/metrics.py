"""The metrics of an agent. Label sets are bounded by the packages on disk."""

from collections.abc import Callable
from functools import cache, partial
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Gauge

from isochrone.edge_agent.runtime.memory.residents import Residents
from isochrone.edge_agent.runtime.package.state import Step
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved
from isochrone.router.process.clock import Clock
from isochrone.router.process.freed_memory import private_bytes
from isochrone.router.process.metrics import Families
from isochrone.router.wire.report import Pressure

_LOAD_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_OUTCOMES: dict[int, str] = {
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
    """The counters, histograms and gauges of one agent."""

    def __init__(self, registry: CollectorRegistry, wall: Clock) -> None:
        self._registry = registry
        families = Families(registry, wall)
        self._requests = families.counter(
            "isochrone_agent_requests", "Requests answered.", "outcome"
        )
        loads = partial(families.histogram, bounds=_LOAD_S)
        self._cold_start = loads(
            "isochrone_agent_cold_start_seconds",
            "From cold to warm: behind other loads, the load, the warm-up.",
            "model",
        )
        self._load = loads(
            "isochrone_agent_load_seconds", "Having a model's weights in memory.", "model"
        )
        self._warm_up = loads(
            "isochrone_agent_warm_up_seconds", "Answering a model's warm-up samples.", "model"
        )
        self._failed = families.counter(
            "isochrone_agent_failed_loads", "Loads that failed.", "model"
        )
        self._crashes = families.counter(
            "isochrone_agent_crashes", "Processes of isolated models that died.", "model"
        )
        self._unloads = families.counter(
            "isochrone_agent_unloads", "Models unloaded: asked, evicted or idle.", "model", "cause"
        )
        self._wait = families.histogram(
            "isochrone_agent_wait_seconds",
            "Before the inference: the queue, and a cold model's load.",
            "model",
        )
        self._infer = families.histogram(
            "isochrone_agent_infer_seconds", "The inference itself.", "model"
        )
        self._variant = Gauge(
            "isochrone_agent_variant",
            "1 for the variant that was loaded last, which is the fastest here.",
            ["model", "version", "variant"],
            registry=registry,
        )
        self._variants: dict[tuple[str, str], str] = {}

    def watch(self, in_flight: Callable[[], float], queued: Callable[[], float]) -> None:
        """Expose the calls that hold and await a slot."""
        self._watch("isochrone_agent_in_flight", "Calls that hold a slot.", in_flight)
        self._watch("isochrone_agent_queued", "Calls that wait for a slot.", queued)

    def watch_machine(self, pressure: Callable[[], Pressure]) -> None:
        """Expose the state of the machine."""
        for field, text in _MACHINE.items():
            self._watch(f"isochrone_agent_{field}", text, partial(_number, pressure, field))

    def watch_memory(self, residents: Residents) -> None:
        """Expose the memory of models and of this process."""
        self._watch(
            "isochrone_agent_memory_budget_bytes",
            "What models may take.",
            lambda: residents.budget_bytes,
        )
        self._watch(
            "isochrone_agent_memory_taken_bytes",
            "What models in memory take, as measured.",
            lambda: residents.taken_bytes,
        )
        self._watch(
            "isochrone_agent_memory_private_bytes",
            "Resident memory of the agent's process that no file backs.",
            private_bytes,
        )

    def _watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Expose a gauge that is read at each scrape."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def served(self, model: str, wait_s: float, infer_s: float) -> None:
        """Count a call that ended well."""
        self._wait[model,].observe(wait_s)
        self._infer[model,].observe(infer_s)

    def answered(self, status: int) -> None:
        """Count a request by the HTTP status of its end."""
        self._requests[_outcome(status),].value += 1

    def moved(self, event: ModelMoved) -> None:
        """Count a change of a model's state."""
        model, cold_start = event.name, event.cold_start
        if cold_start is not None:
            self._cold_start[model,].observe(cold_start.wait_s + cold_start.load_s)
            self._load[model,].observe(cold_start.read_s)
            self._warm_up[model,].observe(cold_start.warm_up_s)
            self._set_variant(model, event.version, event.variant)
        if event.cause is not None:
            self._unloads[model, event.cause].value += 1
        if event.step is Step.FAILED:
            self._failed[model,].value += 1
        if event.step is Step.CRASHED:
            self._crashes[model,].value += 1

    def _set_variant(self, model: str, version: str, variant: str | None) -> None:
        """Replace the version's variant."""
        before = self._variants.pop((model, version), None)
        if before is not None:
            self._variant.remove(model, version, before)
        if variant is not None:
            self._variant.labels(model, version, variant).set(1)
            self._variants[model, version] = variant


@cache
def _outcome(status: int) -> str:
    if not status:
        return "left"
    if status < HTTPStatus.BAD_REQUEST:
        return "ok"
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "bad_request"
    return _OUTCOMES.get(status, "failed")


def _number(pressure: Callable[[], Pressure], field: str) -> float:
    """A field of the newest pressure; of a list, its length."""
    value = getattr(pressure(), field)
    return float(len(value) if isinstance(value, tuple) else value or 0)
