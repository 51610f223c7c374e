"""Runs two variants on the same data, in turns: their answers, and how long each takes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, starmap

import numpy as np

from isochrone.deploy.packages.dataset import Dataset, Requests, made_up
from isochrone.deploy.packages.verdict import Comparison, Side
from isochrone.edge_agent.runtime.calls.model import Model
from isochrone.edge_agent.runtime.engines.table import engine
from isochrone.edge_agent.runtime.loading.stopwatch import Stopwatch, Timed, medians_s
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.errors import BadRequest
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Array

_ROUNDS = 301
_MOST_S = 3.0
_WARMING = 3
Answers = list[list[Array]]
"""For each request one array for each output, items along the first axis."""


def answers(package: Package, variant: Variant, data: Dataset | Requests) -> Answers:
    """What a variant says of every item.

    Raises:
        PackageError: it cannot be loaded.
        BadRequest: it cannot compute the data.
    """
    with _loaded(package, variant, data) as model:
        return asyncio.run(_answers(model, data))


def compared(
    before: tuple[Package, Variant], after: tuple[Package, Variant], data: Dataset | Requests
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
    right = _right(said[0], data)
    tolerance = before[0].manifest.tolerance
    shares = [_share(each, right, tolerance) for each in said]
    return Comparison(
        _side(before[1], times_s[0], shares[0]),
        _side(after[1], times_s[1], shares[1]),
        deviation(*said),
    )


def made_up_for(package: Package, variant: Variant) -> Requests:
    """Made-up requests that a variant answers.

    Raises:
        PackageError: it cannot be loaded, or answers too few.
    """
    model = engine(variant.engine).build(package, variant, Stopwatch(monotonic), 1)

    def answers_it(request: InferRequest) -> bool:
        try:
            asyncio.run(_answer(model, request))
        except BadRequest:
            return False
        return True

    try:
        model.startup()
        return made_up(package, answers_it)
    finally:
        model.shutdown()


def _right(said: Answers, data: Dataset | Requests) -> list[Array]:
    if data.labels is None:
        return [_verdicts(outputs[0]) for outputs in said]
    return np.split(data.labels, np.cumsum([len(outputs[0]) for outputs in said])[:-1])


def _share(said: Answers, right: Sequence[Array], tolerance: float) -> float:
    """Of all items; what has none counts as one."""
    outputs = [outputs[0] for outputs in said]
    counts = [max(1, len(output)) if output.ndim else 1 for output in outputs]
    shares = [right_share(*pair, tolerance) for pair in zip(outputs, right, strict=True)]
    return float(np.average(shares, weights=counts))


def _side(variant: Variant, latency_s: float, right: float) -> Side:
    return Side(variant.name, variant.bytes, latency_s, right)


def right_share(output: Array, right: Array, tolerance: float) -> float:
    """The share of an output that is right: the highest score stands where it should.

    Where the output has no scores, its values are right; numbers may be off by `tolerance`.
    Nothing is right where there are more or fewer than there should be.
    """
    said = _verdicts(output)
    if said.size != right.size or not said.size:
        return float(said.size == right.size)
    if said.dtype.kind != "f":
        return float(np.mean(said == right))
    return float(np.mean(np.isclose(said, right.reshape(said.shape), tolerance, tolerance)))


def _verdicts(output: Array) -> Array:
    """The class of each item; the output itself where it holds no scores."""
    has_scores = output.dtype.kind == "f" and output.ndim > 1 and output.shape[-1] > 1
    return np.asarray(output.argmax(-1)) if has_scores else output


def deviation(some: Answers, others: Answers) -> float:
    """The largest difference between two variants' answers.

    A text that differs counts as 1; it is infinite where one is no number, or of another shape.
    """
    if [list(map(np.shape, one)) for one in some] != [list(map(np.shape, one)) for one in others]:
        return float("inf")
    pairs = zip(chain.from_iterable(some), chain.from_iterable(others), strict=True)
    return max(starmap(_apart, pairs), default=0.0)


def _apart(one: Array, other: Array) -> float:
    if one.dtype == object:
        return float((one != other).any())
    largest = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))
    return largest if np.isfinite(largest) else float("inf")


@contextmanager
def _loaded(package: Package, variant: Variant, data: Dataset | Requests) -> Iterator[Timed]:
    """The variant's graph in memory, as the file has it: what writes text is left out."""
    stopwatch = Stopwatch(monotonic)
    model = engine(variant.engine).build(package, variant, stopwatch, 1)
    try:
        model.startup()
        yield Timed(model, (data.first(),), stopwatch)
    finally:
        model.shutdown()


async def _answers(timed: Timed, data: Dataset | Requests) -> Answers:
    return [await _answer(timed.model, request) for request in data.requests()]


async def _answer(model: Model, request: InferRequest) -> list[Array]:
    (part,) = [part async for part in model.request(request)]
    return [tensor.data for tensor in part.outputs]
