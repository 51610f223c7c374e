"""What is counted while a run is played: latencies, failures, and predictions against the truth."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from isochrone.router.simulate.scenario import ANY
from isochrone.router.simulate.statistics import quantile

BUSY_EDGES = (0.5, 1.0, 1.5, 2.0)
BUSY_NAMES = ("<0.5", "0.5-1", "1-1.5", "1.5-2", ">=2")
"""Buckets of load: requests known at the chosen endpoint, over its slots, when it was chosen."""
EVERY = "all"
PINNED = "pinned"
"""Every requirement but `any`."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a rule predicted for the request and what then was, in seconds, term by term.

    `low_s` and `high_s` are its 90 % interval. `busy` is what the router knew to be in flight at
    the endpoint, over its slots, when the request was sent.
    """

    predicted_s: Mapping[str, float]
    observed_s: Mapping[str, float]
    low_s: float
    high_s: float
    busy: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How one request ended, as its router saw it.

    `latency_s` counts from its arrival at the router. `served` False: it failed, was refused or
    came later than its deadline. `lawful` False: it was sent where its law does not allow, whether
    served or not. `regret_s` is how much longer it took than the best choice at that instant would
    have.
    """

    client_region: str
    requirement: str
    served: bool
    latency_s: float
    endpoint: str | None
    lawful: bool = True
    tries: int = 1
    expected: Expected | None = None
    regret_s: float | None = None


class Slice(msgspec.Struct, frozen=True):
    """The requests of one client region under one requirement."""

    client_region: str
    requirement: str
    requests: int
    p99_ms: float
    within_objective_share: float
    failed_share: float


class Bucket(msgspec.Struct, frozen=True):
    """Predictions at one load. A bias is what was predicted too much, over what was observed."""

    busy: str
    requests: int
    coverage90: float
    bias_share: float
    observed_ms: dict[str, float]
    bias_ms: dict[str, float]


class Regret(msgspec.Struct, frozen=True):
    """How much longer requests took than the best choice at that instant would have."""

    mean_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class _Held:
    latencies_s: "array[float]" = field(default_factory=lambda: array("d"))
    failed: int = 0


@dataclass(slots=True)
class _Predicted:
    requests: int = 0
    covered: int = 0
    predicted_s: dict[str, float] = field(default_factory=dict)
    observed_s: dict[str, float] = field(default_factory=dict)


