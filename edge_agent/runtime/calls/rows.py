"""Several requests as one, and its outputs taken apart again, row by row."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from isochrone.router.wire.tensor import DATATYPES, Array, Tensor, TensorSpec

Arrays = Mapping[str, Array]


def by_rows(specs: Sequence[TensorSpec]) -> bool:
    """Every one of these tensors has as many rows as one likes."""
    return all(spec.shape[:1] == (-1,) for spec in specs)


def rows_of(arrays: Arrays) -> int | None:
    """How many rows all inputs have; None where they do not agree."""
    counts = {array.shape[0] for array in arrays.values()}
    return counts.pop() if len(counts) == 1 else None


def row_bytes(specs: Sequence[TensorSpec]) -> int:
    """What a row of these tensors takes together, those that leave its size open left out."""
    sizes = [
        prod(spec.shape[1:]) * DATATYPES[spec.datatype].element_bytes
        for spec in specs
        if -1 not in spec.shape[1:]
    ]
    return sum(sizes)


def stacked(requests: Sequence[Arrays]) -> Arrays:
    """The inputs of all of them, one below the other; they differ in their rows only."""
    return {name: np.concatenate([one[name] for one in requests]) for name in requests[0]}


def split(outputs: Sequence[Tensor], counts: Sequence[int]) -> list[tuple[Tensor, ...]] | None:
    """The outputs of each of them, who had so many rows; None where the rows do not add up."""
    total = sum(counts)
    if any(tensor.shape[:1] != (total,) for tensor in outputs):
        return None
    ends = list(pairwise(accumulate(counts, initial=0)))
    return [tuple(_cut(outputs, start, end)) for start, end in ends]


def _cut(outputs: Sequence[Tensor], start: int, end: int) -> Iterator[Tensor]:
    return (Tensor(one.name, one.datatype, one.data[start:end]) for one in outputs)
