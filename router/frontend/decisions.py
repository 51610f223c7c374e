"""The last decisions, kept by request id, and how one is told."""

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs

from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.policy.explain import considered, not_considered

KEPT = 4096
KEPT_BYTES = 16 << 20
RECORD_BYTES, TRIED_BYTES = 2048, 1024
"""What an unexplained record takes at most, and each of its tries."""


def access_line(record: RoutedRequest, wall_s: float) -> dict[str, object]:
    """The fields of a request's line in the access log."""
    query = record.query
    return {
        "time": wall_s,
        "request_id": query.request_id,
        "tenant": query.tenant,
        "model": query.model,
        "status": record.status,
        "sent": record.sent,
        "code": record.code or None,
        "endpoint": record.attempts[-1].endpoint if record.attempts else None,
        "why": record.attempts[-1].why if record.attempts else record.code,
        "tries": record.attempts_count,
        "waited": round(record.waited_s, 6),
        "seconds": round(record.seconds, 6),
    }


class Decisions:
    """The records of the last requests; the oldest goes when there are too many, or too much.

    What was explained is kept as it is told: a plan of many candidates takes far less room so.
    """

    def __init__(self, policy_fingerprint: str, most_bytes: int = KEPT_BYTES) -> None:
        self._fingerprint = policy_fingerprint
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[RoutedRequest | bytes, float, int]] = OrderedDict()
        self.held_bytes = 0
        """As reckoned: of a record, by its tries."""

    def keep(self, record: RoutedRequest, wall_s: float) -> None:
        """Keep a record that ended at this wall-clock time, in seconds since 1970."""
        if record.plan.busy:  # of no use any more
            record.plan = structs.replace(record.plan, busy=())
        kept: RoutedRequest | bytes = record
        size = RECORD_BYTES + TRIED_BYTES * len(record.attempts)
        if record.explained is not None:
            kept = msgspec.json.encode(self._told(record, wall_s))
            size = len(kept)
        request_id = record.query.request_id
        self._forget(self._kept.pop(request_id, None))
        self._kept[request_id] = kept, wall_s, size
        self.held_bytes += size
        while len(self._kept) > KEPT or self.held_bytes > self._most_bytes:
            self._forget(self._kept.popitem(last=False)[1])

    def tell(self, request_id: str) -> dict[str, Any] | None:
        """One decision with every candidate and every try; None where it is not kept any more."""
        found = self._kept.get(request_id)
        if found is None:
            return None
        kept, wall_s, _ = found
        if isinstance(kept, RoutedRequest):
            return self._told(kept, wall_s)
        told: dict[str, Any] = msgspec.json.decode(kept)
        return told

    def _forget(self, entry: tuple[RoutedRequest | bytes, float, int] | None) -> None:
        if entry is not None:
            self.held_bytes -= entry[2]

    def _told(self, record: RoutedRequest, wall_s: float) -> dict[str, Any]:
        query = record.query
        return {
            "schema": "isochrone.decision/1",
            "ok": 200 <= record.status < 400,
            "request_id": query.request_id,
            "time": datetime.fromtimestamp(wall_s, UTC).isoformat(),
            "tenant": query.tenant,
            "model": query.model,
            "version": query.version,
            "rule": query.rule,
            "requirement": query.requirement,
            "policy_fingerprint": self._fingerprint,
            "fleet_generation": record.fleet_generation,
            "vantage": "router",
            "why": record.told.why,
            **_candidates(record),
            "attempts": [
                {"endpoint": t.endpoint, "why": t.why, "outcome": t.outcome, "seconds": t.seconds}
                for t in record.attempts
            ],
            "waited": record.waited_s,
            "status": record.status,
            "sent": record.sent,
            "code": record.code or None,
            "seconds": record.seconds,
        }


def _candidates(record: RoutedRequest) -> dict[str, Any]:
    """Every candidate; where the decision was not explained, those that were tried."""
    plan = record.told
    told = considered(plan)
    if record.explained is None and plan.unexplained:
        by_name = {t.endpoint: t.scored for t in record.attempts}
        tries = structs.replace(plan, order=tuple(by_name.values()), rejected=())
        told = considered(tries) + considered(structs.replace(plan, order=()))
    return {"considered": told, "not_considered": not_considered(plan)}
