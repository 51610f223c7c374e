"""The truth at an instant, as one router could know it if it knew everything.

It knows what runs, waits and is on its way at every endpoint and how long each of these will hold a
slot, true round trips, and who is slowed down now. Of the request itself it knows what can be seen:
its work, not what chance will make of it.
"""

import math
from collections.abc import Iterator, Mapping
from heapq import heapify, heapreplace

from isochrone.router.simulate.algorithm import Call, Site
from isochrone.router.simulate.endpoint import SimulatedEndpoint
from isochrone.router.simulate.engine import Engine
from isochrone.router.simulate.way import Way


class Truth:
    """The oracle of one router. Satisfies `Oracle`."""

    def __init__(self, ways: Mapping[str, Way], engine: Engine) -> None:
        """`ways` are this router's, by the endpoint's name."""
        self._ways = ways
        self._engine = engine

    def rtt_s(self, site: Site) -> float:
        """The least round trip from this router."""
        return self._ways[site.name].rtt_s

    def backlog_s(self, site: Site) -> float:
        """The work that runs and waits there or is on its way, in slot-seconds."""
        endpoint, now_s = self._ways[site.name].endpoint, self._engine.now_s
        runs_s = sum(max(0.0, visit.due_s - now_s) for visit in endpoint.running)
        ahead = (*endpoint.waiting, *endpoint.aside, *endpoint.coming)
        return runs_s + sum(visit.planned_s for visit in ahead)

    def present(self, site: Site) -> int:
        """How many run and wait there."""
        return self._ways[site.name].endpoint.in_flight

    def coming(self, site: Site) -> int:
        """How many are on their way there, from everywhere."""
        return len(self._ways[site.name].endpoint.coming)

    def service_s(self, call: Call, site: Site) -> float:
        """How long a call of this work is expected to hold a slot there."""
        return self._ways[site.name].endpoint.expected_s(call.work)

    def wait_s(self, call: Call, site: Site) -> float:
        """How long it would wait there if it left now; infinite where it would not be answered."""
        way = self._ways[site.name]
        arrives_s = self._engine.now_s + way.there_s(call.body_bytes)
        return wait_s(way.endpoint, self._engine.now_s, arrives_s)

    def rate_s(self, site: Site) -> float:
        """Requests per second that were sent there lately, by everybody."""
        return self._ways[site.name].endpoint.rate_s

    def total_s(self, call: Call, site: Site) -> float:
        """Seconds until its answer, if it left now."""
        way = self._ways[site.name]
        net_s = way.there_s(call.body_bytes) + way.rtt_s / 2
        return net_s + self.wait_s(call, site) + self.service_s(call, site)


def wait_s(endpoint: SimulatedEndpoint, now_s: float, arrives_s: float) -> float:
    """How long whoever arrives then waits for a slot: the line is played to its end.

    In the order of the line as it stands, then of arrivals; priorities within it are not looked at.
    """
    if endpoint.dead or endpoint.failing:
        return math.inf
    warmth = endpoint.warmth
    ready_s = max(endpoint.frozen_until_s, now_s + warmth.due_s)
    ahead = len(endpoint.running) + endpoint.queued + len(endpoint.coming)
    if ahead < endpoint.slots:
        return max(0.0, ready_s - arrives_s)
    free_s = [visit.due_s for visit in endpoint.running]
    free_s += [now_s] * (endpoint.slots - len(free_s))
    heapify(free_s)
    for begins_s, service_s in _ahead(endpoint, now_s, arrives_s):
        heapreplace(free_s, max(free_s[0], begins_s, ready_s) + service_s)
    return max(0.0, free_s[0] - arrives_s, ready_s - arrives_s)


def _ahead(
    endpoint: SimulatedEndpoint, now_s: float, arrives_s: float
) -> Iterator[tuple[float, float]]:
    """Who will be there first: from when on, and for how long each."""
    for visit in (*endpoint.waiting, *endpoint.aside):
        yield now_s, visit.planned_s
    yield from sorted(
        (visit.arrived_s, visit.planned_s)
        for visit in endpoint.coming
        if visit.arrived_s <= arrives_s
    )
