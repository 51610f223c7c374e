"""References: rules that know the truth. They bound nothing, but show what exact state is worth.

`Greedy` sends each call where its own answer comes first. `Considerate` adds the delay that the
call imposes on others there; it is one step of policy improvement over a fixed split of the
requests, as in Krishnan, "Joining the right queue" (1990), with the size-aware value function of
Hyytiä, Penttinen and Aalto, "Size- and state-aware dispatching problem with queue-specific job
sizes", EJOR 217 (2012): in an M/G/1 queue with a backlog of u seconds and a rate of λ, a job of x
seconds adds

    λ / (2 (1 - ρ)) * ((u + x)² - u²)

seconds to the waits of those who come later. An endpoint of c slots is taken for one that is c
times as fast, weighed by how likely all of its slots are in use then (a power of its utilisation).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.simulate.algorithm import Call, Oracle, Reply, Site

WEIGHT = 0.1
"""What a second of that formula counts against one's own.

It takes for fixed how the requests are split, whereas here they go round what is long, so it says
too much. Of 0.03, 0.06, 0.1, 0.15, 0.25, 0.5 and 1 this one had the least p99 in `worldwide` at
loads 0.6 and 0.8 together, on the cities and two of the seeds that are for tuning.
"""
MOST_BUSY = 0.95
"""Utilisation is taken for no more than this: beyond, there is no steady state to reckon with."""


@dataclass(frozen=True, slots=True)
class Greedy:
    """The least true completion, each for itself."""

    sites: Sequence[Site]
    rng: Random
    oracle: Oracle

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site | None:
        """The endpoint that answers first."""
        del now_s
        return min(sites, key=lambda site: self.seconds(call, site))

    def seconds(self, call: Call, site: Site) -> float:
        """Until the answer, truly."""
        oracle = self.oracle
        return oracle.rtt_s(site) + oracle.wait_s(call, site) + oracle.service_s(call, site)

    def sent(self, call: Call, site: Site, now_s: float) -> None:
        """The oracle knows."""

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        """The oracle knows."""

    def failed(self, call: Call, site: Site, outcome: Outcome, now_s: float) -> None:
        """The oracle knows."""

    def due(self, call: Call, sites: Sequence[Site], now_s: float) -> Sequence[Site]:
        """Nobody needs to be asked."""
        del call, sites, now_s
        return ()

    def probed(self, site: Site, reply: Reply | None, now_s: float) -> None:
        """Nobody was."""


@dataclass(frozen=True, slots=True)
class Considerate(Greedy):
    """The least true completion plus the delay imposed on others."""

    weight: float = WEIGHT

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site | None:
        """The endpoint where all together lose least."""
        del now_s
        return min(sites, key=lambda site: self.seconds(call, site) + self.imposed_s(call, site))

    def imposed_s(self, call: Call, site: Site) -> float:
        """Seconds that others will wait longer."""
        oracle = self.oracle
        service_s = oracle.service_s(call, site)
        usual_s = service_s / call.work
        rate_s = oracle.rate_s(site)
        busy = min(MOST_BUSY, rate_s * usual_s / site.slots)
        return self.weight * imposed_s(
            rate_s=rate_s,
            busy=busy,
            backlog_s=oracle.backlog_s(site),
            service_s=service_s,
            slots=site.slots,
        )


def imposed_s(
    *, rate_s: float, busy: float, backlog_s: float, service_s: float, slots: int
) -> float:
    """What a job adds to the waits of those who come later (module docstring)."""
    ahead_s, more_s = backlog_s / slots, service_s / slots
    added = (ahead_s + more_s) ** 2 - ahead_s**2
    return busy ** (slots - 1) * rate_s * added / (2 * (1 - busy))


def greedy(sites: Sequence[Site], rng: Random, oracle: Oracle) -> Greedy:
    """A `Factory`."""
    return Greedy(sites, rng, oracle)


def considerate(sites: Sequence[Site], rng: Random, oracle: Oracle) -> Considerate:
    """A `Factory`."""
    return Considerate(sites, rng, oracle)
