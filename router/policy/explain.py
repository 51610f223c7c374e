"""A plan as people and tools read it: every candidate has its seconds or a reason."""

from collections.abc import Mapping
from typing import Any

import msgspec

from router.policy.pick import Scored
from router.policy.policy import Plan, Rejected
from router.policy.scores import Seconds

HEADER_BYTES = 6000
"""The most that an explanation may add to an answer's header."""


def considered(plan: Plan) -> list[dict[str, Any]]:
    """Every candidate of a plan, in the order of tries, then those that were rejected."""
    return [_scored(s) for s in plan.order] + [_rejected(r) for r in plan.rejected]


def not_considered(plan: Plan) -> dict[str, int]:
    """The endpoints that were no candidates, counted by reason."""
    counted = {
        "does not hold the model": plan.elsewhere,
        "not lawful, not usable or not the best": plan.unexplained,
    }
    return {reason: count for reason, count in counted.items() if count}


def explanation(plan: Plan) -> bytes:
    """The plan as the JSON of a header field; without its candidates where they are too many."""
    told = {"considered": considered(plan), "not_considered": not_considered(plan)}
    value = msgspec.json.encode(told)
    if len(value) > HEADER_BYTES:
        told["considered"] = []
        too_many = {"too many for a header field": len(plan.order) + len(plan.rejected)}
        told["not_considered"] = too_many | not_considered(plan)
        value = msgspec.json.encode(told)
    return value


def reasons(plan: Plan) -> Mapping[str, str]:
    """Why each candidate that is not in the plan is out, by endpoint."""
    return {r.candidate.endpoint.name: r.reason for r in plan.rejected}


def seconds_of(seconds: Seconds) -> dict[str, float]:
    """The terms of one prediction, and their sum."""
    return {
        "net": seconds.net,
        "wait": seconds.wait,
        "service": seconds.service,
        "cold": seconds.cold,
        "taste": seconds.taste,
        "total": seconds.total,
        "sigma": seconds.sigma,
    }


def _scored(scored: Scored) -> dict[str, Any]:
    endpoint = scored.permit.endpoint
    return {
        "endpoint": endpoint.name,
        "region": endpoint.region,
        "seconds": seconds_of(scored.seconds),
        "reason": None,
    }


def _rejected(rejected: Rejected) -> dict[str, Any]:
    endpoint = rejected.candidate.endpoint
    return {
        "endpoint": endpoint.name,
        "region": endpoint.region,
        "seconds": None,
        "reason": rejected.reason,
    }
