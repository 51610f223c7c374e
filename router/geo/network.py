"""How long a round trip takes: guessed from distance until it is measured."""

import math

_SPEED_OF_LIGHT_KM_S = 299_792.458
_FIBRE_SHARE = 2 / 3
_BASE_S = 0.0149
_PER_KM_S = 0.01735e-3


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


class RttWindow:
    """The least round trip lately seen: queues only ever add to it.

    The window is a ring of buckets, so memory is bounded and an old minimum is forgotten within
    one bucket of its time. Instants are monotonic seconds and must not go back.
    """

    __slots__ = ("_asked", "_bucket_s", "_least_s", "_mins_s", "_numbers")

    def __init__(self, *, bucket_count: int = 6, bucket_s: float = 10.0) -> None:
        self._bucket_s = bucket_s
        self._numbers = [-1] * bucket_count
        self._mins_s = [math.inf] * bucket_count
        self._asked = -1  # the bucket in which _least_s was last taken over all of them
        self._least_s = math.inf

    def observe(self, rtt_s: float, now_s: float) -> None:
        """Fold in one measured round trip; what is not a positive time is left out."""
        if not 0 < rtt_s < math.inf:
            return
        number = int(now_s / self._bucket_s)
        slot = number % len(self._numbers)
        if self._numbers[slot] != number:
            self._numbers[slot], self._mins_s[slot] = number, rtt_s
        else:
            self._mins_s[slot] = min(self._mins_s[slot], rtt_s)
        if number == self._asked:
            self._least_s = min(self._least_s, rtt_s)

    def estimate(self, now_s: float) -> float | None:
        """The least round trip in the window that ends now; None where nothing was measured."""
        number = int(now_s / self._bucket_s)
        if number != self._asked:
            self._asked, self._least_s = number, self._least_since(number - len(self._numbers))
        return self._least_s if self._least_s < math.inf else None

    def _least_since(self, oldest: int) -> float:
        pairs = zip(self._mins_s, self._numbers, strict=True)
        return min((least_s for least_s, number in pairs if number > oldest), default=math.inf)
