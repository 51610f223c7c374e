"""How long an endpoint that refuses is left alone: longer with every refusal in a row. Pure."""

from random import Random

LEAST_S = 0.01
LONGEST_S = 10.0
_MOST_DOUBLINGS = 10


def back_off_s(refusals: int, service_s: float, rng: Random | None) -> float:
    """Seconds after the `refusals`th refusal in a row, counted from 1.

    After the first, one service time, when a slot should be free. Each further one doubles that, up
    to `LONGEST_S`, less up to half by chance, so that routers do not come back together.
    """
    first_s = max(service_s, LEAST_S)
    pause_s = min(first_s * 2.0 ** min(refusals - 1, _MOST_DOUBLINGS), max(first_s, LONGEST_S))
    if refusals > 1 and rng is not None:
        pause_s *= 1.0 - 0.5 * rng.random()
    return pause_s
