"""When an endpoint is taken out of the traffic and when it comes back: a pure step function.

Two kinds of evidence: probes (asked by us) and calls (concluded from traffic). Back-pressure and a
client's own mistakes are answers, so they count as good.
"""

from dataclasses import dataclass, replace
from enum import Enum


class Sign(Enum):
    """One piece of evidence about an endpoint."""

    PROBE_ANSWERED = "probe answered"
    PROBE_MISSED = "probe missed"
    CALL_ANSWERED = "call answered"
    CALL_FAILED = "call failed"
    CALL_REFUSED = "connection refused"
    IMPOSTOR = "another answers"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much evidence it takes, in counts in a row."""

    missed_probes: int = 2
    good_probes: int = 2
    failed_calls: int = 3


@dataclass(frozen=True, slots=True)
class Health:
    """What the evidence amounts to; `out` is why no traffic may go there (None: it may)."""

    out: str | None = None
    missed: int = 0
    failed: int = 0
    good: int = 0


UNPROVEN = Health(out="not heard from yet", good=1)
"""A new endpoint: if its first probe is answered, traffic may come; else it takes two, as ever."""


def step(health: Health, sign: Sign, thresholds: Thresholds) -> Health:
    """The health after one more sign."""
    match sign:
        case Sign.PROBE_ANSWERED:
            return _good(health, thresholds)
        case Sign.CALL_ANSWERED:
            return replace(health, failed=0, missed=0)
        case Sign.PROBE_MISSED:
            missed = health.missed + 1
            why = f"{missed} probes missed" if missed >= thresholds.missed_probes else None
            return _worse(replace(health, missed=missed), why)
        case Sign.CALL_FAILED:
            failed = health.failed + 1
            why = f"{failed} calls failed" if failed >= thresholds.failed_calls else None
            return _worse(replace(health, failed=failed), why)
        case Sign.CALL_REFUSED:
            return _worse(replace(health, failed=health.failed + 1), "refuses connections")
        case Sign.IMPOSTOR:
            return _worse(health, "answers by another name or region")


def _worse(health: Health, why: str | None) -> Health:
    """The first reason to take it out stays the reason until it is back."""
    reason = health.out if health.out != UNPROVEN.out else None
    return replace(health, good=0, out=reason or why or health.out)


def _good(health: Health, thresholds: Thresholds) -> Health:
    good = health.good + 1
    if health.out is None or good >= thresholds.good_probes:
        return Health()
    return replace(health, missed=0, good=good)
