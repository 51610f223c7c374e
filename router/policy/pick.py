"""The order of tries: best first, with chance among those that are as good as the best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from router.fleet.endpoint import Candidate
from router.policy.law import Permit
from router.policy.scores import Seconds

NEAR_SHARE = 0.05
NEAR_S = 0.002


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate that may and can serve, with what was predicted and how it ranks, in seconds."""

    candidate: Candidate
    permit: Permit
    seconds: Seconds
    rank: float


Pick = Callable[[Sequence[Scored], Random], Sequence[Scored]]


def best_first(scored: Sequence[Scored], rng: Random) -> Sequence[Scored]:
    """By rank; the first is drawn from all within a hair of the best, so as not to herd."""
    order = sorted(scored, key=lambda s: s.rank)
    if len(order) < 2:
        return order
    best = order[0]
    hair_s = abs(best.rank) * NEAR_SHARE + min(NEAR_S, NEAR_SHARE * best.seconds.service)
    ties = 1
    while ties < len(order) and order[ties].rank <= best.rank + hair_s:
        ties += 1
    if ties > 1:
        order.insert(0, order.pop(rng.randrange(ties)))
    return order
