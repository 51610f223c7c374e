"""The results of a comparison as rows of text for people."""

from collections.abc import Iterable, Sequence

from isochrone.router.simulate.report import Run, Summary
from isochrone.router.simulate.statistics import Interval
from isochrone.router.simulate.tally import Bucket


def table(summary: Sequence[Summary]) -> list[list[str]]:
    """Rows of text for people, the first with the names of the columns."""
    named = next((one.against.baseline for one in summary if one.against), None)
    head = ["load", "algorithm", "p50 ms", "p99 ms", "within %", "failed %", "outside", "cost"]
    more = ["regret ms", "covered %", *([f"p99 / {named}", "95 %"] if named else [])]
    ordered = sorted(summary, key=lambda one: one.load)  # rules stand side by side at each load
    return [[*head, *more], *(_row(one, named) for one in ordered)]


def _row(one: Summary, baseline: str | None) -> list[str]:
    cells = [
        f"{one.load:g}",
        one.algorithm,
        f"{one.p50_ms.mean:.0f}",
        _sure(one.p99_ms, 0),
        _sure(one.within_objective_share, 1, 100),
        f"{one.failed_share.mean * 100:.2f}",
        f"{one.outside_requirement}",
        f"{one.cost.mean:.0f}",
        f"{one.regret_ms.mean:.0f}" if one.regret_ms else "",
        f"{one.coverage90.mean * 100:.1f}" if one.coverage90 else "",
    ]
    ratio = one.against.p99_ratio if one.against else None
    return cells + (_ratio_cells(ratio) if baseline else [])


def _sure(value: Interval, digits: int, times: float = 1.0) -> str:
    half = (value.hi - value.mean) * times
    text = f"{value.mean * times:.{digits}f}"
    return f"{text} ±{half:.{digits}f}" if half else text


def _ratio_cells(ratio: Interval | None) -> list[str]:
    if ratio is None:
        return ["", ""]
    return [f"{ratio.mean:.2f}", f"{ratio.lo:.2f}-{ratio.hi:.2f}" if ratio.hi > ratio.lo else ""]


def slice_table(summary: Sequence[Summary]) -> list[list[str]]:
    """Rows of text by requirement and by client region, the rules side by side."""
    named = next((one.against.baseline for one in summary if one.against), None)
    head = ["load", "client region", "requirement", "algorithm", "requests", "p99 ms", "within %"]
    places: dict[tuple[str, str], int] = {}
    rows = []
    for one in summary:
        for part in one.margins:
            key = (part.client_region, part.requirement)
            rows.append((one.load, places.setdefault(key, len(places)), one.algorithm, part))
    rows.sort(key=lambda row: row[:2])  # a stable sort: rules keep their order
    return [
        [*head, *([f"p99 / {named}", "95 %"] if named else [])],
        *(
            [
                f"{load:g}",
                part.client_region,
                part.requirement,
                algorithm,
                f"{part.requests}",
                _sure(part.p99_ms, 0),
                _sure(part.within_objective_share, 1, 100),
                *(_ratio_cells(part.p99_ratio) if named else []),
            ]
            for load, _, algorithm, part in rows
        ),
    ]


def prediction_table(runs: Sequence[Run]) -> list[list[str]]:
    """Rows of text on what rules predicted, over all seeds: observed and predicted too much."""
    found: dict[tuple[float, str, str], list[Bucket]] = {}
    for run in runs:
        for bucket in run.predictions:
            found.setdefault((run.load, run.algorithm, bucket.busy), []).append(bucket)
    terms = list(
        dict.fromkeys(term for run in runs for one in run.predictions for term in one.bias_ms)
    )
    head = ["load", "algorithm", "busy", "requests", "covered %", "bias %"]
    return [
        [*head, *(f"{term} ms, bias" for term in terms)],
        *(
            [f"{load:g}", algorithm, busy, *_prediction_cells(alike, terms)]
            for (load, algorithm, busy), alike in found.items()
        ),
    ]


def _prediction_cells(buckets: Sequence[Bucket], terms: Sequence[str]) -> list[str]:
    requests = sum(one.requests for one in buckets)

    def mean(values: Iterable[float]) -> float:
        pairs = zip(values, buckets, strict=True)
        return sum(value * one.requests for value, one in pairs) / requests

    observed_ms = {term: mean(one.observed_ms.get(term, 0.0) for one in buckets) for term in terms}
    bias_ms = {term: mean(one.bias_ms.get(term, 0.0) for one in buckets) for term in terms}
    total_ms = sum(observed_ms.values())
    return [
        f"{requests}",
        f"{mean(one.coverage90 for one in buckets) * 100:.1f}",
        f"{sum(bias_ms.values()) / total_ms * 100:+.1f}" if total_ms else "",
        *(f"{observed_ms[term]:.1f} {bias_ms[term]:+.1f}" for term in terms),
    ]
