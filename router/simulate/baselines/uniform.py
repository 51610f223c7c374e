"""At random: every endpoint is as likely as the others, whatever is known of it.

Source: none is needed; it is the yardstick of all of them, and the default of Envoy's `random`.
"""

from collections.abc import Sequence

from isochrone.router.simulate.algorithm import Call, Site
from isochrone.router.simulate.baselines.rule import Rule


class Uniform(Rule):
    """At random."""

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """Any."""
        del call, now_s
        return sites[int(self.rng.random() * len(sites))]
