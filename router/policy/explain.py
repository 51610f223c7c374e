"""A plan as people and tools read it: every candidate has its seconds or a reason."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import structs

from isochrone.router.fleet.candidate import Candidate
from isochrone.router.law.permit import permit
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.policy import Plan, Policy, Rejected, obstacle
from isochrone.router.policy.query import Query

HEADER_BYTES = 6000
"""The most that an explanation may add to an answer's header."""
REASONS_COUNT = 16
"""A refusal gives the reasons of so many endpoints, and counts the others."""
OTHERS = "(others)"
"""In place of an endpoint's name, which has no brackets."""


def considered(plan: Plan) -> list[dict[str, Any]]:
    """Every candidate of a plan, in the order of tries, then those that were rejected."""
    return [_scored(s) for s in plan.order] + [_rejected(r) for r in plan.rejected]


def not_considered(plan: Plan) -> dict[str, int]:
    """The endpoints that were no candidates, counted by reason."""
    counted = {
        "not known to hold the model": plan.elsewhere,
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


def reasons_among(
    policy: Policy, query: Query, candidates: Sequence[Candidate]
) -> Mapping[str, str]:
    """Why each of these cannot serve now, by endpoint; of many, the others are counted by reason.

    The lawful ones come first. Costs calls for those named only.
    """
    required = query.required_regions
    inside = [c for c in candidates if required is None or c.endpoint.region in required]
    outside = [c for c in candidates if not (required is None or c.endpoint.region in required)]
    told: dict[str, str] = {}
    for candidate in [*inside, *outside][:REASONS_COUNT]:
        leave = permit(query, candidate)
        checks = (*policy.filters, *policy.reserves)
        reason = leave if isinstance(leave, str) else obstacle(checks, query, candidate)
        if reason is not None:
            told[candidate.endpoint.name] = reason
    rest = inside[REASONS_COUNT:]
    able = [c for c in rest if c.able]
    full = [c for c in able if not c.occupancy.has_room or c.full_until_s > query.now_s]
    counts = {
        "out, or without the model": len(rest) - len(able),
        "full": len(full),
        "held back or starting": len(able) - len(full),
        f"outside {query.requirement}": len(outside) - max(0, REASONS_COUNT - len(inside)),
    }
    others = [f"{count} {reason}" for reason, count in counts.items() if count > 0]
    return {**told, OTHERS: "; ".join(others)} if others else told


def _scored(scored: Scored) -> dict[str, Any]:
    endpoint = scored.permit.endpoint
    return {
        "endpoint": endpoint.name,
        "region": endpoint.region,
        "seconds": structs.asdict(scored.seconds),
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
