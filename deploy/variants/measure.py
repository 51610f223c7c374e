"""Runs two variants on the same data, in turns: their answers, and how long each takes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from deploy.variants.dataset import Dataset
from deploy.variants.verdict import Comparison, Side
from edge_agent.runtime.engines import engine
from edge_agent.runtime.manifest import Variant
from edge_agent.runtime.package import Package
from edge_agent.runtime.stopwatch import Stopwatch, Timed, medians_s
from router.process.clock import monotonic
from router.wire.tensor import Array

_ROUNDS = 301
_MOST_S = 3.0
_WARMING = 3
Answers = list[Array]
"""One array for each output, items along the first axis."""


def answers(package: Package, variant: Variant, data: Dataset) -> Answers:
    """What a variant says of every item.

    Raises:
        PackageError: it cannot be loaded.
        BadRequest: it cannot compute the data.
    """
    with _loaded(package, variant, data) as model:
        return asyncio.run(_answers(model, data))


def compared(
    before: tuple[Package, Variant], after: tuple[Package, Variant], data: Dataset
) -> Comparison:
    """A variant beside what was made of it, both in memory, asked in turns.

    Raises:
        PackageError: one of them cannot be loaded.
        BadRequest: one of them cannot compute the data.
    """
    with _loaded(*before, data) as old, _loaded(*after, data) as new:
        said = asyncio.run(_answers(old, data)), asyncio.run(_answers(new, data))
        medians_s([old, new], rounds=_WARMING, most_s=_MOST_S)
        times_s = medians_s([old, new], rounds=_ROUNDS, most_s=_MOST_S)
    right = _verdicts(said[0][0]) if data.labels is None else data.labels
    tolerance = before[0].manifest.tolerance
    before_s, after_s = times_s
    return Comparison(
        _side(before[1], before_s, right_share(said[0][0], right, tolerance)),
        _side(after[1], after_s, right_share(said[1][0], right, tolerance)),
        deviation(*said),
    )


def _side(variant: Variant, latency_s: float, right: float) -> Side:
    return Side(variant.name, variant.bytes, latency_s, right)


def right_share(output: Array, right: Array, tolerance: float) -> float:
    """The share of an output that is right: the highest score stands where it should.

    Where the output has no scores, its values are right; numbers may be off by `tolerance`.
    """
    said = _verdicts(output)
    if said.dtype.kind != "f":
        return float(np.mean(said == right))
    return float(np.mean(np.isclose(said, right.reshape(said.shape), tolerance, tolerance)))


def _verdicts(output: Array) -> Array:
    """The class of each item; the output itself where it holds no scores."""
    has_scores = output.dtype.kind == "f" and output.ndim > 1 and output.shape[-1] > 1
    return np.asarray(output.argmax(-1)) if has_scores else output


def deviation(some: Sequence[Array], others: Sequence[Array]) -> float:
    """The largest difference between two variants' answers; infinite where one is no number."""
    return max(map(_apart, some, others))


def _apart(one: Array, other: Array) -> float:
    if one.dtype == object:
        return float((one != other).any())
    largest = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
    return largest if np.isfinite(largest) else float("inf")


@contextmanager
def _loaded(package: Package, variant: Variant, data: Dataset) -> Iterator[Timed]:
    """The variant's graph in memory, as the file has it: what writes text is left out."""
    stopwatch = Stopwatch(monotonic)
    model = engine(variant.engine).build(package, variant, stopwatch, 1)
    try:
        model.startup()
        yield Timed(model, (data.first(),), stopwatch)
    finally:
        model.shutdown()


async def _answers(timed: Timed, data: Dataset) -> Answers:
    parts = [
        [tensor.data for tensor in part.outputs]
        for request in data.requests()
        async for part in timed.model.request(request)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
