"""What may be done beside that which clients asked for: second tries, after a loss or in time.

The gates of hedging are those of "The Tail at Scale" (Dean and Barroso, 2013), made strict: only
where the call may be made twice and is short work, where its target is not busy and can still make
it, and within a budget.
"""

from collections.abc import Collection, Mapping

from isochrone.router.config import HedgeConfig, ModelConfig, RetryConfig
from isochrone.router.dispatch.budget import HedgeBudget, RetryBudget
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import Seconds

LATE_SIGMAS = 2.0
"""An answer is late when it is this many standard deviations over its prediction."""
BUSY_SHARE = 0.5
"""Nothing is hedged to an endpoint that has so many of its slots in use."""
FULL_SHARE, FULL_FLOOR_PER_SLOT_S = 1.0, 1.0
"""What found every endpoint full may be sent again: as often as requests are sent, and beyond that
as often in a second as the fleet has slots. Back-off alone stays below the latter."""


class Spare:
    """The budgets of one worker, and who may draw on them."""

    def __init__(
        self, retries: RetryBudget, hedges: HedgeBudget | None, unhedged: Collection[str] = ()
    ) -> None:
        """`hedges` None: nothing is hedged; nor are calls for the models in `unhedged`."""
        self.retries = retries
        self.full_retries = RetryBudget(
            FULL_SHARE, FULL_FLOOR_PER_SLOT_S, requests=retries.requests
        )
        self.hedge_budget = hedges
        self._unhedged = unhedged

    @classmethod
    def of(
        cls, retries: RetryConfig, hedge: HedgeConfig, models: Mapping[str, ModelConfig]
    ) -> "Spare":
        """As configured."""
        return cls(
            RetryBudget(retries.share, retries.floor_per_slot_s),
            HedgeBudget(hedge.share) if hedge.share else None,
            {name for name, model in models.items() if not model.hedge},
        )

    def resize(self, slots: int) -> None:
        """The fleet has so many slots now."""
        self.retries.resize(slots)
        self.full_retries.resize(slots)

    def requested(self, now_s: float) -> None:
        """What a client has asked for has been sent."""
        self.retries.requests.add(now_s)
        if self.hedge_budget is not None:
            self.hedge_budget.requested()

    def repeat(self, request: RoutedRequest, now_s: float) -> bool:
        """Leave, paid for, to ask another endpoint after a try that may have run."""
        may = request.query.repeatable and self.retries.take(now_s)
        request.repeats += may
        return may

    def repeat_full(self, request: RoutedRequest, now_s: float) -> bool:
        """Leave, paid for, to send a request again that found every endpoint full."""
        may = self.full_retries.take(now_s)
        request.full_repeats += may
        return may

    def hedges(self, query: Query) -> bool:
        """May this call be hedged at all: never a generation."""
        if self.hedge_budget is None or not query.repeatable or query.action != "infer":
            return False
        return query.model not in self._unhedged

    def late_after_s(self, seconds: Seconds) -> float:
        """How long after it was sent an answer is late."""
        return seconds.total + LATE_SIGMAS * seconds.sigma

    def hedge(self, query: Query, scored: Scored, now_s: float) -> bool:
        """Leave, paid for, to ask this endpoint beside a late one."""
        candidate = scored.candidate
        idle = candidate.in_flight < BUSY_SHARE * candidate.slots
        in_time = now_s + self.late_after_s(scored.seconds) <= query.deadline_s
        dear = candidate.endpoint.hardware_class.startswith("gpu")
        if dear or not (self.hedges(query) and idle and in_time):
            return False
        return self.hedge_budget is not None and self.hedge_budget.take()
