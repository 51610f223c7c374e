"""Peak-EWMA: an average of latency that believes every peak at once and forgets it slowly.

Source: Finagle's `PeakEwma`, tower's `load::PeakEwma`, and the constants of linkerd2-proxy, read in
their sources. The load of an endpoint is its average times its own requests in flight plus one;
linkerd takes the lesser of two endpoints at random. The full scan takes the least of all.

As there: the average starts at a default for every endpoint, whatever distance says, and decays
towards zero while nothing is heard, so that all are tried again; reading the load writes the decay
down; latency is what the router sees, network included; a try that failed counts as an observation
of the time it took. Two equal loads: the first drawn; a full scan draws among equals.
"""

import math
from collections.abc import Sequence
from random import Random

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.algorithm import Call, Reply, Site
from isochrone.router.simulate.baselines.rule import Rule, least, two

DEFAULT_RTT_S = 0.03
"""The average of an endpoint that was never heard of (linkerd)."""
TAU_S = 10.0
"""How slowly it forgets (linkerd, Finagle)."""


class PeakEwma:
    """The average of one endpoint, in seconds."""

    __slots__ = ("_at_s", "value_s")

    def __init__(self, now_s: float) -> None:
        """Nothing has been observed yet."""
        self.value_s = DEFAULT_RTT_S
        self._at_s = now_s

    def observe(self, sample_s: float, now_s: float) -> float:
        """Fold one sample in, and say what the average is now."""
        if sample_s > self.value_s:
            self.value_s = sample_s
        else:
            kept = math.exp((self._at_s - now_s) / TAU_S)
            self.value_s = self.value_s * kept + sample_s * (1 - kept)
        self._at_s = now_s
        return self.value_s


class PeakEwmaScan(Rule):
    """The least load of all."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._averages: dict[str, PeakEwma] = {}
        self._sent_s: dict[tuple[int, str], float] = {}

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """The least load."""
        del call
        return least(sites, lambda site: self.load(site, now_s), self.rng)

    def load(self, site: Site, now_s: float) -> float:
        """Its decayed average times the requests that would be in flight there."""
        return self._average(site, now_s).observe(0.0, now_s) * (self.in_flight[site.name] + 1)

    def sent(self, call: Call, site: Site, now_s: float) -> None:
        """Its clock starts."""
        super().sent(call, site, now_s)
        self._sent_s[call.number, site.name] = now_s

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        """The whole time that it took is observed."""
        super().answered(call, site, reply, now_s)
        self._observe(call, site, now_s)

    def failed(self, call: Call, site: Site, outcome: Outcome, now_s: float) -> None:
        """And so it is where it failed, however fast."""
        super().failed(call, site, outcome, now_s)
        self._observe(call, site, now_s)

    def _observe(self, call: Call, site: Site, now_s: float) -> None:
        took_s = now_s - self._sent_s.pop((call.number, site.name))
        self._average(site, now_s).observe(took_s, now_s)

    def _average(self, site: Site, now_s: float) -> PeakEwma:
        average = self._averages.get(site.name)
        if average is None:
            average = self._averages[site.name] = PeakEwma(now_s)
        return average


class PeakEwmaTwo(PeakEwmaScan):
    """The lesser load of two endpoints at random."""

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """Of two."""
        del call
        return min(two(sites, self.rng), key=lambda site: self.load(site, now_s))
