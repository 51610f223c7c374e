"""Seconds until the answer, term by term, and the two sums over them.

`Seconds.total` predicts what will happen; `RANK` says where to send. They differ in two
terms. A linear wait herds, so `RANK` prices congestion with one that is convex in (in-flight + 1) /
slots and takes it that other routers have sent as much unseen as we have (as far as there are
others); and taste enters `RANK` only.
"""

from collections.abc import Callable
from dataclasses import dataclass

from router.fleet.endpoint import Candidate
from router.policy.query import Query
from router.wire.report import ModelState

Score = Callable[[Query, Candidate], float]

HERD = 8
"""With this many independent routers, what one of them has sent unseen is counted twice."""


def net_s(query: Query, candidate: Candidate) -> float:
    """The round trip from the query's vantage."""
    if query.vantage is None:
        return candidate.net_s
    return query.vantage[candidate.endpoint.region]


def wait_s(query: Query, candidate: Candidate) -> float:
    """Time in the endpoint's queue: the requests beyond its slots, one service time a round."""
    del query
    ahead = candidate.in_flight + 1 - candidate.slots
    return candidate.service_s * max(0, ahead) / candidate.slots


def congestion_s(query: Query, candidate: Candidate) -> float:
    """The price of a slot: nothing while one is free, then the square of the load."""
    del query
    others = min(1.0, (candidate.views - 1) / (HERD - 1))
    load = (candidate.in_flight + others * candidate.unseen + 1) / candidate.slots
    return candidate.service_s * load * load if load > 1 else 0.0


def service_s(query: Query, candidate: Candidate) -> float:
    """One request alone in a slot."""
    del query
    return candidate.service_s


def cold_s(query: Query, candidate: Candidate) -> float:
    """What is left of a load under way, or a whole one."""
    if candidate.state is ModelState.WARM:
        return 0.0
    if candidate.state is ModelState.COLD:
        return candidate.load_s
    return max(0.0, candidate.warm_at_s - query.now_s)


def taste_s(query: Query, candidate: Candidate) -> float:
    """The seconds that the policy favours the region by, as a negative number."""
    return 0.0 - query.preferred.get(candidate.endpoint.region, 0.0)


RANK: tuple[Score, ...] = (net_s, congestion_s, service_s, cold_s, taste_s)


@dataclass(frozen=True, slots=True)
class Seconds:
    """The terms of one candidate, for explanation; `total` is the prediction."""

    net: float
    wait: float
    service: float
    cold: float
    taste: float

    @property
    def total(self) -> float:
        """Predicted seconds until the answer."""
        return self.net + self.wait + self.service + self.cold


def seconds(query: Query, candidate: Candidate) -> Seconds:
    """Every term of one candidate."""
    return Seconds(
        net=net_s(query, candidate),
        wait=wait_s(query, candidate),
        service=service_s(query, candidate),
        cold=cold_s(query, candidate),
        taste=taste_s(query, candidate),
    )
