"""Whether the rows of a model's inputs are independent of each other, tried out on the model.

Random rows of several scales and lengths, as realistic as `made_up` makes them, are run alone, then
together with others: in several numbers, among many of their like, and beside neighbours as extreme
as a caller may send. Each must come to what it came to alone. A model that is not found out by this
is taken for row-wise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isochrone.edge_agent.runtime.calls.rows import Arrays, split, stacked
from isochrone.edge_agent.runtime.loading import made_up
from isochrone.edge_agent.runtime.loading.made_up import Shape
from isochrone.router.errors import BadRequest, Unavailable
from isochrone.router.process import freed_memory
from isochrone.router.process.clock import Clock
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec

Compute = Callable[[Arrays], tuple[Tensor, ...]]
_SEED = 17
_BASE_ROWS = 8
_LEAST_ROWS = 3
"""So many of them must have an answer of their own."""
_COUNTS = (2, 3, 5, 8, 17, 32)
"""Rows of the runs that are always compared; from there on doubled, up to what is asked for."""
_FAR, _FARTHEST = 1e4, 1e30
_SCALES, _FILLS = (1, 2, 10, 100), (0, 1, None, 0)
"""Of the base rows in turn: of the whole ones, and of those that are cut short."""
_MORE_S, _MORE_SHARE = 0.5, 0.15
"""All other numbers of rows are tried for so long, or this share of what the rest took."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a proof may take: rows in one run, seconds, and bytes that the process may grow by."""

    most_rows: int
    most_s: float
    most_bytes: int


@dataclass(frozen=True, slots=True)
class RowProof:
    """So many rows may share a run; 1 means that none may, and `reason` says why.

    `refuted`: a dependency was found, rather than too little time, memory or answers to find one.
    """

    rows: int
    runs: int
    reason: str = ""
    refuted: bool = False


class _Dependent(Exception):
    """A row came to something else than alone."""


class _Undecided(Exception):
    """Time or memory ran out, or there is nothing to compare."""


def prove(
    compute: Compute,
    takes: Sequence[TensorSpec],
    samples: Sequence[Mapping[str, Shape]],
    tolerance: float,
    bounds: Bounds,
    clock: Clock,
) -> RowProof:
    """Run a model until it is known how many rows may share a run. Blocks.

    `samples` are shapes, by input, that the model answers; the first counts. `compute` raises
    BadRequest for what it refuses. Outputs may differ by `tolerance`, of the largest number that
    the row comes to where that is below 1.
    """
    trial = _Trial(compute, takes, tolerance, bounds, clock)
    rows = 1
    try:
        for number, shapes in enumerate(_shapes(takes, samples[0])):
            try:
                case = trial.case(shapes)
            except _Undecided:
                if number == 0:
                    raise
                continue  # the model does not take this size
            found = case.proven()
            rows = found if number == 0 else min(rows, found)
    except _Dependent as error:
        return RowProof(1, trial.runs, str(error), refuted=True)
    except _Undecided as error:
        return RowProof(1, trial.runs, str(error))
    return RowProof(rows, trial.runs, "" if rows > 1 else "no time or memory for larger runs")


def _shapes(takes: Sequence[TensorSpec], sample: Mapping[str, Shape]) -> Iterator[dict[str, Shape]]:
    """One row of the sample's shape, and one with other sizes where the model leaves them open."""
    yield {spec.name: (1, *sample[spec.name][1:]) for spec in takes}
    if any(-1 in spec.shape[1:] for spec in takes):
        yield {
            spec.name: (1, *map(_other, spec.shape[1:], sample[spec.name][1:])) for spec in takes
        }


def _other(declared: int, size: int) -> int:
    return made_up.other_sizes(size)[0] if declared == -1 else size


