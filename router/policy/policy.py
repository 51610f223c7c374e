"""The decision: law, filters, scores and a pick make a plan. Does no I/O and reads no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from router.fleet.endpoint import Candidate, Fleet
from router.policy.filters import FILTERS, Filter
from router.policy.law import Permit, permit
from router.policy.pick import Pick, Scored, best_first
from router.policy.query import Query
from router.policy.scores import RANK, Score, net_s, seconds
from router.wire.report import ModelState


@dataclass(frozen=True, slots=True)
class Policy:
    """What a decision is composed of; the defaults are the product's."""

    filters: tuple[Filter, ...] = FILTERS
    rank: tuple[Score, ...] = RANK
    pick: Pick = best_first


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that is not in the plan, and why; `lawful` False: the law forbids it."""

    candidate: Candidate
    reason: str
    lawful: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The order of tries, best first; everyone who is not in it, and why; whom to wake.

    `why` says in one word how the first of `order` stands to the nearest lawful endpoint.
    """

    query: Query
    order: Sequence[Scored]
    rejected: Sequence[Rejected]
    elsewhere: int
    wake: Permit | None = None
    why: str = "none"


def decide(policy: Policy, query: Query, fleet: Fleet, rng: Random) -> Plan:
    """Who should serve this query, in which order, and why nobody else."""
    scored: list[Scored] = []
    rejected: list[Rejected] = []
    for candidate in fleet.candidates(query.model, query.version):
        leave = permit(query, candidate)
        if isinstance(leave, str):
            rejected.append(Rejected(candidate, leave, lawful=False))
            continue
        reason = _obstacle(policy.filters, query, candidate)
        if reason is not None:
            rejected.append(Rejected(candidate, reason, lawful=True))
            continue
        rank = sum(score(query, candidate) for score in policy.rank)
        scored.append(Scored(candidate, leave, seconds(query, candidate), rank))
    order = policy.pick(scored, rng)
    return Plan(
        query=query,
        order=order,
        rejected=rejected,
        elsewhere=fleet.elsewhere(query.model, query.version),
        wake=_worth_waking(order),
        why=_why(query, order, rejected),
    )


def _obstacle(filters: Sequence[Filter], query: Query, candidate: Candidate) -> str | None:
    for check in filters:
        reason = check(query, candidate)
        if reason is not None:
            return reason
    return None


def _worth_waking(order: Sequence[Scored]) -> Permit | None:
    """The best cold endpoint that would have come first, had it been warm.

    One that comes first although it is cold needs no wake: the request itself loads the model.
    """
    if not order:
        return None
    best = order[0]
    cold = [
        s
        for s in order[1:]
        if s.candidate.state is ModelState.COLD
        and not s.candidate.woken
        and s.rank - s.seconds.cold < best.rank
    ]
    return min(cold, key=lambda s: s.rank - s.seconds.cold).permit if cold else None


def _why(query: Query, order: Sequence[Scored], rejected: Sequence[Rejected]) -> str:
    """`nearest`, or what kept the nearest lawful endpoint from coming first."""
    if not order:
        return "none"
    first = order[0].candidate
    lawful = [s.candidate for s in order] + [r.candidate for r in rejected if r.lawful]
    nearest = min(lawful, key=lambda candidate: net_s(query, candidate))
    if net_s(query, first) <= net_s(query, nearest):
        return "nearest"
    if nearest.out is not None:
        return "nearest_out"
    if nearest.state is not ModelState.WARM:
        return "nearest_cold"
    if nearest.full_until_s > query.now_s or nearest.in_flight >= nearest.slots:
        return "nearest_busy"
    return "faster"
