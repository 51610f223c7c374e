"""C3: a score that is cubic in the queue which a router must expect, its rivals' requests included.

Source: Suresh, Canini, Schmid and Feldmann, "C3: Cutting Tail Latency in Cloud Data Stores via
Adaptive Replica Selection", NSDI 2015; details as in the authors' simulator (absim) and their
Cassandra (cassandra-c3), read in their sources:

    queue = 1 + outstanding * routers + average queue
    score = average (latency - service) + queue^3 * average service

with the newest sample weighing 0.9. The queue that an endpoint reports is what waits there for a
slot when an answer leaves, as in the simulator; `latency - service` therefore holds the network
and the wait. A failed try teaches nothing. Outstanding are this router's own requests there.

Two departures. Before its first answer an endpoint is scored with the round trip that distance
says, an empty queue and the mean service of those measured (the sources score it 0, so that all
requests of a round trip go there). And the rate control is left out: it holds requests back by
comparing how many were sent and answered per 20 ms, and between one router and one endpoint there
is mostly less than one here, so that it would only slow C3 down; the paper's comparison of scores
does not need it.
"""

from collections.abc import Sequence
from random import Random

from isochrone.router.simulate.algorithm import Call, Reply, Site
from isochrone.router.simulate.baselines.rule import Rule, least

ALPHA = 0.9
"""The weight of the newest sample."""
EXPONENT = 3


class Feedback:
    """The averages of one endpoint: seconds besides service, seconds of service, waiting count."""

    __slots__ = ("besides_s", "queue", "service_s")

    def __init__(self, besides_s: float, service_s: float, queue: float) -> None:
        self.besides_s = besides_s
        self.service_s = service_s
        self.queue = queue

    def fold(self, besides_s: float, service_s: float, queue: float) -> None:
        """One more answer."""
        self.besides_s += ALPHA * (besides_s - self.besides_s)
        self.service_s += ALPHA * (service_s - self.service_s)
        self.queue += ALPHA * (queue - self.queue)


class C3(Rule):
    """The least score of all."""

    def __init__(self, rng: Random, routers: int) -> None:
        """`routers` is how many send to the same endpoints, this one included."""
        super().__init__(rng)
        self._routers = routers
        self._feedback: dict[str, Feedback] = {}

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """The least score; among equals, any."""
        del call, now_s
        return least(sites, self.score, self.rng)

    def score(self, site: Site) -> float:
        """In seconds, though it predicts nothing."""
        seen = self._feedback.get(site.name) or Feedback(site.prior_rtt_s, self._usual_s(), 0.0)
        queue = 1 + self.in_flight[site.name] * self._routers + seen.queue
        return float(seen.besides_s + queue**EXPONENT * seen.service_s)

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        """Fold in what the endpoint reports."""
        super().answered(call, site, reply, now_s)
        besides_s = reply.latency_s - reply.infer_s
        queue = max(0, reply.in_flight - reply.slots)
        seen = self._feedback.get(site.name)
        if seen is None:
            self._feedback[site.name] = Feedback(besides_s, reply.infer_s, queue)
        else:
            seen.fold(besides_s, reply.infer_s, queue)

    def _usual_s(self) -> float:
        """The mean service of the endpoints that have answered."""
        seen = self._feedback.values()
        return sum(one.service_s for one in seen) / len(seen) if seen else 0.0
