"""Metrics of one process: its own registry, told in the text format of Prometheus."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from isochrone.router.wire.http import Response

SECONDS_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip  # one row reads better than fourteen
"""Upper bounds of latency histograms, from a warm edge to the longest deadline in common use."""


_ENDS = (*map(floatToGoString, SECONDS_BUCKETS), "+Inf")


class Spread:
    """Seconds in buckets. prometheus_client's own locks and searches several times for each."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_ENDS)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more; on the event loop only."""
        self.counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.sum_s += seconds


class Spreads(Collector):
    """A histogram of seconds for each value of one label."""

    def __init__(self, name: str, text: str, label: str, registry: CollectorRegistry) -> None:
        self._told = name, text
        self._label = label
        self._spreads: dict[str, Spread] = {}
        registry.register(self)

    def of(self, value: str) -> Spread:
        """That of one value."""
        spread = self._spreads.get(value)
        if spread is None:
            spread = self._spreads[value] = Spread()
        return spread

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """What is collected, without figures."""
        yield HistogramMetricFamily(*self._told, labels=[self._label])

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Everything so far."""
        (family,) = self.describe()
        for value, spread in self._spreads.items():
            buckets = list(zip(_ENDS, accumulate(spread.counts), strict=True))
            family.add_metric([value], buckets, spread.sum_s)
        yield family


def render(registry: CollectorRegistry) -> Response:
    """Everything that a registry holds, as an answer to a scrape."""
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode("ascii"))]
    return Response(200, headers, generate_latest(registry))
