"""The results of a comparison: one entry per run, and over the seeds of each rule and load."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from router.errors import ConfigError
from router.simulate.chart import Line, Point, chart
from router.simulate.statistics import Interval, interval, quantile, ratio_interval
from router.simulate.tally import Bucket, Regret, Slice, Tally

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


class SliceSummary(msgspec.Struct, frozen=True):
    """The requests of one client region under one requirement, over all seeds."""

    client_region: str
    requirement: str
    requests: int
    p99_ms: Interval
    within_objective_share: Interval


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
        against=_against(group, baseline),
        by=list(_slices(group)),
    )


def _known(values: Iterable[float | None]) -> Interval | None:
    seen = [value for value in values if value is not None]
    return interval(seen) if seen else None


def _against(group: Sequence[Run], baseline: dict[int, Run]) -> Against | None:
    pairs = [(run, baseline[run.seed]) for run in group if run.seed in baseline]
    if not pairs or group[0].algorithm == pairs[0][1].algorithm:
        return None
    return Against(
        baseline=pairs[0][1].algorithm,
        p99_ratio=ratio_interval((run.p99_ms, other.p99_ms) for run, other in pairs),
        within_objective_points=interval(
            100 * (run.within_objective_share - other.within_objective_share)
            for run, other in pairs
        ),
    )


def _slices(group: Sequence[Run]) -> Iterator[SliceSummary]:
    every = sorted(
        (part for run in group for part in run.by),
        key=lambda part: (part.client_region, part.requirement),
    )
    for (region, requirement), found in groupby(
        every, key=lambda part: (part.client_region, part.requirement)
    ):
        parts = list(found)
        yield SliceSummary(
            client_region=region,
            requirement=requirement,
            requests=sum(part.requests for part in parts),
            p99_ms=interval(part.p99_ms for part in parts),
            within_objective_share=interval(part.within_objective_share for part in parts),
        )


def table(summary: Sequence[Summary]) -> list[list[str]]:
    """Rows of text for people, the first with the names of the columns."""
    named = next((one.against.baseline for one in summary if one.against), None)
    head = ["load", "algorithm", "p50 ms", "p99 ms", "±", "within %", "±", "failed %", "cost"]
    more = ["covered %", "outside", *([f"p99 / {named}", "95 %"] if named else [])]
    ordered = sorted(summary, key=lambda one: one.load)  # rules stand side by side at each load
    return [[*head, *more], *(_row(one, named) for one in ordered)]


def _row(one: Summary, baseline: str | None) -> list[str]:
    within = one.within_objective_share
    cells = [
        f"{one.load:g}",
        one.algorithm,
        f"{one.p50_ms.mean:.0f}",
        f"{one.p99_ms.mean:.0f}",
        f"{one.p99_ms.hi - one.p99_ms.mean:.0f}",
        f"{within.mean * 100:.1f}",
        f"{(within.hi - within.mean) * 100:.1f}",
        f"{one.failed_share.mean * 100:.2f}",
        f"{one.cost.mean:.0f}",
        f"{one.coverage90.mean * 100:.1f}" if one.coverage90 else "",
        f"{one.outside_requirement}",
    ]
    return cells + (_ratio_cells(one) if baseline else [])


def _ratio_cells(one: Summary) -> list[str]:
    ratio = one.against.p99_ratio if one.against else None
    return [f"{ratio.mean:.2f}", f"{ratio.lo:.2f}-{ratio.hi:.2f}"] if ratio else ["", ""]


def slice_table(summary: Sequence[Summary]) -> list[list[str]]:
    """Rows of text per client region and requirement."""
    head = ["load", "client region", "requirement", "algorithm", "requests", "p99 ms", "within %"]
    rows = [
        (one.load, part.client_region, part.requirement, index, one.algorithm, part)
        for index, one in enumerate(summary)
        for part in one.by
    ]
    return [
        head,
        *(
            [
                f"{load:g}",
                region,
                requirement,
                algorithm,
                f"{part.requests}",
                f"{part.p99_ms.mean:.0f}",
                f"{part.within_objective_share.mean * 100:.1f}",
            ]
            for load, region, requirement, _, algorithm, part in sorted(
                rows, key=lambda row: row[:4]
            )
        ),
    ]


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
