"""The order of tries: best first, with chance among those that are as good as the best."""

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from isochrone.router.fleet.candidate import Candidate
from isochrone.router.law.permit import Permit
from isochrone.router.policy.scores import Seconds

NEAR_SHARE = 0.05
NEAR_S = 0.002


class Scored(msgspec.Struct, frozen=True):
    """A candidate that may and can serve, with what was predicted and how it ranks, in seconds.

    `load` is what was known to be in flight there for each slot.
    """

    candidate: Candidate
    permit: Permit
    seconds: Seconds
    rank: float
    load: float


Pick = Callable[[Sequence[Scored], Random], Sequence[Scored]]


def hair_s(best_rank: float, service_s: float) -> float:
    """How much worse than the best is as good as the best: less than what estimates err by."""
    near_s = NEAR_SHARE * service_s
    return NEAR_SHARE * abs(best_rank) + (near_s if near_s < NEAR_S else NEAR_S)


def by_rank(scored: Sequence[Scored], rng: Random) -> Sequence[Scored]:
    """By rank alone."""
    del rng
    return sorted(scored, key=lambda s: s.rank)


def best_first(scored: Sequence[Scored], rng: Random) -> Sequence[Scored]:
    """By rank; the first is drawn from all within a hair of the best, so as not to herd."""
    order = [*by_rank(scored, rng)]
    if len(order) < 2:
        return order
    best = order[0]
    limit = best.rank + hair_s(best.rank, best.seconds.service)
    ties = 1
    while ties < len(order) and order[ties].rank <= limit:
        ties += 1
    if ties > 1:
        order.insert(0, order.pop(rng.randrange(ties)))
    return order
