"""What an endpoint knows of its own load, and how it tells: in full, or with every answer."""

from collections import OrderedDict

from edge_agent.runtime.gate import Gate
from edge_agent.runtime.holder import Shelf
from router.wire.report import WIRE_VERSION, CallReport, EndpointReport

_MAX_SENDERS = 64
_MAX_BUCKET = 64
_NEWEST_SHARE = 0.2
_MAX_DIGITS = 18


class Load:
    """Service times by model and in-flight calls, and the highest number seen of every sender."""

    def __init__(self, name: str, region: str, instance: str, gate: Gate, shelf: Shelf) -> None:
        """`instance` names this process and no other before or after it."""
        self._name = name
        self._region = region
        self._instance = instance
        self._gate = gate
        self._shelf = shelf
        self._sequence = 0
        self._latency_s: dict[tuple[str, int], float] = {}
        self.service_s = 0.0
        """The recent service time of any call."""
        self._seen: OrderedDict[str, int] = OrderedDict()

    def served(self, model: str, infer_s: float) -> None:
        """Fold in one call's service time, at the number of calls that run beside it."""
        for key in ((model, self._bucket()), (model, 0)):
            self._latency_s[key] = _folded(self._latency_s.get(key), infer_s)
        self.service_s = _folded(self.service_s or None, infer_s)

    def latency_s(self, model: str) -> float:
        """The recent service time at as many in-flight calls as now; 0 where none was measured."""
        at_all = self._latency_s.get((model, 0), 0.0)
        return self._latency_s.get((model, self._bucket()), at_all)

    def note(self, value: bytes | None) -> int:
        """Remember a sender's number (`SENDER=NUMBER`); the highest of it so far, else 0.

        A value of another form is ignored: it steers nothing but the sender's own bookkeeping.
        """
        sender, _, number = (value or b"").decode("latin-1").rpartition("=")
        if not sender or not number.isascii() or not number.isdigit() or len(number) > _MAX_DIGITS:
            return 0
        self._seen[sender] = max(int(number), self._seen.pop(sender, 0))
        if len(self._seen) > _MAX_SENDERS:
            self._seen.popitem(last=False)
        return self._seen[sender]

    def call_report(self, model: str, wait_s: float, infer_s: float, seq_seen: int) -> CallReport:
        """What goes with one answer."""
        return CallReport(
            instance=self._instance,
            sequence=self._next(),
            in_flight=self._gate.in_flight + self._gate.queued,
            slots=self._gate.slots,
            latency_s=self.latency_s(model),
            wait_s=wait_s,
            infer_s=infer_s,
            models_generation=self._shelf.models_generation,
            seq_seen=seq_seen,
        )

    def endpoint_report(self, *, ready: bool, draining: bool) -> EndpointReport:
        """Everything."""
        return EndpointReport(
            wire_version=WIRE_VERSION,
            name=self._name,
            region=self._region,
            instance=self._instance,
            sequence=self._next(),
            in_flight=self._gate.in_flight + self._gate.queued,
            slots=self._gate.slots,
            queued=self._gate.queued,
            ready=ready,
            draining=draining,
            models_generation=self._shelf.models_generation,
            models=self._shelf.held(),
            seen=dict(self._seen),
        )

    def _bucket(self) -> int:
        return max(1, min(self._gate.in_flight, _MAX_BUCKET))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


def _folded(before: float | None, newest: float) -> float:
    return newest if before is None else before + _NEWEST_SHARE * (newest - before)
