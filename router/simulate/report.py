"""The results of a comparison: one entry per run, and over the seeds of each rule and load."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from isochrone.router.errors import ConfigError
from isochrone.router.simulate.chart import Line, Point, chart
from isochrone.router.simulate.statistics import Interval, interval, quantile, ratio_interval
from isochrone.router.simulate.tally import Bucket, Regret, Slice, Tally

SCHEMA = "isochrone.simulate/1"


class Run(msgspec.Struct, frozen=True):
    """One rule at one load under one seed.

    `cost` is the sum of price times slot-seconds that were busy or kept warm, over the whole run;
    `loads` is how often a cold model was loaded in it. `served_share` is by endpoint.
    """

    algorithm: str
    load: float
    seed: int
    requests: int
    failed_share: float
    p50_ms: float
    p99_ms: float
    within_objective_share: float
    outside_requirement: int
    cost: float
    coverage90: float | None
    by: list[Slice]
    margins: list[Slice]
    predictions: list[Bucket]
    regret: Regret | None
    tries_per_request: float
    probes_per_request: float
    loads: int
    served_share: dict[str, float]


class Against(msgspec.Struct, frozen=True):
    """The same requests under two rules: p99 over the baseline's, and percentage points more."""

    baseline: str
    p99_ratio: Interval | None
    within_objective_points: Interval


class Summary(msgspec.Struct, frozen=True):
    """One rule at one load over all seeds: means with their 95 % intervals (Student's t)."""

    algorithm: str
    load: float
    p99_ms: Interval
    within_objective_share: Interval
    p50_ms: Interval
    failed_share: Interval
    cost: Interval
    outside_requirement: int
    coverage90: Interval | None
    regret_ms: Interval | None
    against: Against | None
    by: list["SliceSummary"]
    margins: list["SliceSummary"]


class SliceSummary(msgspec.Struct, frozen=True):
    """The requests of one client region under one requirement, over all seeds.

    `p99_ratio` is paired with the baseline's; None where that did not play, or is the rule itself.
    """

    client_region: str
    requirement: str
    requests: int
    p99_ms: Interval
    within_objective_share: Interval
    p99_ratio: Interval | None


class Report(msgspec.Struct, frozen=True):
    """What `isochrone simulate` writes as JSON."""

    schema: str
    ok: bool
    scenario: str
    split: str
    objective_ms: float
    world: dict[str, int]
    baseline: str | None
    runs: list[Run]
    summary: list[Summary]


def run_of(
    algorithm: str,
    load: float,
    seed: int,
    tally: Tally,
    *,
    cost: float,
    loads: int = 0,
    probes_per_request: float = 0.0,
) -> Run:
    """What was counted in a run, as figures.

    Raises:
        ConfigError: nothing was.
    """
    ordered_s = tally.ordered_s()
    requests = len(ordered_s)
    if not requests:
        raise ConfigError(
            f"no request came after the warm-up at load {load:g}: make the load or the time greater"
        )
    return Run(
        algorithm=algorithm,
        load=load,
        seed=seed,
        requests=requests,
        failed_share=tally.failed / requests,
        p50_ms=quantile(ordered_s, 0.5) * 1000,
        p99_ms=quantile(ordered_s, 0.99) * 1000,
        within_objective_share=tally.within_share(ordered_s),
        outside_requirement=tally.outside_requirement,
        cost=cost,
        coverage90=tally.coverage90,
        by=list(tally.slices()),
        margins=list(tally.margins()),
        predictions=list(tally.buckets()),
        regret=tally.regret,
        tries_per_request=tally.tries / requests,
        probes_per_request=probes_per_request,
        loads=loads,
        served_share={name: count / requests for name, count in sorted(tally.served_by.items())},
    )


def summaries(runs: Sequence[Run], baseline: str | None = None) -> list[Summary]:
    """Over the seeds of each rule and load, in the order in which the rules first stand."""
    order = {run.algorithm: index for index, run in reversed(list(enumerate(runs)))}
    ordered = sorted(runs, key=lambda run: (order[run.algorithm], run.load, run.seed))
    return [
        _summary(list(group), _of_baseline(runs, baseline, load))
        for (_, load), group in groupby(ordered, key=lambda run: (run.algorithm, run.load))
    ]


def _of_baseline(runs: Sequence[Run], baseline: str | None, load: float) -> dict[int, Run]:
    return {run.seed: run for run in runs if (run.algorithm, run.load) == (baseline, load)}


def _summary(group: Sequence[Run], baseline: dict[int, Run]) -> Summary:
    if any(run in group for run in baseline.values()):
        baseline = {}  # nothing is held against itself
    paired = [(run, baseline.get(run.seed)) for run in group]
    return Summary(
        algorithm=group[0].algorithm,
        load=group[0].load,
        p99_ms=interval(run.p99_ms for run in group),
        within_objective_share=interval(run.within_objective_share for run in group),
        p50_ms=interval(run.p50_ms for run in group),
        failed_share=interval(run.failed_share for run in group),
        cost=interval(run.cost for run in group),
        outside_requirement=sum(run.outside_requirement for run in group),
        coverage90=_known(run.coverage90 for run in group),
        regret_ms=_known(run.regret.mean_ms if run.regret else None for run in group),
        against=_against([(run, other) for run, other in paired if other is not None]),
        by=_slices([(run.by, other.by if other else []) for run, other in paired]),
        margins=_slices([(run.margins, other.margins if other else []) for run, other in paired]),
    )


def _known(values: Iterable[float | None]) -> Interval | None:
    seen = [value for value in values if value is not None]
    return interval(seen) if seen else None


def _against(pairs: Sequence[tuple[Run, Run]]) -> Against | None:
    if not pairs:
        return None
    return Against(
        baseline=pairs[0][1].algorithm,
        p99_ratio=ratio_interval((run.p99_ms, other.p99_ms) for run, other in pairs),
        within_objective_points=interval(
            100 * (run.within_objective_share - other.within_objective_share)
            for run, other in pairs
        ),
    )


def _slices(pairs: Iterable[tuple[Sequence[Slice], Sequence[Slice]]]) -> list[SliceSummary]:
    """Slices of each seed, beside the baseline's slices of the same seed."""
    found: dict[tuple[str, str], list[tuple[Slice, Slice | None]]] = {}
    for parts, others in pairs:
        of_other = {_key(other): other for other in others}
        for part in parts:
            found.setdefault(_key(part), []).append((part, of_other.get(_key(part))))
    return [_slice(seeds) for seeds in found.values()]


def _key(part: Slice) -> tuple[str, str]:
    return part.client_region, part.requirement


def _slice(seeds: Sequence[tuple[Slice, Slice | None]]) -> SliceSummary:
    parts = [part for part, _ in seeds]
    return SliceSummary(
        client_region=parts[0].client_region,
        requirement=parts[0].requirement,
        requests=sum(part.requests for part in parts),
        p99_ms=interval(part.p99_ms for part in parts),
        within_objective_share=interval(part.within_objective_share for part in parts),
        p99_ratio=ratio_interval((part.p99_ms, other.p99_ms) for part, other in seeds if other),
    )


def picture(title: str, summary: Sequence[Summary], objective_s: float, ours: str) -> str:
    """The comparison as SVG; the rule of that name stands out."""
    names = list(dict.fromkeys(one.algorithm for one in summary))
    lines = [
        Line(
            name,
            tuple(
                Point(one.load, one.p99_ms, one.within_objective_share)
                for one in summary
                if one.algorithm == name
            ),
            ours=name == ours,
        )
        for name in names
    ]
    return chart(title, lines, objective_s)
