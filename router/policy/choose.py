"""The decision on the hot path: the best candidate only, and nobody's reasons.

The ledger keeps the rank of every candidate that is simply warm and well, so that a decision reads
numbers instead of calling functions. Whatever is not that simple (cold, ramping, on trial) is
worked out by the same filters and scores as in `decide`, and where nothing can be found that way,
`decide`'s own composition answers. The small functions are the specification.
"""

import math
from collections.abc import Collection, Sequence
from random import Random

from msgspec.structs import replace

from isochrone.router.fleet.candidate import Candidate, Fleet, Shortlist
from isochrone.router.fleet.rank import kept
from isochrone.router.law.permit import Permit, permit
from isochrone.router.policy.pick import Scored, hair_s
from isochrone.router.policy.policy import Plan, Policy, obstacle, plan_among, why_not
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import Score, cold_s, seconds, service_s
from isochrone.router.wire.report import ModelState

_WARM = ModelState.WARM
_STRANGERS = 4
"""Of those that are not near, so many are looked at, drawn by lot."""
_MOST_BY_THE_BOOK = 256


def choose(
    policy: Policy, query: Query, fleet: Fleet, rng: Random, tried: Collection[str] = ()
) -> Plan:
    """A plan whose order is the best candidate that is not among `tried`, or empty.

    Its first is one that `decide` could put first. It gives no reasons.
    """
    lawful = fleet.shortlist(query.model, query.version, query.required_regions)
    if not policy.kept or query.vantage is not None:
        every = [c for c in (*lawful.near, *lawful.far) if c.endpoint.name not in tried]
        return _by_the_book(policy, query, lawful, rng, every)
    near = _looked_at(lawful, rng, tried) if tried or lawful.far else lawful.near
    further = policy.further if query.preferred else policy.unbiased
    ranks = kept(near, query.body_bytes)
    if further:
        ranks = _add_scores(further, query, near, ranks)
    cold = _work_out(policy, query, near, ranks) if math.inf in ranks else []
    best = min(ranks) if ranks else math.inf
    if best == math.inf and lawful.far:  # nobody near: whoever is simply warm and well
        near = [c for c in lawful.far if c.endpoint.name not in tried]
        ranks = _add_scores(further, query, near, kept(near, query.body_bytes))
        best = min(ranks, default=math.inf)
    if best == math.inf:
        return _not_plain(policy, query, lawful, rng, tried)
    first = near[ranks.index(best)]
    if len(ranks) > 1:
        limit = best + hair_s(best, service_s(query, first))
        equals = [number for number, rank_s in enumerate(ranks) if rank_s <= limit]
        if len(equals) > 1:
            index = equals[int(rng.random() * len(equals))]
            first, best = near[index], ranks[index]
    if first.state is not _WARM:
        return _not_plain(policy, query, lawful, rng, tried)
    return Plan(
        query,
        (score_plain(query, first, best),),
        (),
        lawful.elsewhere,
        _worth_waking(query, cold, first, best) if cold else None,
        "nearest" if first is lawful.nearest else _why(query, first, lawful.nearest),
        lawful.holders - 1,
    )


def score_plain(query: Query, candidate: Candidate, rank_s: float) -> Scored:
    """What is predicted of a lawful candidate whose rank is kept."""
    leave = permit(query, candidate)
    assert isinstance(leave, Permit), "the shortlist holds what the law forbids"
    occupancy = candidate.occupancy
    load = occupancy.in_flight / occupancy.slots
    return Scored(candidate, leave, seconds(query, candidate), rank_s, load)


def _looked_at(lawful: Shortlist, rng: Random, tried: Collection[str]) -> Sequence[Candidate]:
    """All of a few; of many, the near ones and some others."""
    looked_at = lawful.near
    if lawful.far:
        strangers = (lawful.far[rng.randrange(len(lawful.far))] for _ in range(_STRANGERS))
        looked_at = [*looked_at, *strangers]
    if tried:
        looked_at = [c for c in looked_at if c.endpoint.name not in tried]
    return looked_at


def _add_scores(
    scores: Sequence[Score], query: Query, near: Sequence[Candidate], ranks: list[float]
) -> list[float]:
    """Add the scores that the ledger cannot keep: they depend on the query as well."""
    for score in scores:
        ranks = [known_s + score(query, c) for known_s, c in zip(ranks, near, strict=True)]
    return ranks


def _work_out(
    policy: Policy, query: Query, near: Sequence[Candidate], ranks: list[float]
) -> list[tuple[float, Candidate]]:
    """Fill in the ranks that are not ready; tells who is cold, with its rank if it were warm."""
    cold: list[tuple[float, Candidate]] = []
    for index, candidate in enumerate(near):
        if ranks[index] < math.inf or not candidate.able or not candidate.occupancy.has_room:
            continue
        if candidate.full_until_s > query.now_s:
            continue
        if obstacle(policy.filters, query, candidate) or obstacle(
            policy.reserves, query, candidate
        ):
            continue
        rank_s = ranks[index] = sum(term(query, candidate) for term in policy.rank)
        if candidate.state is not _WARM:
            cold.append((rank_s - cold_s(query, candidate), candidate))
    return cold


def _worth_waking(
    query: Query, cold: Sequence[tuple[float, Candidate]], first: Candidate, best: float
) -> Permit | None:
    """See `isochrone.router.policy.policy.worth_waking`."""
    better = [(rank_s, c) for rank_s, c in cold if c is not first and rank_s < best]
    if not better:
        return None
    _, foremost = min(better, key=lambda one: one[0])
    if foremost.state is not ModelState.COLD or foremost.woken:  # it is on its way
        return None
    leave = permit(query, foremost)
    assert isinstance(leave, Permit), "the shortlist holds what the law forbids"
    return leave


def _why(query: Query, first: Candidate, nearest: Candidate | None) -> str:
    if nearest is None or first.net_s <= nearest.net_s:
        return "nearest"
    return why_not(query, nearest)


def _not_plain(
    policy: Policy, query: Query, lawful: Shortlist, rng: Random, tried: Collection[str]
) -> Plan:
    """Nobody is simply warm and well: the whole composition over the others that are free.

    To find that nobody is calls no function for each candidate, so that refusing stays cheap.
    """
    now_s, every = query.now_s, [*lawful.near, *lawful.far]
    able = [c for c in every if c.able and c.endpoint.name not in tried]
    free = [c for c in able if c.occupancy.has_room and c.full_until_s <= now_s]
    if not free:
        elsewhere = lawful.elsewhere
        return Plan(query, [], [], elsewhere, unexplained=lawful.holders, busy=able)
    plan = _by_the_book(policy, query, lawful, rng, free)
    if not plan.order:
        return replace(plan, rejected=(), unexplained=lawful.holders, busy=able)
    first, nearest = plan.order[0].candidate, lawful.nearest
    why = "nearest" if first is nearest else _why(query, first, nearest)
    return replace(plan, rejected=(), unexplained=lawful.holders - 1, why=why)


def _by_the_book(
    policy: Policy, query: Query, lawful: Shortlist, rng: Random, every: Sequence[Candidate]
) -> Plan:
    """The whole composition, over these candidates that the law allows; of very many, over some."""
    if len(every) > _MOST_BY_THE_BOOK:
        every = rng.sample(every, _MOST_BY_THE_BOOK)
    plan = plan_among(policy, query, every, rng, elsewhere=lawful.elsewhere)
    unexplained = lawful.holders - len(plan.order[:1]) - len(plan.rejected)
    return replace(plan, order=plan.order[:1], unexplained=unexplained)
