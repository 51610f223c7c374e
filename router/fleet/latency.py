"""Moving estimates of seconds, fed with samples at irregular instants."""

import math

TAU_S = 10.0
"""How fast an estimate forgets."""
FLOOR = 0.05
"""The least that one sample weighs."""
_BURST_SHARE = -math.log1p(-FLOOR)
"""Samples that follow each other within this share of `TAU_S` weigh that least."""
MOST_SPREAD = 0.2
"""The most that one sample weighs in a spread: one alone, however long after the last, has none."""
LEAST_S = 1e-4
"""Whatever was measured, one request holds a slot for as long as this."""
_LEAST_SPREAD = 0.1
"""Lengths must differ by this share of their mean before a slope is believed."""


class Ewma:
    """An exponentially weighted mean whose memory fades with time, not with the sample count.

    A sample that comes `dt` seconds after the last one weighs `1 - exp(-dt / tau_s)`, and at least
    `FLOOR`, so that a burst of samples at one instant still moves the estimate.
    Source: the decay of Finagle's and linkerd's peak-EWMA balancers, without the peak.
    """

    __slots__ = ("_at_s", "_tau_s", "value")

    def __init__(self, prior: float, *, tau_s: float = TAU_S) -> None:
        self.value = prior
        self._tau_s = tau_s
        self._at_s = -math.inf

    def observe(self, sample: float, now_s: float) -> float:
        """Fold one sample in, and return the mean; the first one replaces the prior."""
        past = (now_s - self._at_s) / self._tau_s
        weight = FLOOR if past < _BURST_SHARE else -math.expm1(-past)
        self._at_s = now_s
        value = self.value = self.value + weight * (sample - self.value)
        return value


class ServiceTime:
    """How long one model holds a slot of one endpoint: mean, spread, and what a byte more costs.

    The slope is a weighted least-squares line through (payload length, seconds), never negative;
    where lengths hardly differ there is none. The weights are those of `Ewma`. The spread is that
    of samples around what was expected of each, so that it holds how wrong a mean of few is.
    """

    __slots__ = (
        "_at_s",
        "_byte_variance",
        "_covariance",
        "byte_s",
        "mean_bytes",
        "mean_s",
        "measured",
        "variance",
    )

    def __init__(self, prior_s: float) -> None:
        self.measured = False
        self.mean_s = prior_s
        self.variance = prior_s * prior_s
        self.mean_bytes = 0.0
        self.byte_s = 0.0
        self._byte_variance = 0.0
        self._covariance = 0.0
        self._at_s = -math.inf

    @property
    def at_s(self) -> float:
        """When it was last measured."""
        return self._at_s

    @property
    def sigma_s(self) -> float:
        """One standard deviation of single requests, in seconds."""
        return math.sqrt(self.variance)

    def expect(self, prior_s: float) -> None:
        """Begin elsewhere, where nothing has been measured yet."""
        if not self.measured:
            self.mean_s = prior_s
            self.variance = prior_s * prior_s

    def replace_if_old(self, now_s: float) -> None:
        """Let the next measurement stand for itself where the last one is over `TAU_S` ago."""
        self.measured = self.measured and now_s - self._at_s < TAU_S

    def observe(self, seconds: float, body_bytes: int, now_s: float) -> None:
        """One request of that length took so long."""
        if seconds < LEAST_S:
            seconds = LEAST_S
        past = (now_s - self._at_s) / TAU_S
        weight = FLOOR if past < _BURST_SHARE else -math.expm1(-past)
        self._at_s = now_s
        if not self.measured:  # it has no spread: until the second, as much as the prior had
            self.measured = True
            self.mean_s, self.mean_bytes = seconds, float(body_bytes)
            self.variance = seconds * seconds
            return
        error_s = seconds - self.mean_s
        self.mean_s += weight * error_s
        spread_weight = min(MOST_SPREAD, weight)
        self.variance += spread_weight * (error_s * error_s - self.variance)
        further = body_bytes - self.mean_bytes
        if further or self._byte_variance:
            self._learn_slope(weight, further, error_s)

    def _learn_slope(self, weight: float, further: float, error_s: float) -> None:
        self.mean_bytes += weight * further
        self._byte_variance = (1 - weight) * (self._byte_variance + weight * further * further)
        self._covariance = (1 - weight) * (self._covariance + weight * further * error_s)
        told_apart = self._byte_variance > (_LEAST_SPREAD * self.mean_bytes) ** 2
        slope_s = max(0.0, self._covariance / self._byte_variance) if told_apart else 0.0
        # A line through what is no line must not promise less than nothing to short requests.
        self.byte_s = min(slope_s, self.mean_s / max(1.0, self.mean_bytes))
