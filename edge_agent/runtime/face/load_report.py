"""What an endpoint knows of its own load, and how it tells: in full, or with every answer."""

import re
from collections import OrderedDict

from isochrone.edge_agent.runtime.calls.gate import Filling
from isochrone.edge_agent.runtime.calls.holder import Shelf
from isochrone.router.process.clock import Clock
from isochrone.router.wire.http import Response, first
from isochrone.router.wire.report import (
    LOAD_HEADER,
    WIRE_VERSION,
    CallReport,
    EndpointReport,
    encode_call_report,
)

_MAX_SENDERS = 64
_SILENT_S = 60.0
"""A sender that has sent nothing for so long is forgotten."""
_SEQUENCE = re.compile(rb"([A-Za-z0-9._-]{1,72})=([0-9]{1,16})")
"""A router's name, which may have 63 characters, a dot and 8 digits; then the request's number."""
_MAX_SEQUENCE = 2**53
_MAX_BUCKET = 64
_NOT_MEASURED = [0.0] * (_MAX_BUCKET + 1)
_NEWEST_SHARE = 0.2


class Load:
    """Service times by model and in-flight calls, and the highest number seen of every sender."""

    def __init__(
        self, name: str, region: str, instance: str, gate: Filling, shelf: Shelf, clock: Clock
    ) -> None:
        """`instance` names this process and no other before or after it."""
        self._name = name
        self._region = region
        self.region = region.encode()
        """As routers spell it in the header of a request."""
        self._instance = instance
        self._gate = gate
        self._shelf = shelf
        self._clock = clock
        self._sequence = 0
        self._latency_s: dict[str, list[float]] = {}
        """Of each model by the number of calls beside it, and under 0 of all; 0 is not measured."""
        self.service_s = 0.0
        """The recent service time of any call."""
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Of each sender the highest number and when it last sent; who was silent longest first."""

    def served(self, model: str, infer_s: float) -> None:
        """Fold in one call's service time, at the number of calls that run beside it."""
        times = self._latency_s.get(model)
        if times is None:
            times = self._latency_s[model] = _NOT_MEASURED.copy()
        bucket = _bucket(self._gate.in_flight)
        times[bucket] = _folded(times[bucket], infer_s)
        times[0] = _folded(times[0], infer_s)
        self.service_s = _folded(self.service_s, infer_s)

    def note(self, value: bytes | None) -> None:
        """Remember the number of a request that has come (`SENDER=NUMBER`).

        A value of another form is ignored: it steers nothing but the sender's own bookkeeping.
        """
        sender, number = _sequence(value) if value else ("", 0)
        if not sender:
            return
        highest, _ = self._seen.pop(sender, (0, 0.0))
        self._seen[sender] = max(number, highest), self._clock()
        if len(self._seen) > _MAX_SENDERS:
            self._seen.popitem(last=False)

    def highest(self, value: bytes | None) -> int:
        """The highest number that was noted of whoever sent this value; 0 where none was."""
        return self._seen.get(_sequence(value)[0], (0, 0.0))[0] if value else 0

    def call_report(self, model: str, wait_s: float, infer_s: float, seq_seen: int) -> CallReport:
        """What goes with one answer."""
        gate, running = self._gate, self._gate.in_flight
        times = self._latency_s.get(model, _NOT_MEASURED)
        return CallReport(
            instance=self._instance,
            sequence=self._next(),
            in_flight=running + gate.queued,
            slots=gate.slots,
            latency_s=times[_bucket(running)] or times[0],
            wait_s=wait_s,
            infer_s=infer_s,
            models_generation=self._shelf.models_generation,
            seq_seen=seq_seen,
            name=self._name,
            region=self._region,
        )

    def vouched(self, response: Response) -> Response:
        """With our load, where it does not say that yet: without it routers believe no answer."""
        if first(response.headers, LOAD_HEADER) is None:
            response.headers += self.fields()
        return response

    def fields(self) -> list[tuple[bytes, bytes]]:
        """The header field that tells of our load where no model has run."""
        return [(LOAD_HEADER, encode_call_report(self.call_report("", 0.0, 0.0, 0)))]

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
            seen=self._recent(),
        )

    def _recent(self) -> dict[str, int]:
        since_s = self._clock() - _SILENT_S
        for sender in [sender for sender, (_, at_s) in self._seen.items() if at_s < since_s]:
            del self._seen[sender]
        return {sender: number for sender, (number, _) in self._seen.items()}

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


def _sequence(value: bytes) -> tuple[str, int]:
    """Sender and number; no sender where the value has another form."""
    found = _SEQUENCE.fullmatch(value)
    if found is None or int(found[2]) > _MAX_SEQUENCE:
        return "", 0
    return found[1].decode(), int(found[2])


def _bucket(running: int) -> int:
    return max(1, min(running, _MAX_BUCKET))


def _folded(before: float, newest: float) -> float:
    return newest if before == 0 else before + _NEWEST_SHARE * (newest - before)
