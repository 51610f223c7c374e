"""Round robin: each in its turn.

Source: nginx and HAProxy, weights all alike. Which endpoints may be asked differs from call to call
(law, earlier tries), so the turn is kept as the order of last uses: among those that may be asked,
it is the turn of the one that was asked longest ago. With one set of endpoints that is the usual
cycle. The first cycle of every router begins somewhere else, as Envoy's does, so that routers do
not march in step.
"""

from collections.abc import Sequence
from random import Random

from isochrone.router.simulate.algorithm import Call, Site
from isochrone.router.simulate.baselines.rule import Rule


class RoundRobin(Rule):
    """Each in its turn."""

    def __init__(self, sites: Sequence[Site], rng: Random) -> None:
        super().__init__(rng)
        start = int(rng.random() * len(sites))
        self._last = {
            site.name: (place - start) % len(sites) - len(sites) for place, site in enumerate(sites)
        }
        self._turn = 0

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """The one that was chosen longest ago; one never seen before comes first."""
        del call, now_s
        last, never = self._last, -len(self._last) - 1
        chosen = min(sites, key=lambda site: last.get(site.name, never))
        self._turn += 1
        last[chosen.name] = self._turn
        return chosen
