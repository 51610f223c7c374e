"""Selective pushing: send only where nothing waits, else keep the request at the router.

Source: Xia, Mao, Kerney, Jackson, Li, Xing, Shenker and Stoica, "SkyWalker: A Locality-Aware
Cross-Region Load Balancer for LLM Inference", EuroSys 2026 (arXiv 2505.24095), and the authors'
load balancer, read in its source: a replica is available while its own queue of pending requests
is empty, as polled every 100 ms; requests that find none available stay at the router in order.

Translated to endpoints with slots, where one request more waits as soon as all are taken: available
is who is known to have fewer requests in flight than slots. Known are this router's own requests
there and, beside them, as many of others as the last answer or poll told, for 1 s. Of those
available the nearest is taken, by measured round trip (the paper's local region first; its prefix
trees have nothing to do here, and neither has the handing over between balancers, for every router
reaches every endpoint).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from isochrone.router.simulate.algorithm import Call, Reply, Site
from isochrone.router.simulate.baselines.rule import Rule

POLL_S = 0.1
BELIEVED_S = 1.0
"""What was told of others' requests is forgotten after so long, lest all wait for no news."""


@dataclass(slots=True)
class Told:
    """Requests of others at one endpoint, when that was heard, and when it was last polled."""

    others: int = 0
    at_s: float = float("-inf")
    polled_s: float = float("-inf")


class SelectivePush(Rule):
    """The nearest endpoint with a free slot, if any."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._told: dict[str, Told] = {}

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site | None:
        """None while every slot is taken."""
        del call
        free = [site for site in sites if self.known(site, now_s) < site.slots]
        return min(free, key=self.trips.of, default=None)

    def known(self, site: Site, now_s: float) -> int:
        """Requests in flight there, as far as this router knows."""
        told = self._of(site)
        others = told.others if now_s - told.at_s <= BELIEVED_S else 0
        return self.in_flight[site.name] + others

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        """It tells what is in flight there now."""
        super().answered(call, site, reply, now_s)
        self._hear(site, reply, now_s)

    def due(self, call: Call, sites: Sequence[Site], now_s: float) -> list[Site]:
        """Every endpoint that was not polled for 100 ms."""
        del call
        late = [site for site in sites if now_s - self._of(site).polled_s >= POLL_S]
        for site in late:
            self._of(site).polled_s = now_s
        return late

    def probed(self, site: Site, reply: Reply | None, now_s: float) -> None:
        """It tells the same."""
        super().probed(site, reply, now_s)
        if reply is not None:
            self._hear(site, reply, now_s)

    def _hear(self, site: Site, reply: Reply, now_s: float) -> None:
        told = self._of(site)
        told.others = max(0, reply.in_flight - self.in_flight[site.name])
        told.at_s = now_s

    def _of(self, site: Site) -> Told:
        told = self._told.get(site.name)
        if told is None:
            told = self._told[site.name] = Told()
        return told
