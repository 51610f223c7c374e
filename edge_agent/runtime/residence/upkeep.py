"""How models are kept in memory: under which budget, for how long, in whose process."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from isochrone.edge_agent.runtime.package.manifest import Isolation
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.residence.keepalive import NEVER_S

LOAD_TIMEOUT_S = 300.0
"""All other loads wait for one; to read gigabytes from a slow disk takes minutes."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """For a pool; without a word, everything stays in memory, in the pool's own process.

    `budget_bytes` is what all models may take together, unless `overcommit`. A model that nobody
    calls leaves after `keep_alive_s`, or when its idle times, counted in bins of `idle_bin_s`, say
    so; those in `keep_warm` stay. A load that takes longer than `load_timeout_s`, its warm-up
    included, has failed, and others go on. `keep_alive_of` and `isolation_of` are by model;
    `variant_of` says which variant is to be taken without measuring.
    """

    budget_bytes: int = sys.maxsize
    overcommit: bool = False
    keep_warm: frozenset[str] = frozenset()
    keep_alive_s: float = NEVER_S
    idle_bin_s: float = 60.0
    load_timeout_s: float = LOAD_TIMEOUT_S
    keep_alive_of: Mapping[str, float] = field(default_factory=dict)
    isolation_of: Mapping[str, Isolation] = field(default_factory=dict)
    variant_of: Mapping[str, str] = field(default_factory=dict)

    def fixed_s(self, name: str) -> float:
        """How long a model is kept as long as its idle times say nothing."""
        return self.keep_alive_of.get(name, self.keep_alive_s)

    def isolated(self, package: Package) -> bool:
        """A model's engine gets a process of its own."""
        return self.isolation_of.get(package.name, package.manifest.isolation) == "process"
