"""The power of two choices: of two endpoints at random, the one with fewer requests in flight.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE Transactions on
Parallel and Distributed Systems 12(10), 2001; Vvedenskaya, Dobrushin and Karpelevich 1996. As
Envoy, Finagle and gRPC do it, with the requests that this router itself has under way there.
"""

from collections.abc import Sequence

from isochrone.router.simulate.algorithm import Call, Site
from isochrone.router.simulate.baselines.rule import Rule, two


class LeastRequest(Rule):
    """The better of two."""

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site:
        """Fewer own requests in flight; where equal, the first drawn."""
        del call, now_s
        return min(two(sites, self.rng), key=lambda site: self.in_flight[site.name])
