"""One policy over one fleet: the decision as those who carry requests out ask for it.

Only `best` draws lots: what is told of a decision changes none that come later.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from heapq import nsmallest
from random import Random

from msgspec import structs

from isochrone.router.fleet.candidate import Candidate, Fleet
from isochrone.router.policy.choose import choose, score_plain
from isochrone.router.policy.explain import reasons_among
from isochrone.router.policy.pick import Scored, by_rank
from isochrone.router.policy.policy import Plan, Policy, decide, obstacle, plan_among, score_lawful
from isochrone.router.policy.query import Query

SURVEYED_COUNT = 256
"""Of more candidates than this, reasons are given for the near ones only."""
QUICKEST_COUNT = 4
"""Where a deadline is short, so many are looked at for one that can make it."""


class Chooser:
    """Decides with the fleet as it is at each call."""

    def __init__(self, policy: Policy, fleet: Fleet, rng: Random) -> None:
        self._policy = policy
        self._told = replace(policy, pick=by_rank)
        self._fleet = fleet
        self._rng = rng

    def best(self, query: Query, tried: Collection[str] = ()) -> Plan:
        """A plan whose order is the best endpoint that is not among `tried`, or empty."""
        return choose(self._policy, query, self._fleet, self._rng, tried)

    def explained(self, plan: Plan, excluded: Collection[str] = ()) -> Plan:
        """A plan of `best` with the seconds or the reason of every other candidate.

        Endpoints that are `excluded` are not in its order.
        """
        first = {scored.permit.endpoint.name for scored in plan.order}
        survey = self._survey(plan.query)
        others = [s for s in survey.order if s.permit.endpoint.name not in first.union(excluded)]
        rejected = [r for r in survey.rejected if r.candidate.endpoint.name not in first]
        order = (*plan.order, *others)
        return structs.replace(survey, order=order, rejected=rejected, wake=plan.wake, why=plan.why)

    def quickest(self, query: Query, excluded: Collection[str] = ()) -> Sequence[Scored]:
        """Those that are free now and would be the quickest if nobody else were there."""
        now_s = query.now_s
        free = [
            c
            for c in self.near(query)
            if c.able and c.occupancy.has_room and c.full_until_s <= now_s
            if c.endpoint.name not in excluded
        ]
        if len(free) > QUICKEST_COUNT:
            alone = [(c.net_s + c.service_s, n) for n, c in enumerate(free)]
            free = [free[n] for _, n in nsmallest(QUICKEST_COUNT, alone)]
        checks = (*self._policy.filters, *self._policy.reserves)
        plain = [c for c in free if self._policy.kept and c.rank_s < math.inf]
        others = [c for c in free if c not in plain and obstacle(checks, query, c) is None]
        scored = [score_plain(query, c, c.rank_s) for c in plain]
        return scored + [score_lawful(self._policy, query, c) for c in others]

    def reasons(self, query: Query) -> Mapping[str, str]:
        """Why nobody can serve this: see `reasons_among`."""
        return reasons_among(
            self._policy, query, self._fleet.candidates(query.model, query.version)
        )

    def _survey(self, query: Query) -> Plan:
        """A plan in which every candidate has its seconds or its reason."""
        if len(self._fleet.candidates(query.model, query.version)) <= SURVEYED_COUNT:
            return decide(self._told, query, self._fleet, self._rng)
        lawful = self._fleet.shortlist(query.model, query.version, query.required_regions)
        unexplained = len(lawful.far) + lawful.beside
        elsewhere = self._fleet.elsewhere(query.model, query.version)
        return plan_among(
            self._told,
            query,
            lawful.near,
            self._rng,
            elsewhere=elsewhere,
            unexplained=unexplained,
        )

    def near(self, query: Query) -> Sequence[Candidate]:
        """The lawful candidates, or the near ones of many."""
        return self._fleet.shortlist(query.model, query.version, query.required_regions).near

    def holder(self, query: Query, endpoint_name: str) -> Candidate | None:
        """The candidate at one endpoint."""
        held = self._fleet.candidates(query.model, query.version)
        return next((c for c in held if c.endpoint.name == endpoint_name), None)
