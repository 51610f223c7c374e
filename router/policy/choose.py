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

from router.fleet.endpoint import Candidate, Fleet, Shortlist
from router.policy.law import Permit, permit
from router.policy.pick import Scored, hair_s
from router.policy.policy import Plan, Policy, obstacle, plan_among, why_not
from router.policy.query import Query
from router.policy.scores import cold_s, seconds, service_s
from router.wire.report import ModelState

_WARM = ModelState.WARM
_STRANGERS = 4
"""Of those that are not near, so many are looked at, drawn by lot."""
_MOST_BY_THE_BOOK = 256


def choose(
    policy: Policy, query: Query, fleet: Fleet, rng: Random, tried: Collection[str] = ()
) -> Plan:
    """A plan whose order is the best candidate that is not among `tried`, or empty.

    Its first is one that `decide` could put first; an empty one has everybody's reason.
    """
    lawful = fleet.shortlist(query.model, query.version, query.required_regions)
    if not policy.kept or query.vantage is not None:
        return _by_the_book(policy, query, lawful, rng, tried)
    near = _looked_at(lawful, rng, tried) if tried or lawful.far else lawful.near
    ranks = _kept_ranks(query, near)
    cold = _work_out(policy, query, near, ranks) if math.inf in ranks else []
    best = min(ranks) if ranks else math.inf
    if best == math.inf and lawful.far:  # nobody near: whoever is simply warm and well
        near = [c for c in lawful.far if c.endpoint.name not in tried]
        ranks = _kept_ranks(query, near)
        best = min(ranks, default=math.inf)
    if best == math.inf:
        return _by_the_book(policy, query, lawful, rng, tried)
    index = ranks.index(best)
    limit = best + hair_s(best, service_s(query, near[index]))
    equals = [number for number, rank in enumerate(ranks) if rank <= limit]
    if len(equals) > 1:
        index = equals[int(rng.random() * len(equals))]
        best = ranks[index]
    first = near[index]
    if first.state is not _WARM:
        return _by_the_book(policy, query, lawful, rng, tried)
    leave = permit(query, first)
    assert isinstance(leave, Permit), "the shortlist holds what the law forbids"
    return Plan(
        query,
        (Scored(first, leave, seconds(query, first), best, first.in_flight / first.slots),),
        (),
        lawful.elsewhere,
        _worth_waking(query, cold, first, best) if cold else None,
        "nearest" if first is lawful.nearest else _why(query, first, lawful.nearest),
        len(lawful.near) + len(lawful.far) + lawful.beside - 1,
    )


def _looked_at(lawful: Shortlist, rng: Random, tried: Collection[str]) -> Sequence[Candidate]:
    """All of a few; of many, the near ones and some others."""
    looked_at = lawful.near
    if lawful.far:
        strangers = (lawful.far[rng.randrange(len(lawful.far))] for _ in range(_STRANGERS))
        looked_at = [*looked_at, *strangers]
    if tried:
        looked_at = [c for c in looked_at if c.endpoint.name not in tried]
    return looked_at


def _kept_ranks(query: Query, near: Sequence[Candidate]) -> list[float]:
    """What the ledger has ready; infinite where it has not."""
    length = query.body_bytes
    taste = query.preferred
    if taste:
        return [c.rank_s + c.rank_byte_s * length - taste.get(c.endpoint.region, 0.0) for c in near]
    return [c.rank_s + c.rank_byte_s * length for c in near]


def _work_out(
    policy: Policy, query: Query, near: Sequence[Candidate], ranks: list[float]
) -> list[tuple[float, Candidate]]:
    """Fill in the ranks that are not ready; tells who is cold, with its rank if it were warm."""
    cold: list[tuple[float, Candidate]] = []
    for index, candidate in enumerate(near):
        if ranks[index] < math.inf:
            continue
        if obstacle(policy.filters, query, candidate) or obstacle(
            policy.reserves, query, candidate
        ):
            continue
        rank = ranks[index] = sum(term(query, candidate) for term in policy.rank)
        if candidate.state is not _WARM:
            cold.append((rank - cold_s(query, candidate), candidate))
    return cold


def _worth_waking(
    query: Query, cold: Sequence[tuple[float, Candidate]], first: Candidate, best: float
) -> Permit | None:
    """See `router.policy.policy.worth_waking`."""
    better = [(rank, c) for rank, c in cold if c is not first and rank < best]
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


def _by_the_book(
    policy: Policy,
    query: Query,
    lawful: Shortlist,
    rng: Random,
    tried: Collection[str],
) -> Plan:
    """The whole composition, over everybody that the law allows; of very many, over some."""
    far = lawful.far
    if len(far) > _MOST_BY_THE_BOOK:
        far = rng.sample(far, _MOST_BY_THE_BOOK)
    every = [c for c in (*lawful.near, *far) if c.endpoint.name not in tried]
    plan = plan_among(policy, query, every, rng, elsewhere=lawful.elsewhere)
    passed_over = lawful.beside + len(plan.order[1:]) + len(lawful.far) - len(far)
    return replace(plan, order=plan.order[:1], unexplained=passed_over)