class _Trial:
    """Runs of one model, counted and bounded."""

    def __init__(
        self,
        compute: Compute,
        takes: Sequence[TensorSpec],
        tolerance: float,
        bounds: Bounds,
        clock: Clock,
    ) -> None:
        self._compute = compute
        self.takes = takes
        self.tolerance = tolerance
        self.bounds = bounds
        self._clock = clock
        self._from_s = clock()
        self._until_s = self._from_s + bounds.most_s
        self._before_bytes = freed_memory.private_bytes()
        self._bytes_of_row = 0.0
        self.runs = 0
        self.chance = np.random.default_rng(_SEED)

    def now_s(self) -> float:
        return self._clock()

    def more_until_s(self) -> float:
        """When it is time to stop with what need not be tried."""
        now_s = self._clock()
        return now_s + max(_MORE_S, _MORE_SHARE * (now_s - self._from_s))

    def run(self, arrays: Arrays, counts: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """The outputs of each of these, which have so many rows.

        Raises:
            BadRequest: the model refuses the inputs.
        """
        rows = sum(counts)
        if self._clock() > self._until_s:
            raise _Undecided(f"not found out within {self.bounds.most_s:g} s")
        if rows * self._bytes_of_row > self.bounds.most_bytes:
            raise _Undecided(f"{rows} rows would take more than {self.bounds.most_bytes} bytes")
        self.runs += 1
        try:
            outputs = self._compute(arrays)
        except Unavailable as error:
            raise _Undecided(f"{rows} rows: {error.message}") from error
        grown_bytes = freed_memory.private_bytes() - self._before_bytes
        self._bytes_of_row = max(self._bytes_of_row, grown_bytes / rows)
        parts = split(outputs, counts)
        if parts is None:
            raise _Dependent(f"{rows} rows in are not {rows} rows out")
        return parts

    def case(self, shapes: Mapping[str, Shape]) -> "_Case":
        """Rows of some shape with their answers."""
        for top_id in made_up.TOP_IDS if made_up.has_ids(self.takes) else (0,):
            rows = [*_rows(self.takes, shapes, self.chance, top_id)]
            alone = [(row, answer) for row in rows if (answer := self.answer(row)) is not None]
            if len(alone) >= _LEAST_ROWS:
                return _Case(self, alone, top_id)
        raise _Undecided("it answers too few made-up rows")

    def answer(self, row: Arrays) -> tuple[Tensor, ...] | None:
        """What one row comes to alone; None where it is refused, or comes to no numbers."""
        try:
            (answer,) = self.run(row, [1])
        except BadRequest:
            return None
        return answer if any(map(_is_told, answer)) else None


class _Case:
    """Rows of one shape with what they come to alone."""

    def __init__(
        self, trial: _Trial, alone: Sequence[tuple[Arrays, tuple[Tensor, ...]]], top_id: int
    ) -> None:
        self._trial = trial
        self._rows = [row for row, _ in alone]
        self._answers = [answer for _, answer in alone]
        self._top_id = top_id

    def proven(self) -> int:
        """How many rows may share a run."""
        self._check([0], "the same row, run again,")
        self._check([0, 1], "a row beside another")
        self._check_beside_extremes()
        first = self._answers[0]
        if all(self._same(first, other) for other in self._answers[1:]):
            raise _Undecided("it answers all made-up rows alike")
        rows = 2
        try:
            for number, count in enumerate(self._counts()):
                places = self._trial.chance.permutation(np.arange(count) % len(self._rows))
                self._check(places.tolist(), f"one of {count} rows")
                self._check(self._crowd(number, count), f"one of {count} rows, most of them alike,")
                rows = count
            self._check([0], "the same row, run again after others,")
            self._try_more(rows)
        except _Undecided:
            pass  # so many are proven
        return rows

    def _crowd(self, number: int, count: int) -> list[int]:
        """One of the rows as often as fits beside another, which comes last."""
        return [*[number % len(self._rows)] * (count - 1), (number + 1) % len(self._rows)]

    def _try_more(self, most: int) -> None:
        """Crowds of each row alone, then all numbers of rows that were left out, while time is."""
        until_s = self._trial.more_until_s()
        for place in range(len(self._rows)):
            if self._trial.now_s() < until_s:
                self._check([place] * most, f"one of {most} rows, all of them alike,")
        for count in range(2, most):
            if self._trial.now_s() < until_s:
                places = self._trial.chance.integers(0, len(self._rows), count)
                self._check(places.tolist(), f"one of {count} rows")

    def _counts(self) -> Iterator[int]:
        most = self._trial.bounds.most_rows
        count = 0
        for count in _COUNTS:
            if count >= most:
                break
            yield count
        while 0 < count * 2 < most:
            count *= 2
            yield count
        yield most

    def _check(self, places: Sequence[int], what: str) -> None:
        together = stacked([self._rows[place] for place in places])
        try:
            parts = self._trial.run(together, [1] * len(places))
        except BadRequest:
            raise _Dependent(f"it refuses {len(places)} rows that it takes alone") from None
        for place, part in zip(places, parts, strict=True):
            if not self._same(self._answers[place], part):
                raise _Dependent(f"{what} comes to something else")

    def _check_beside_extremes(self) -> None:
        for what, neighbour in _extremes(self._trial.takes, self._rows[2], self._top_id):
            for rows in ([self._rows[2], neighbour], [neighbour, neighbour, *self._rows[:2]]):
                try:
                    parts = self._trial.run(stacked(rows), [1] * len(rows))
                except BadRequest:
                    continue  # no caller can have it run
                for row, part in zip(rows, parts, strict=True):
                    place = next((at for at in (0, 1, 2) if self._rows[at] is row), None)
                    if place is not None and not self._same(self._answers[place], part):
                        raise _Dependent(f"a row beside one with {what} comes to something else")

    def _same(self, some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
        pairs = zip(some, others, strict=True)
        return all(_close(one.data, other.data, self._trial.tolerance) for one, other in pairs)


def _rows(
    takes: Sequence[TensorSpec],
    shapes: Mapping[str, Shape],
    chance: np.random.Generator,
    top_id: int,
) -> Iterator[Arrays]:
    """Rows of several scales; every second has positive numbers only, and is cut short in part."""
    for number in range(_BASE_ROWS):
        row = made_up.arrays(takes, shapes, chance, top_id)
        turn = number // 2 % len(_SCALES)
        if number % 2:
            fill = _FILLS[turn]
            yield made_up.shortened(takes, row, chance, fill if fill is None else min(fill, top_id))
        else:
            yield made_up.scaled(takes, row, _SCALES[turn])


def _is_told(tensor: Tensor) -> bool:
    return tensor.data.dtype.kind != "f" or bool(np.isfinite(tensor.data).any())


def _close(one: Array, other: Array, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    finite = np.abs(one[np.isfinite(one)].astype(np.float64))
    off = tolerance * min(1.0, finite.max(initial=0.0))
    return bool(np.allclose(one, other, rtol=tolerance, atol=off, equal_nan=True))


def _extremes(
    takes: Sequence[TensorSpec], row: Arrays, top_id: int
) -> Iterator[tuple[str, Arrays]]:
    """Neighbours with one input far from all that is usual, then all of their numbers."""
    for spec in takes:
        for what, array in _far(spec, row[spec.name], top_id):
            yield f"{what} as {spec.name}", {**row, spec.name: array}
    floats = [spec for spec in takes if row[spec.name].dtype.kind == "f"]
    if len(floats) > 1:
        for at_once in zip(*(_far(one, row[one.name], top_id) for one in floats), strict=True):
            named = zip(floats, at_once, strict=True)
            yield at_once[0][0], {**row, **{spec.name: far for spec, (_, far) in named}}


def _far(spec: TensorSpec, usual: Array, top_id: int) -> Iterator[tuple[str, Array]]:
    if usual.dtype.kind == "f":
        yield "numbers of ten thousands", (np.asarray(usual, np.float64) * _FAR).astype(usual.dtype)
        farthest = min(_FARTHEST, float(np.finfo(usual.dtype.str).max) / 4)
        for number in (-_FAR, 0, 255, farthest, -farthest, np.nan, np.inf, -np.inf):
            yield f"{number:g}", np.full_like(usual, number)
    elif DATATYPES[spec.datatype].form is Form.TEXT:
        for text in (b"", b"far " * 100):
            array = np.empty(usual.shape, object)
            array.fill(text)
            yield repr(text[:4]), array
    else:
        lowest = 0 if usual.dtype.kind in "bu" else -1
        levels = {1: (32, 64, 127, 255)}.get(usual.dtype.itemsize, ())
        more = () if usual.dtype.kind == "b" else (lowest, top_id, *levels)
        for whole in sorted({0, 1, *more}):
            yield str(whole), np.full(usual.shape, whole).astype(usual.dtype)
