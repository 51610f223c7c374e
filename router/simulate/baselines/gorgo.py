"""GORGO's rule: round trip, plus the request's own prefill, plus the prefill queued before it.

Source: Ricci Toniolo, Thorstenson and Dinesh, "GORGO: Online Tuning for Cross-Region Network-Aware
LLM Serving" (first version: "Maximizing KV-Cache Reuse While Minimizing Network Latency in
Cross-Region LLM Load Balancing"), arXiv 2602.11688, 2026, and the authors' proxies (gotoni, GORGO),
read in their sources:

    cost = round trip + seconds per token * (tokens not cached + tokens queued there)

with all weights 1, the seconds per token fitted for each endpoint from its last 16 answers, and
those of the fleet until there is one. Round trips are averaged with weight 0.3. Metrics of every
endpoint are polled twice a second; who misses three polls in a row is unhealthy until it answers
one, and is taken only where all are.

Translated to requests that have no tokens: `work` takes their place, nothing is ever cached, and
queued is the work that this router has sent and not seen ended, plus that of others: what the last
poll or answer told to be in flight there beyond this router's own, at this router's mean work. As
an endpoint works on `slots` requests at once, what is queued counts divided by slots (the authors'
proxy is alone and counts tokens into one batch). The weights' evolutionary tuning is left out; the
rule with its physical unit, seconds, needs none.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.algorithm import Call, Reply, Site
from isochrone.router.simulate.baselines.rule import RoundTrips, Rule, least

TRIP_ALPHA = 0.3
"""The weight of one more round trip."""
POLL_S = 0.5
SAMPLES = 16
MISSED = 3
"""So many polls in a row without an answer make an endpoint unhealthy."""
_WORK_ALPHA = 0.05


@dataclass(slots=True)
class Replica:
    """One endpoint as GORGO knows it; rates are seconds per unit of work."""

    rates_s: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    rate_s: float | None = None
    own_work: float = 0.0
    others: int = 0
    polled_s: float = float("-inf")
    missed: int = 0


class Gorgo(Rule):
    """The least cost of all."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng, RoundTrips(TRIP_ALPHA))
        self._replicas: dict[str, Replica] = {}
        self._mean_work = 1.0
        self._usual_s = 0.0

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """The least cost of the healthy; among equals, any."""
        del now_s
        healthy = [site for site in sites if self._replica(site).missed < MISSED]
        return least(healthy or sites, lambda site: self.cost_s(call, site), self.rng)

    def cost_s(self, call: Call, site: Site) -> float:
        """Seconds until its prefill would be done."""
        replica = self._replica(site)
        rate_s = self._usual_s if replica.rate_s is None else replica.rate_s
        queued = replica.own_work + replica.others * self._mean_work
        return self.trips.of(site) + rate_s * (call.work + queued / site.slots)

    def sent(self, call: Call, site: Site, now_s: float) -> None:
        """Its work is queued there."""
        super().sent(call, site, now_s)
        self._replica(site).own_work += call.work
        self._mean_work += _WORK_ALPHA * (call.work - self._mean_work)

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        """Its work is done, and told how long work takes there."""
        super().answered(call, site, reply, now_s)
        self._done(call, site)
        self._told(site, reply)
        if call.work > 0:
            self._fit(self._replica(site), reply.infer_s / call.work)

    def failed(self, call: Call, site: Site, outcome: Outcome, now_s: float) -> None:
        """Its work is gone."""
        super().failed(call, site, outcome, now_s)
        self._done(call, site)

    def due(self, call: Call, sites: Sequence[Site], now_s: float) -> list[Site]:
        """Every endpoint that was not polled for half a second."""
        del call
        late = [site for site in sites if now_s - self._replica(site).polled_s >= POLL_S]
        for site in late:
            self._replica(site).polled_s = now_s
        return late

    def probed(self, site: Site, reply: Reply | None, now_s: float) -> None:
        """How much is in flight there, and how far it is."""
        super().probed(site, reply, now_s)
        if reply is None:
            self._replica(site).missed += 1
        else:
            self._replica(site).missed = 0
            self._told(site, reply)

    def _told(self, site: Site, reply: Reply) -> None:
        self._replica(site).others = max(0, reply.in_flight - self.in_flight[site.name])

    def _done(self, call: Call, site: Site) -> None:
        replica = self._replica(site)
        left = replica.own_work - call.work
        replica.own_work = left if self.in_flight[site.name] else 0.0  # no rounding left over

    def _fit(self, replica: Replica, sample_s: float) -> None:
        replica.rates_s.append(sample_s)
        replica.rate_s = sum(replica.rates_s) / len(replica.rates_s)
        fitted = [one.rate_s for one in self._replicas.values() if one.rate_s is not None]
        self._usual_s = sum(fitted) / len(fitted)

    def _replica(self, site: Site) -> Replica:
        replica = self._replicas.get(site.name)
        if replica is None:
            replica = self._replicas[site.name] = Replica()
        return replica
