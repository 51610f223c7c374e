"""Every rule that can be played, by the name that `--algorithm` takes."""

import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isochrone.router.errors import ConfigError
from isochrone.router.process.document import did_you_mean
from isochrone.router.simulate.algorithm import Factory
from isochrone.router.simulate.baselines import BASELINES, Baseline
from isochrone.router.simulate.harness import Build
from isochrone.router.simulate.ours import ours
from isochrone.router.simulate.plugged import plugged
from isochrone.router.simulate.references import considerate, greedy
from isochrone.router.simulate.variants import VARIANTS, Variant

OURS = "isochrone"
"""The product's own router, as it is configured by default."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A line about a rule, where it comes from, and what makes the routers of a run under it.

    `build` is given the run's seed and how many routers there are.
    """

    about: str
    source: str
    build: Callable[[int, int], Build]


def _of_variant(variant: Variant) -> Rule:
    def build(seed: int, routers: int) -> Build:
        del routers  # its reports tell it
        return ours(variant.tuning, seed)

    return Rule(variant.about, "this router", build)


def _of_baseline(baseline: Baseline) -> Rule:
    return Rule(
        baseline.about,
        baseline.source,
        lambda seed, routers: plugged(baseline.among(routers), seed),
    )


def _of_reference(about: str, factory: Factory) -> Rule:
    return Rule(about, "a reference: it is told the truth", lambda seed, _: plugged(factory, seed))


RULES: Mapping[str, Rule] = {
    **{name: _of_variant(variant) for name, variant in VARIANTS.items()},
    **{name.replace("_", "-"): _of_baseline(baseline) for name, baseline in BASELINES.items()},
    "clairvoyant": _of_reference("the least true completion, each for itself", greedy),
    "clairvoyant-considerate": _of_reference(
        "the least true completion plus the delay that others get", considerate
    ),
}
"""By name: ours and its variants, the published rules, and the references."""


def rule_named(name: str) -> Rule:
    """A rule by its name, or `FILE.py:FACTORY` for one of your own.

    Raises:
        ConfigError: there is no such rule, file or factory.
    """
    if name in RULES:
        return RULES[name]
    file, _, factory = name.rpartition(":")
    if not file.endswith(".py"):
        hint = did_you_mean(name, RULES) or "see isochrone simulate --list"
        raise ConfigError(f"--algorithm: {name!r} is no rule; {hint}")
    try:
        made: Factory = runpy.run_path(file)[factory]
    except (OSError, KeyError, SyntaxError, ImportError) as error:
        raise ConfigError(f"--algorithm: {name} cannot be used: {error!r}") from error
    return Rule("a rule of your own", file, lambda seed, _: plugged(made, seed))
