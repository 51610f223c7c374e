"""The last decisions, kept by request id, and how one is told."""

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from router.dispatch.record import Record
from router.policy.explain import considered, not_considered

KEPT = 4096


def access_line(record: Record, wall_s: float) -> dict[str, object]:
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
        "endpoint": record.tried[-1].endpoint if record.tried else None,
        "why": record.tried[-1].why if record.tried else record.code,
        "tries": record.tries_count,
        "waited": round(record.waited_s, 6),
        "seconds": round(record.seconds, 6),
    }


class Decisions:
    """The records of the last requests; the oldest goes when there are too many."""

    def __init__(self, policy_fingerprint: str) -> None:
        self._fingerprint = policy_fingerprint
        self._kept: OrderedDict[str, tuple[Record, float]] = OrderedDict()

    def keep(self, record: Record, wall_s: float) -> None:
        """Keep a record that ended at this wall-clock time, in seconds since 1970."""
        request_id = record.query.request_id
        self._kept[request_id] = (record, wall_s)
        self._kept.move_to_end(request_id)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def tell(self, request_id: str) -> dict[str, Any] | None:
        """One decision with every candidate and every try; None where it is not kept any more."""
        found = self._kept.get(request_id)
        if found is None:
            return None
        record, wall_s = found
        query = record.query
        return {
            "schema": "isochrone.decision/1",
            "ok": 200 <= record.status < 400,
            "request_id": request_id,
            "time": datetime.fromtimestamp(wall_s, UTC).isoformat(),
            "tenant": query.tenant,
            "model": query.model,
            "version": query.version,
            "rule": query.rule,
            "requirement": query.requirement,
            "policy_fingerprint": self._fingerprint,
            "fleet_generation": record.fleet_generation,
            "vantage": "router",
            "why": record.plan.why,
            **_candidates(record),
            "attempts": [
                {"endpoint": t.endpoint, "why": t.why, "outcome": t.outcome, "seconds": t.seconds}
                for t in record.tried
            ],
            "waited": record.waited_s,
            "status": record.status,
            "sent": record.sent,
            "code": record.code or None,
            "seconds": record.seconds,
        }


def _candidates(record: Record) -> dict[str, Any]:
    """Every candidate; where the decision was not explained, those that were tried."""
    told = considered(record.plan)
    if record.plan.unexplained:
        by_name = {t.endpoint: t.scored for t in record.tried}
        tries = structs.replace(record.plan, order=tuple(by_name.values()), rejected=())
        told = considered(tries) + considered(structs.replace(record.plan, order=()))
    return {"considered": told, "not_considered": not_considered(record.plan)}
