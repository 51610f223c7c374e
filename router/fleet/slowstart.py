"""A new or recovered endpoint is loaded step by step: a ramp of how much may be in flight there.

It is a cap and no divisor of the score: under a choice of the least, a divisor is a step. Source:
the slow start of Envoy's load balancers, on requests in flight instead of weights.
"""

RAMP_S = 30.0
"""From one request to all slots."""


def cap(slots: int, age_s: float) -> int:
    """How many may be in flight this long after the ramp began."""
    return 1 + int((slots - 1) * min(1.0, age_s / RAMP_S))
