"""What goes wrong in a run, and when: the scenario's faults and its antagonists, one list."""

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

from isochrone.router.simulate.scenario import Antagonists, Fault, Scenario

What = Literal["kill", "freeze", "slow", "fast_fail", "unload"]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One endpoint (its index in the scenario) is disturbed from `from_s` until `until_s`.

    kill: connections are refused, and what was there is lost. freeze: nothing is answered; all goes
    on afterwards. slow: service that begins takes `factor` times as long (factors of disturbances
    that overlap multiply). fast_fail: an error at once. unload: the model is cold at `from_s`.
    """

    what: What
    endpoint: int
    from_s: float
    until_s: float
    factor: float = 1.0


def disturbances(scenario: Scenario, seed: int) -> list[Disturbance]:
    """All of a run, in order of their beginnings; the same for every rule of a seed."""
    faults = [one for fault in scenario.faults for one in _of_fault(fault, scenario)]
    found = [*faults, *_of_antagonists(scenario, Random(f"antagonists/{seed}"))]
    return sorted(found, key=lambda one: (one.from_s, one.endpoint))


def _of_fault(fault: Fault, scenario: Scenario) -> list[Disturbance]:
    what: What = _WHAT[fault.kind]
    until_s = math.inf if fault.for_s is None else fault.at_s + fault.for_s
    return [
        Disturbance(what, index, fault.at_s, until_s, fault.factor)
        for index, endpoint in enumerate(scenario.endpoints)
        if (endpoint.region if fault.kind == "region_loss" else endpoint.name) in fault.where
    ]


_WHAT: dict[str, What] = {
    "kill": "kill",
    "freeze": "freeze",
    "slow": "slow",
    "fast_fail": "fast_fail",
    "region_loss": "kill",
    "scale_to_zero": "unload",
}


def _of_antagonists(scenario: Scenario, rng: Random) -> list[Disturbance]:
    antagonists = scenario.antagonists
    if antagonists is None:
        return []
    exposed = [
        index
        for index, endpoint in enumerate(scenario.endpoints)
        if antagonists.tier in ("any", endpoint.tier)
    ]
    chosen = rng.sample(exposed, round(antagonists.share * len(exposed)))
    return [one for index in chosen for one in _periods(antagonists, index, scenario.seconds, rng)]


def _periods(
    antagonists: Antagonists, endpoint: int, seconds: float, rng: Random
) -> list[Disturbance]:
    """Quiet and slow in turn, beginning anywhere in the cycle."""
    slow_s, quiet_s = antagonists.slow_s, antagonists.quiet_s
    slow = rng.random() < slow_s / (slow_s + quiet_s)
    found = []
    now_s = 0.0
    while now_s < seconds:
        until_s = now_s + rng.expovariate(1 / (slow_s if slow else quiet_s))
        if slow:
            found.append(Disturbance("slow", endpoint, now_s, until_s, antagonists.factor))
        now_s, slow = until_s, not slow
    return found
