"""The statistics of results: quantiles, and means with intervals over a few seeds."""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean, stdev

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """A mean, and where it lies with 95 % (Student's t); lo and hi are the mean for one value."""

    mean: float
    lo: float
    hi: float


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` of all values do not exceed (nearest rank); NaN of nothing."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def interval(values: Iterable[float]) -> Interval:
    """The mean of independent values, and its 95 % interval.

    Raises:
        ValueError: there are none.
    """
    seen = list(values)
    mean = fmean(seen) if seen else _refused()
    if len(seen) < 2:
        return Interval(mean, mean, mean)
    half = student_t_975(len(seen) - 1) * stdev(seen) / math.sqrt(len(seen))
    return Interval(mean, mean - half, mean + half)


def _refused() -> float:
    raise ValueError("there are no values to take a mean of")


def ratio_interval(pairs: Iterable[tuple[float, float]]) -> Interval | None:
    """The geometric mean of paired ratios, and its 95 % interval; None where one is undefined.

    Pairing by seed takes out what all rules share: the same requests came at the same instants.
    """
    seen = list(pairs)
    if not seen or any(not (above > 0 and below > 0) for above, below in seen):
        return None
    logs = interval(math.log(above / below) for above, below in seen)
    return Interval(math.exp(logs.mean), math.exp(logs.lo), math.exp(logs.hi))


def student_t_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; beyond 30 degrees of freedom by Cornish and Fisher."""
    if freedom <= len(_T_975):
        return _T_975[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


_T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
