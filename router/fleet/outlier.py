"""When an endpoint as a whole is taken out of the traffic and when it comes back: a step function.

Two kinds of evidence: probes (asked by us) and calls (concluded from traffic). A model that fails
is its own matter (`breaker`); what condemns the endpoint is a connection that is refused, and
several models that fail. Back-pressure and a client's own mistakes are answers, so they are good.
"""

from dataclasses import dataclass, replace
from enum import Enum


class Sign(Enum):
    """One piece of evidence about an endpoint."""

    PROBE_ANSWERED = "probe answered"
    PROBE_MISSED = "probe missed"
    CALL_ANSWERED = "call answered"
    CALL_REFUSED = "connection refused"
    MODELS_FAIL = "several models fail"
    IMPOSTOR = "another answers"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much evidence it takes, in counts in a row."""

    missed_probes: int = 2
    good_probes: int = 2


@dataclass(frozen=True, slots=True)
class Health:
    """What the evidence amounts to; `out` is why no traffic may go there (None: it may).

    `trials`: a single request may, where there is nobody else.
    """

    out: str | None = None
    trials: bool = False
    missed: int = 0
    good: int = 0


UNPROVEN = Health(out="not heard from yet", good=1)
"""A new endpoint: if its first probe is answered, traffic may come; else it takes two, as ever."""


def step(health: Health, sign: Sign, thresholds: Thresholds) -> Health:
    """The health after one more sign."""
    match sign:
        case Sign.PROBE_ANSWERED:
            return _good(health, thresholds)
        case Sign.CALL_ANSWERED:
            return Health() if health.trials else replace(health, missed=0)
        case Sign.PROBE_MISSED:
            missed = health.missed + 1
            why = f"{missed} probes missed" if missed >= thresholds.missed_probes else None
            return _worse(replace(health, missed=missed), why)
        case Sign.CALL_REFUSED:
            return _doubtful(health, "refuses connections")
        case Sign.MODELS_FAIL:
            return _doubtful(health, "several of its models fail")
        case Sign.IMPOSTOR:
            return _worse(health, "answers by another name or region")


def _worse(health: Health, why: str | None) -> Health:
    """The first reason to take it out stays the reason until it is back or gets worse."""
    if why is not None and (health.out in (None, UNPROVEN.out) or health.trials):
        return replace(health, good=0, out=why, trials=False)
    return replace(health, good=0)


def _doubtful(health: Health, why: str) -> Health:
    if health.out is None:
        return replace(health, good=0, out=why, trials=True)
    return replace(health, good=0)


def _good(health: Health, thresholds: Thresholds) -> Health:
    good = health.good + 1
    if health.out is None or good >= thresholds.good_probes:
        return Health()
    return replace(health, missed=0, good=good)
