"""How long a round trip takes: guessed from distance until it is measured."""

import math
from dataclasses import dataclass
from typing import Protocol

_SPEED_OF_LIGHT_KM_S = 299_792.458
_FIBRE_SHARE = 2 / 3
_BASE_S = 0.0149
_PER_KM_S = 0.01735e-3

PRIOR_SIGMA_SHARE = 0.36
"""Of `prior_rtt_s`, one standard deviation: nine errors in ten are below 59 %, 1.64 deviations."""
PRIOR_BYTE_S = 8e-8
"""100 Mbit/s."""
LEAST_BYTE_S, MOST_BYTE_S = 8e-11, 8e-5
"""100 Gbit/s and 100 kbit/s: what is measured outside is noise."""
SEEN_BYTES = 32 << 10
"""A body of fewer bytes shows no bandwidth: it fits into a few congestion windows."""
_SMALL_LASTS_S = 30.0
"""Large bodies teach the round trip only where no small one has come for so long."""
_TAU_S = 10.0
_MOST_COUNT = 63
_MOST_SIGMAS = 4.0
_STEP_SHARE = 0.05
"""Where there has been no spread, a sample may still lie so far above the mean."""
_BYTE_WEIGHT = 0.25


def light_rtt_s(distance_km: float) -> float:
    """The least possible round trip: both ways at the speed of light in fibre, 2/3 of c.

    A measured round trip below it means that a place is wrong.
    """
    return 2 * distance_km / (_SPEED_OF_LIGHT_KM_S * _FIBRE_SHARE)


def prior_rtt_s(distance_km: float) -> float:
    """The round trip to expect over a great-circle distance that was never measured.

    14.9 ms + 0.01735 ms/km: a straight line through WonderNetwork's pings between 241 cities,
    with a median error of 20 %. It lies above `light_rtt_s` everywhere.
    """
    return _BASE_S + _PER_KM_S * distance_km


@dataclass(frozen=True, slots=True)
class Estimate:
    """A round trip in seconds, how uncertain it is (one standard deviation), and where from."""

    mean_s: float
    sigma_s: float
    source: str


class Vantage(Protocol):
    """Where a query's seconds are counted from, if not from this router."""

    def net(self, endpoint: str, region: str) -> Estimate:
        """The round trip to an endpoint of that name in that region."""
        ...


class RttWindow:
    """The least round trip lately seen: queues only ever add to it.

    The window is a ring of buckets, so memory is bounded and an old minimum is forgotten within
    one bucket of its time. Instants are monotonic seconds and must not go back.
    """

    __slots__ = ("_asked", "_bucket_s", "_least_s", "_mins_s", "_numbers", "newest_s", "until_s")

    def __init__(self, *, bucket_count: int = 6, bucket_s: float = 10.0) -> None:
        self._bucket_s = bucket_s
        self._numbers = [-1] * bucket_count
        self._mins_s = [math.inf] * bucket_count
        self.until_s, self.newest_s = -math.inf, math.inf
        """Before this instant only what is less than this changes anything."""
        self._asked = -1  # the bucket in which _least_s was last taken over all of them
        self._least_s = math.inf

    def observe(self, rtt_s: float, now_s: float) -> bool:
        """Fold in one measured round trip; False: the least is what it was.

        What is not a positive time is left out.
        """
        if rtt_s >= self.newest_s and now_s < self.until_s:
            return False  # as nearly all do
        if not 0 < rtt_s < math.inf:
            return False
        number = int(now_s / self._bucket_s)
        slot = number % len(self._numbers)
        if self._numbers[slot] != number:
            self._numbers[slot], self._mins_s[slot] = number, rtt_s
        else:
            self._mins_s[slot] = min(self._mins_s[slot], rtt_s)
        if number == self._asked:
            self._least_s = min(self._least_s, rtt_s)
        self.until_s, self.newest_s = (number + 1) * self._bucket_s, self._mins_s[slot]
        return True

    def estimate(self, now_s: float) -> float | None:
        """The least round trip in the window that ends now; None where nothing was measured."""
        number = int(now_s / self._bucket_s)
        if number != self._asked:
            self._asked, self._least_s = number, self._least_since(number - len(self._numbers))
        return self._least_s if self._least_s < math.inf else None

    def _least_since(self, oldest: int) -> float:
        pairs = zip(self._mins_s, self._numbers, strict=True)
        return min((least_s for least_s, number in pairs if number > oldest), default=math.inf)


