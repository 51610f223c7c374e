"""How long to wait before something that failed in the background is tried again."""

from dataclasses import dataclass
from random import Random

from tenacity import RetryCallState

_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Pause:
    """Doubles with every try, with full jitter, so that agents do not come back all at once.

    It lies between half of `first_s` and a bound that grows from twice of it to `longest_s`.
    Source: M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
    """

    rng: Random
    first_s: float
    longest_s: float

    def __call__(self, state: RetryCallState) -> float:
        """Seconds after the try that has just failed."""
        most_s = self.first_s * 2.0 ** min(state.attempt_number, _DOUBLINGS)
        return self.rng.uniform(self.first_s / 2, min(most_s, self.longest_s))
