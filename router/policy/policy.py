"""The decision: law, filters, scores and a pick make a plan. Does no I/O and reads no clock.

This is the specification: every candidate gets its seconds or a reason. `choose` is
the same decision for the hot path, where only the best one is wanted.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import msgspec

from isochrone.router.fleet.candidate import Candidate, Fleet
from isochrone.router.law.permit import Permit, permit
from isochrone.router.policy.filters import FILTERS, RESERVES, Filter
from isochrone.router.policy.pick import Pick, Scored, best_first
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import KEPT, RANK, Score, net_s, seconds, taste_s
from isochrone.router.wire.report import ModelState


@dataclass(frozen=True, slots=True)
class Policy:
    """What a decision is composed of; the defaults are the product's.

    `kept` says that `choose` may use the ranks that the ledger keeps: it adds the `further` scores
    to them, or `unbiased` of these where the query prefers no region.
    """

    filters: tuple[Filter, ...] = FILTERS
    reserves: tuple[Filter, ...] = RESERVES
    rank: tuple[Score, ...] = RANK
    pick: Pick = best_first
    kept: bool = field(init=False, repr=False)
    further: tuple[Score, ...] = field(init=False, repr=False)
    unbiased: tuple[Score, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = self.filters is FILTERS and self.reserves is RESERVES and self.pick is best_first
        further = self.rank[len(KEPT) :]
        object.__setattr__(self, "kept", own and self.rank[: len(KEPT)] == KEPT)
        object.__setattr__(self, "further", further)
        object.__setattr__(self, "unbiased", tuple(s for s in further if s is not taste_s))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that is not in the plan, and why; `lawful` False: the law forbids it."""

    candidate: Candidate
    reason: str
    lawful: bool


class Plan(msgspec.Struct, frozen=True):
    """The order of tries, best first; everyone who is not in it, and why; whom to wake.

    Where `order` is empty, `busy` are the lawful candidates that may have room before long.
    `elsewhere` counts the endpoints that do not hold the model, `unexplained` those that hold it
    and were passed over without a word. `why` says in one word how the first of `order` stands to
    the nearest lawful endpoint.
    """

    query: Query
    order: Sequence[Scored]
    rejected: Sequence[Rejected]
    elsewhere: int
    wake: Permit | None = None
    why: str = "none"
    unexplained: int = 0
    busy: Sequence[Candidate] = ()


def decide(policy: Policy, query: Query, fleet: Fleet, rng: Random) -> Plan:
    """Who should serve this query, in which order, and why nobody else."""
    candidates = fleet.candidates(query.model, query.version)
    elsewhere = fleet.elsewhere(query.model, query.version)
    return plan_among(policy, query, candidates, rng, elsewhere=elsewhere)


def plan_among(
    policy: Policy,
    query: Query,
    candidates: Iterable[Candidate],
    rng: Random,
    *,
    elsewhere: int = 0,
    unexplained: int = 0,
) -> Plan:
    """The same, among these candidates."""
    scored: list[Scored] = []
    reserve: list[tuple[Candidate, str]] = []
    rejected: list[Rejected] = []
    for candidate in candidates:
        leave = permit(query, candidate)
        if isinstance(leave, str):
            rejected.append(Rejected(candidate, leave, lawful=False))
            continue
        reason = obstacle(policy.filters, query, candidate)
        if reason is not None:
            rejected.append(Rejected(candidate, reason, lawful=True))
            continue
        reason = obstacle(policy.reserves, query, candidate)
        if reason is not None:
            reserve.append((candidate, reason))
            continue
        scored.append(score(policy, query, candidate, leave))
    called = _called_up(scored, [candidate for candidate, _ in reserve])
    scored += [score_lawful(policy, query, candidate) for candidate in called]
    rejected += [Rejected(c, reason, lawful=True) for c, reason in reserve if c not in called]
    order = policy.pick(scored, rng)
    return Plan(
        query=query,
        order=order,
        rejected=rejected,
        elsewhere=elsewhere,
        wake=worth_waking(order),
        why=_why(query, order, rejected),
        unexplained=unexplained,
        busy=() if order else [r.candidate for r in rejected if r.lawful and r.candidate.able],
    )


def obstacle(filters: Sequence[Filter], query: Query, candidate: Candidate) -> str | None:
    """The first reason against a candidate."""
    for check in filters:
        reason = check(query, candidate)
        if reason is not None:
            return reason
    return None


def score(policy: Policy, query: Query, candidate: Candidate, leave: Permit) -> Scored:
    """What is predicted of a candidate, and how it ranks."""
    rank = sum(term(query, candidate) for term in policy.rank)
    load = candidate.in_flight / candidate.slots
    return Scored(candidate, leave, seconds(query, candidate), rank, load)


def score_lawful(policy: Policy, query: Query, candidate: Candidate) -> Scored:
    """The same, of a candidate that the law is known to allow."""
    return score(policy, query, candidate, _leave(query, candidate))


def worth_waking(order: Sequence[Scored]) -> Permit | None:
    """The best cold endpoint that would have come first, had both been warm.

    One that comes first although it is cold needs no wake: the request itself loads the model. And
    nobody is woken who will come after it from then on, or after one that is being loaded already.
    """
    if not order:
        return None
    best, *others = order
    cold = [s for s in others if s.candidate.state is not ModelState.WARM]
    if not cold:
        return None
    first = min(cold, key=_warm_rank)
    is_asleep = first.candidate.state is ModelState.COLD and not first.candidate.woken
    return first.permit if is_asleep and _warm_rank(first) < _warm_rank(best) else None


def _warm_rank(scored: Scored) -> float:
    return scored.rank - scored.seconds.cold


def why_not(query: Query, nearest: Candidate) -> str:
    """What kept the nearest lawful endpoint from coming first, in one word."""
    if nearest.rank_s < math.inf:  # it is warm and well, and not full
        return "nearest_busy" if nearest.in_flight >= nearest.slots else "faster"
    if nearest.out is not None or nearest.held is not None:
        return "nearest_out"
    if nearest.state is not ModelState.WARM:
        return "nearest_cold"
    if nearest.full_until_s > query.now_s or nearest.in_flight >= nearest.slots:
        return "nearest_busy"
    return "faster"


def _called_up(scored: Sequence[Scored], reserve: Sequence[Candidate]) -> Sequence[Candidate]:
    """Who of the reserve is needed: nobody while somebody warm can serve.

    Before a model is loaded for it, a request goes to who only starts slowly; to who is held back
    for its failures where there is nobody else at all.
    """
    if any(one.candidate.state is ModelState.WARM for one in scored):
        return ()
    slow = [candidate for candidate in reserve if candidate.held is None]
    return slow if scored or slow else reserve


def _leave(query: Query, candidate: Candidate) -> Permit:
    leave = permit(query, candidate)
    assert isinstance(leave, Permit), "the law was asked before"
    return leave


def _why(query: Query, order: Sequence[Scored], rejected: Sequence[Rejected]) -> str:
    """`nearest`, or what kept the nearest lawful endpoint from coming first."""
    if not order:
        return "none"
    first = order[0].candidate
    lawful = [s.candidate for s in order] + [r.candidate for r in rejected if r.lawful]
    nearest = min(lawful, key=lambda candidate: net_s(query, candidate))
    if net_s(query, first) <= net_s(query, nearest):
        return "nearest"
    return why_not(query, nearest)
