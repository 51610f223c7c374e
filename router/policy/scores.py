"""Seconds until the answer, term by term, and the two sums over them.

`Seconds.total` says what will happen; the sum of `RANK` says where to send. They differ in two
terms: `RANK` prices congestion instead of predicting the wait (see `fleet.congestion`), and only
`RANK` has the preferences of the policy. A new score (a price, a weight) is one function of that
type, appended: `Policy(rank=(*RANK, price_s))`.
"""

import math
from collections.abc import Callable

import msgspec

from isochrone.router.fleet import rank
from isochrone.router.fleet.candidate import UNLOADED, Candidate
from isochrone.router.policy.query import Query
from isochrone.router.wire.report import ModelState

Score = Callable[[Query, Candidate], float]

_WARM = ModelState.WARM
_LEAST_LOAD_SHARE = 0.05
"""Of a load; nearly done is not done."""
_COLD_SIGMA_SHARE = 0.3
"""How far loads of one model on one machine lie apart, as a share of their mean."""


def net_s(query: Query, candidate: Candidate) -> float:
    """The round trip from the query's vantage, and the time that the payload takes."""
    payload_s = candidate.byte_s * query.body_bytes
    if query.vantage is None:
        return candidate.net_s + payload_s
    endpoint = candidate.endpoint
    return query.vantage.net(endpoint.name, endpoint.region).mean_s + payload_s


def wait_s(query: Query, candidate: Candidate) -> float:
    """Time in the endpoint's queue: what requests sent at this load have waited."""
    del query
    return candidate.wait[0]


def service_s(query: Query, candidate: Candidate) -> float:
    """This request alone in a slot: longer for a longer payload where that was seen to matter."""
    further_bytes = query.body_bytes - candidate.mean_bytes
    return candidate.service_s + candidate.service_byte_s * further_bytes


def warm_s(query: Query, candidate: Candidate) -> float:
    """The rank as if the model were warm there: way, service and the price of the load."""
    warm_s = rank.warm_s(candidate, query.body_bytes)
    if query.vantage is None:
        return warm_s
    endpoint = candidate.endpoint
    return warm_s - candidate.net_s + query.vantage.net(endpoint.name, endpoint.region).mean_s


def cold_s(query: Query, candidate: Candidate) -> float:
    """What is left of a load under way, or a whole one."""
    if candidate.state is ModelState.WARM:
        return 0.0
    if candidate.state in UNLOADED:
        return candidate.load_s
    left_s = candidate.warm_at_s - query.now_s
    # What is overdue takes about as long again as it is overdue.
    return max(left_s, -left_s, _LEAST_LOAD_SHARE * candidate.load_s)


def taste_s(query: Query, candidate: Candidate) -> float:
    """The seconds that the policy favours the region by, as a negative number."""
    return 0.0 - query.preferred.get(candidate.endpoint.region, 0.0)


KEPT: tuple[Score, ...] = (warm_s, cold_s)
"""The ledger keeps their sum for every candidate that is warm and usable."""
RANK: tuple[Score, ...] = (*KEPT, taste_s)


class Seconds(msgspec.Struct, frozen=True, gc=False):
    """The terms of one candidate; `total` is the prediction, `sigma` its standard deviation."""

    net: float
    wait: float
    service: float
    cold: float
    taste: float
    total: float
    sigma: float


def seconds(query: Query, candidate: Candidate) -> Seconds:
    """Every term of one candidate."""
    wait, wait_variance = candidate.wait
    net, net_variance = net_s(query, candidate), candidate.net_variance
    service = service_s(query, candidate)
    if query.vantage is not None:
        endpoint = candidate.endpoint
        net_variance = query.vantage.net(endpoint.name, endpoint.region).sigma_s ** 2
    # the terms err independently of each other
    variance = net_variance + wait_variance + candidate.service_variance
    cold = 0.0
    if candidate.state is not _WARM:
        cold = cold_s(query, candidate)
        variance += (_COLD_SIGMA_SHARE * cold) ** 2
    taste = taste_s(query, candidate) if query.preferred else 0.0
    total = net + wait + service + cold
    return Seconds(net, wait, service, cold, taste, total, math.sqrt(variance))
