"""Metrics of one process: plain numbers that become Prometheus samples only at a scrape.

prometheus_client's own counters and histograms make eight Python calls for each observation: they
check the labels, look for a parent and take a lock. Here all of that waits for the scrape.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from isochrone.router.process.clock import Clock
from isochrone.router.wire.http import Response

SECONDS_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip  # one row reads better than fourteen
"""Upper bounds of latency histograms, from a warm edge to the longest deadline in common use."""

Sample = tuple[str, dict[str, str], float]
"""The suffix of its name, its labels beside those of the family, and its value."""


class Count:
    """How often something has happened: callers add to `value`."""

    __slots__ = ("created_s", "value")

    def __init__(self, created_s: float) -> None:
        self.value = 0
        self.created_s = created_s

    def samples(self) -> Iterator[Sample]:
        """Its only sample."""
        yield "_total", {}, self.value


class Distribution:
    """Values counted in buckets, of which `bounds` are the upper bounds; a last one has none."""

    __slots__ = ("bounds", "counts", "created_s", "sum")

    def __init__(self, bounds: Sequence[float], created_s: float) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.created_s = created_s

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self) -> Iterator[Sample]:
        """Its samples; a sum of signed values has none, as it may fall."""
        running = list(accumulate(self.counts))
        ends = map(floatToGoString, (*self.bounds, math.inf))
        for end, count in zip(ends, running, strict=True):
            yield "_bucket", {"le": end}, count
        yield "_count", {}, running[-1]
        if self.bounds[0] >= 0:
            yield "_sum", {}, self.sum


S = TypeVar("S", Count, Distribution)
Values = tuple[object, ...]
"""The values of a family's labels, by which its series are found; one begins when first used."""


class Families(Collector):
    """The counters and histograms of one process; used on one thread."""

    def __init__(self, registry: CollectorRegistry, wall: Clock) -> None:
        """`wall` dates the start of each series."""
        self._wall = wall
        self._families: list[tuple[Metric, tuple[str, ...], Mapping[Values, Count | Distribution]]]
        self._families = []
        registry.register(self)

    def counter(self, name: str, text: str, *labels: str) -> defaultdict[Values, Count]:
        """A counter for each set of label values."""
        return self._family(Metric(name, text, "counter"), labels, Count)

    def histogram(
        self, name: str, text: str, *labels: str, bounds: Sequence[float] = SECONDS_BUCKETS
    ) -> defaultdict[Values, Distribution]:
        """A histogram for each set of label values."""
        return self._family(Metric(name, text, "histogram"), labels, partial(Distribution, bounds))

    def collect(self) -> Iterator[Metric]:
        """Every family with its samples so far, in the order in which they were made."""
        for metric, labels, family in self._families:
            metric.samples = []
            for values, series in family.items():
                named = dict(zip(labels, map(str, values), strict=True))
                for suffix, more, value in series.samples():
                    metric.add_sample(metric.name + suffix, named | more, value)
                metric.add_sample(metric.name + "_created", named, series.created_s)
            yield metric

    def _family(
        self, metric: Metric, labels: tuple[str, ...], new: Callable[[float], S]
    ) -> defaultdict[Values, S]:
        family: defaultdict[Values, S] = defaultdict(lambda: new(self._wall()))
        if not labels:
            family[()]  # its one series is exposed from the first
        self._families.append((metric, labels, family))
        return family


def render(registry: CollectorRegistry) -> Response:
    """Everything that a registry holds, as an answer to a scrape."""
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode("ascii"))]
    return Response(200, headers, generate_latest(registry))
