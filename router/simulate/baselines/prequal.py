"""Prequal: probes ahead of need; of the endpoints that are not hot, the one with least latency.

Source: Wydrowski, Kleinberg, Rumble and Archer, "Load is not what you should balance: Introducing
Prequal", NSDI 2024 (arXiv 2312.10172), with the constants of its testbed; where the paper leaves a
detail open, as the re-implementation prequal-rs does it, read in its source.

- Every request sends 3 probes, to different endpoints at random, that are not waited for. Answers
  go to a pool of 16, one for each endpoint, the newest; the oldest leaves when it is full, and
  whatever is older than 1 s. Every request takes one away besides: the oldest and the worst (of the
  hot the most loaded, else the slowest) in turn. An answer serves `reuse` choices, a number that
  is rounded up or down at random.
- Hot is whose requests in flight are above the 2^-0.25 quantile of those in recent answers. The
  cold one with least latency wins; where all are hot, the one with fewest in flight. Each use adds
  one to the requests in flight that the answer told. With less than two answers in the pool, or
  none of an endpoint that the call may go to, chance decides.

Made to fit a world that is not one datacentre: requests in flight are divided by slots, and the
measured round trip is added to latency. A server of the paper reports the latency of recent
requests at as many in flight, waiting included; endpoints here report service alone, so the wait
that so many in flight make is added. Left out: the guard against endpoints that fail fast, which
the paper mentions but does not describe, and probes when idle.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from isochrone.router.simulate.algorithm import Call, Reply, Site
from isochrone.router.simulate.baselines.rule import Rule, least
from isochrone.router.simulate.statistics import quantile

PROBES = 3
"""Probes per request."""
REMOVED = 1
"""Answers taken from the pool per request, used or not."""
POOL = 16
AGE_S = 1.0
HOT_QUANTILE = 2**-0.25
DELTA = 1.0
"""By how much more answers come than go, over one use of each."""
MOST_USES = 16
"""Where the paper's formula has no value: more leave the pool than come in."""
RECENT = 64
"""Of so many answers the quantile is taken (prequal-rs)."""
LEAST_POOL = 2


@dataclass(slots=True)
class Answer:
    """What one probe told: requests in flight over slots, and seconds there."""

    site: Site
    at_s: float
    busy: float
    there_s: float
    uses: int


class Prequal(Rule):
    """Hot-cold lexicographic choice over a pool of probes."""

    def __init__(self, sites: Sequence[Site], rng: Random) -> None:
        super().__init__(rng)
        self.pool: dict[str, Answer] = {}
        """By endpoint, the oldest first."""
        self._endpoints = {site.name for site in sites}
        self._busy: deque[float] = deque(maxlen=RECENT)
        self._oldest_next = True

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """From the pool, or by chance."""
        del call
        self._expire(now_s)
        hot_above = quantile(sorted(self._busy), HOT_QUANTILE)
        usable = [site for site in sites if site.name in self.pool]
        if len(self.pool) < LEAST_POOL or not usable:
            chosen = sites[int(self.rng.random() * len(sites))]
        else:
            chosen = self._best(usable, hot_above)
            self._use(chosen)
        for _ in range(REMOVED):
            self._remove(hot_above)
        return chosen

    def due(self, call: Call, sites: Sequence[Site], now_s: float) -> Sequence[Site]:
        """Three at random."""
        del call, now_s
        self._endpoints.update(site.name for site in sites)
        return self.rng.sample(sites, min(PROBES, len(sites)))

    def probed(self, site: Site, reply: Reply | None, now_s: float) -> None:
        """Its answer enters the pool."""
        super().probed(site, reply, now_s)
        if reply is None:
            return
        busy = reply.in_flight / reply.slots
        self._busy.append(busy)
        self.pool.pop(site.name, None)
        self.pool[site.name] = Answer(site, now_s, busy, there_s(reply), self._uses())
        if len(self.pool) > POOL:
            self._remove_oldest()

    @property
    def reuse(self) -> float:
        """How many choices one answer serves on average: equation 1 of the paper."""
        share_new = 1 - POOL / max(1, len(self._endpoints))
        net = share_new * PROBES - REMOVED
        return min(MOST_USES, max(1.0, (1 + DELTA) / net)) if net > 0 else MOST_USES

    def _uses(self) -> int:
        return int(self.reuse + self.rng.random())

    def _best(self, usable: Sequence[Site], hot_above: float) -> Site:
        pool = self.pool
        cold = [site for site in usable if pool[site.name].busy <= hot_above]
        if cold:
            return least(cold, lambda site: pool[site.name].there_s + self.trips.of(site), self.rng)
        return least(usable, lambda site: pool[site.name].busy, self.rng)

    def _use(self, site: Site) -> None:
        answer = self.pool[site.name]
        answer.busy += 1 / site.slots
        answer.uses -= 1
        if answer.uses <= 0:
            del self.pool[site.name]

    def _expire(self, now_s: float) -> None:
        while self.pool and now_s - next(iter(self.pool.values())).at_s > AGE_S:
            self._remove_oldest()

    def _remove(self, hot_above: float) -> None:
        if self.pool and self._oldest_next:
            self._remove_oldest()
        elif self.pool:
            del self.pool[self._worst(hot_above)]
        self._oldest_next = not self._oldest_next

    def _remove_oldest(self) -> None:
        del self.pool[next(iter(self.pool))]

    def _worst(self, hot_above: float) -> str:
        hot = [name for name, answer in self.pool.items() if answer.busy > hot_above]
        if hot:
            return max(hot, key=lambda name: self.pool[name].busy)
        return max(
            self.pool,
            key=lambda name: self.pool[name].there_s + self.trips.of(self.pool[name].site),
        )


def there_s(reply: Reply) -> float:
    """Seconds that a request more would spend at the endpoint, its wait for a slot included."""
    return reply.recent_s * (1 + max(0, reply.in_flight + 1 - reply.slots) / reply.slots)
