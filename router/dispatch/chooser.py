"""One policy over one fleet: the decision as those who carry requests out ask for it."""

from collections.abc import Collection, Sequence
from random import Random

from router.fleet.endpoint import Candidate, Fleet
from router.policy.choose import choose
from router.policy.policy import Plan, Policy, decide, plan_among
from router.policy.query import Query

SURVEYED_COUNT = 256
"""Of more candidates than this, reasons are given for the near ones only."""


class Chooser:
    """Decides with the fleet as it is at each call."""

    def __init__(self, policy: Policy, fleet: Fleet, rng: Random) -> None:
        self._policy = policy
        self._fleet = fleet
        self._rng = rng

    def best(self, query: Query, tried: Collection[str] = ()) -> Plan:
        """A plan whose order is the best endpoint that is not among `tried`, or empty."""
        return choose(self._policy, query, self._fleet, self._rng, tried)

    def survey(self, query: Query) -> Plan:
        """A plan in which every candidate has its seconds or its reason."""
        if len(self._fleet.candidates(query.model, query.version)) <= SURVEYED_COUNT:
            return decide(self._policy, query, self._fleet, self._rng)
        lawful = self._fleet.shortlist(query.model, query.version, query.required_regions)
        unexplained = len(lawful.far) + lawful.beside
        elsewhere = self._fleet.elsewhere(query.model, query.version)
        return plan_among(
            self._policy,
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
