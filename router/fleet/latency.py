"""Moving estimates of seconds, fed with samples at irregular instants."""

import math


class Ewma:
    """An exponentially weighted mean whose memory fades with time, not with the sample count.

    A sample that comes `dt` seconds after the last one weighs `1 - exp(-dt / tau_s)`, and at least
    `floor`, so that a burst of samples at one instant still moves the estimate.
    Source: the decay of Finagle's and linkerd's peak-EWMA balancers, without the peak.
    """

    __slots__ = ("_at_s", "_floor", "_measured", "_tau_s", "value")

    def __init__(self, prior: float, *, tau_s: float = 10.0, floor: float = 0.05) -> None:
        self.value = prior
        self._tau_s = tau_s
        self._floor = floor
        self._at_s = -math.inf
        self._measured = False

    def observe(self, sample: float, now_s: float) -> None:
        """Fold one sample in; the first one replaces the prior."""
        weight = max(self._floor, 1.0 - math.exp(-max(0.0, now_s - self._at_s) / self._tau_s))
        self.value = sample if not self._measured else self.value + weight * (sample - self.value)
        self._measured = True
        self._at_s = now_s
