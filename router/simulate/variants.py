"""The product's router as it may be configured: by default, and with one thing changed at a time.

Whatever is switched off for a comparison is switched off by the product's own settings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from isochrone.router.config import HedgeConfig, ProbeConfig, QueueConfig, RetryConfig
from isochrone.router.fleet.breaker import Tolerance
from isochrone.router.policy.pick import Scored, best_first
from isochrone.router.policy.policy import Policy
from isochrone.router.policy.scores import RANK, cold_s
from isochrone.router.wire.report import ModelState


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a router is configured with; the defaults are the product's."""

    policy: Policy = field(default_factory=Policy)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    retries: RetryConfig = field(default_factory=RetryConfig)
    hedge: HedgeConfig = field(default_factory=HedgeConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    tolerance: Tolerance = field(default_factory=Tolerance)
    in_flight: int = 4096


def warm_first(scored: Sequence[Scored], rng: Random) -> Sequence[Scored]:
    """A pick: nobody waits for a load while a warm endpoint may answer, however slowly."""
    order = best_first(scored, rng)
    return sorted(order, key=lambda one: one.candidate.state is not ModelState.WARM)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to configure the router, and what is different about it."""

    about: str
    tuning: Tuning = field(default_factory=Tuning)


_UNFAILING = Tolerance(in_a_row=1 << 30, share=math.inf)
_BLIND_TO_COLD = Policy(rank=tuple(term for term in RANK if term is not cold_s))

VARIANTS: Mapping[str, Variant] = {
    "isochrone": Variant("this router, as it is by default"),
    "isochrone-hedged": Variant(
        "with hedges for 3 % of the requests", Tuning(hedge=HedgeConfig(share=0.03))
    ),
    "isochrone-unguarded": Variant("without the guard", Tuning(tolerance=_UNFAILING)),
    "isochrone-incurious": Variant("without exploration", Tuning(probe=ProbeConfig(explore_s=0.0))),
    "isochrone-always-wait": Variant(
        "without the cold term: it waits for every load", Tuning(policy=_BLIND_TO_COLD)
    ),
    "isochrone-always-offload": Variant(
        "it never waits for a load where anybody is warm, and has it done meanwhile",
        Tuning(policy=Policy(pick=warm_first)),
    ),
}
"""The product's router, and the same with one thing changed, by name."""