class Path:
    """The way from this router to one endpoint: its round trip, and what each payload byte adds.

    `least_s` is the windowed minimum, the steady figure to compare endpoints by; `mean_s` is what
    the next request should see, `variance` of single ones, `byte_s` seconds per body byte.
    Until something is measured they are the prior's. `misplaced` counts the round trips that are
    faster than light between the stated places: the time is true, so a place is wrong.

    The mean is exponentially weighted and its samples are bounded by four deviations (Huber's
    winsorising), so that one stall moves it little and a lasting change moves it soon.
    """

    __slots__ = (
        "_at_s",
        "_before",
        "_bound_s",
        "_count",
        "_small_s",
        "_window",
        "byte_s",
        "least_s",
        "mean_s",
        "misplaced",
        "variance",
    )

    def __init__(self, prior_s: float, bound_s: float = 0.0) -> None:
        """`prior_s` is what to expect unmeasured; `bound_s` is `light_rtt_s` of the places."""
        self.least_s = prior_s
        self.mean_s = prior_s
        self.byte_s = PRIOR_BYTE_S
        self.misplaced = 0
        self._bound_s = bound_s
        self.variance = (PRIOR_SIGMA_SHARE * prior_s) ** 2
        self._window = RttWindow()
        self._count = 0
        self._at_s = -math.inf
        self._small_s = -math.inf
        self._before = (PRIOR_BYTE_S, PRIOR_BYTE_S)

    @property
    def measured(self) -> bool:
        """It is more than a prior."""
        return self._count > 0

    @property
    def sigma_s(self) -> float:
        """One standard deviation of single round trips, in seconds."""
        return math.sqrt(self.variance)

    def observe(self, rtt_s: float, body_bytes: int, now_s: float) -> None:
        """Fold in one round trip of a request with so long a body; no positive time is left out.

        It is the time until the first byte of the answer, without what the endpoint says that it
        waited and ran. Instants are monotonic seconds.
        """
        if not 0 < rtt_s < math.inf:
            return
        if body_bytes < SEEN_BYTES:
            self._small_s = now_s
        elif self._count:
            self._observe_payload(rtt_s, body_bytes)
            if now_s - self._small_s < _SMALL_LASTS_S:
                return
        if body_bytes:  # `byte_s` accounts for it
            rtt_s = max(rtt_s - body_bytes * self.byte_s, min(rtt_s, self.least_s))
        if rtt_s < self._bound_s:
            self.misplaced += 1
        window = self._window
        if (rtt_s < window.newest_s or now_s >= window.until_s) and window.observe(rtt_s, now_s):
            self.least_s = window.estimate(now_s) or rtt_s
        count = self._count
        if count == 0:  # as RFC 6298, section 2.2, begins
            self.mean_s, self.variance = rtt_s, rtt_s * rtt_s / 4
        else:
            past_s = now_s - self._at_s
            weight = past_s / (past_s + _TAU_S)
            if weight * (count + 1) < 1:
                weight = 1 / (count + 1)
            most_s = _MOST_SIGMAS * math.sqrt(self.variance) + _STEP_SHARE * self.mean_s
            step_s = min(rtt_s - self.mean_s, most_s)
            self.mean_s += weight * step_s
            # the exponentially weighted variance of Finch (2009), equation 143
            self.variance = (1 - weight) * (self.variance + weight * step_s * step_s)
        self._at_s = now_s
        self._count = min(count + 1, _MOST_COUNT)

    def _observe_payload(self, rtt_s: float, body_bytes: int) -> None:
        """Learn the seconds per byte, where they show: they, or their absence, beat the noise.

        The middle one of the last three counts, so that one outlier does not.
        """
        excess_s = max(0.0, rtt_s - self.mean_s)
        if max(excess_s, body_bytes * self.byte_s) < 2 * self.sigma_s:
            return
        sample = min(max(excess_s / body_bytes, LEAST_BYTE_S), MOST_BYTE_S)
        first, second = self._before
        self._before = (second, sample)
        middle = max(min(first, second), min(max(first, second), sample))
        self.byte_s += _BYTE_WEIGHT * (middle - self.byte_s)