class Tally:
    """Folds the endings of one run into figures; a few bytes per request.

    A request that was not served counts as slow as its deadline, so that failing fast never pays.
    """

    def __init__(self, objective_s: float, deadline_s: float) -> None:
        self._objective_s = objective_s
        self._deadline_s = deadline_s
        self._held: dict[tuple[str, str], _Held] = {}
        self._predicted = [_Predicted() for _ in BUSY_NAMES]
        self._regrets_s = array("d")
        self.outside_requirement = 0
        self.tries = 0
        self.served_by: dict[str, int] = {}

    def add(self, ending: Ending) -> None:
        """Count one request."""
        held = self._held.setdefault((ending.client_region, ending.requirement), _Held())
        held.latencies_s.append(ending.latency_s if ending.served else self._deadline_s)
        held.failed += not ending.served
        self.outside_requirement += not ending.lawful
        self.tries += ending.tries
        if ending.served and ending.endpoint is not None:
            self.served_by[ending.endpoint] = self.served_by.get(ending.endpoint, 0) + 1
        if ending.expected is not None:
            self._compare(ending.expected)
        if ending.regret_s is not None:
            self._regrets_s.append(ending.regret_s)

    def _compare(self, expected: Expected) -> None:
        bucket = self._predicted[bisect_right(BUSY_EDGES, expected.busy)]
        observed_s = sum(expected.observed_s.values())
        bucket.requests += 1
        bucket.covered += expected.low_s <= observed_s <= expected.high_s
        _add(bucket.predicted_s, expected.predicted_s)
        _add(bucket.observed_s, expected.observed_s)

    @property
    def requests(self) -> int:
        """How many were counted."""
        return sum(len(held.latencies_s) for held in self._held.values())

    @property
    def failed(self) -> int:
        """How many of them were not served."""
        return sum(held.failed for held in self._held.values())

    def ordered_s(self) -> list[float]:
        """Every latency, the least first."""
        return sorted(one for held in self._held.values() for one in held.latencies_s)

    def within_share(self, ordered_s: list[float]) -> float:
        """The share of ordered latencies that are within the objective."""
        return bisect_right(ordered_s, self._objective_s) / max(1, len(ordered_s))

    def slices(self) -> Iterator[Slice]:
        """By client region and requirement."""
        for (region, requirement), held in sorted(self._held.items()):
            yield self._slice(region, requirement, [held])

    def margins(self) -> Iterator[Slice]:
        """By requirement, all that is pinned, and by client region: `all` stands for the other."""
        for requirement in sorted({requirement for _, requirement in self._held}):
            held = [one for key, one in self._held.items() if key[1] == requirement]
            yield self._slice(EVERY, requirement, held)
        pinned = [one for key, one in self._held.items() if key[1] != ANY]
        if pinned:
            yield self._slice(EVERY, PINNED, pinned)
        for region in sorted({region for region, _ in self._held}):
            held = [one for key, one in self._held.items() if key[0] == region]
            yield self._slice(region, EVERY, held)

    def _slice(self, region: str, requirement: str, held: Sequence[_Held]) -> Slice:
        ordered_s = sorted(latency_s for one in held for latency_s in one.latencies_s)
        return Slice(
            client_region=region,
            requirement=requirement,
            requests=len(ordered_s),
            p99_ms=quantile(ordered_s, 0.99) * 1000,
            within_objective_share=self.within_share(ordered_s),
            failed_share=sum(one.failed for one in held) / len(ordered_s),
        )

    @property
    def coverage90(self) -> float | None:
        """The share of 90 % intervals that held what was observed; None without predictions."""
        requests = sum(bucket.requests for bucket in self._predicted)
        covered = sum(bucket.covered for bucket in self._predicted)
        return covered / requests if requests else None

    def buckets(self) -> Iterator[Bucket]:
        """Predictions by how busy the chosen endpoint was, and first all of them together."""
        if any(seen.requests for seen in self._predicted):
            yield _bucket(EVERY, _together(self._predicted))
        for name, seen in zip(BUSY_NAMES, self._predicted, strict=True):
            if seen.requests:
                yield _bucket(name, seen)

    @property
    def regret(self) -> Regret | None:
        """Of all decisions that an oracle looked at; None where it looked at none."""
        if not self._regrets_s:
            return None
        ordered_s = sorted(self._regrets_s)
        return Regret(
            mean_ms=sum(ordered_s) / len(ordered_s) * 1000,
            p50_ms=quantile(ordered_s, 0.5) * 1000,
            p99_ms=quantile(ordered_s, 0.99) * 1000,
        )


def _together(every: Iterable[_Predicted]) -> _Predicted:
    found = _Predicted()
    for one in every:
        found.requests += one.requests
        found.covered += one.covered
        _add(found.predicted_s, one.predicted_s)
        _add(found.observed_s, one.observed_s)
    return found


def _add(sums: dict[str, float], terms: Mapping[str, float]) -> None:
    for term, seconds in terms.items():
        sums[term] = sums.get(term, 0.0) + seconds


def _bucket(name: str, seen: _Predicted) -> Bucket:
    observed_s, predicted_s = sum(seen.observed_s.values()), sum(seen.predicted_s.values())
    per_ms = 1000 / seen.requests
    return Bucket(
        busy=name,
        requests=seen.requests,
        coverage90=seen.covered / seen.requests,
        bias_share=(predicted_s - observed_s) / observed_s if observed_s > 0 else 0.0,
        observed_ms={term: total_s * per_ms for term, total_s in seen.observed_s.items()},
        bias_ms={
            term: (total_s - seen.observed_s.get(term, 0.0)) * per_ms
            for term, total_s in seen.predicted_s.items()
        },
    )
