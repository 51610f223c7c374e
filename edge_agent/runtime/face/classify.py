"""The classification extension: the k best classes of an output, as text.

Source: Triton's protocol/extension_classification.md.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from isochrone.router.errors import BadRequest
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor

PARAMETER = "classification"


def wanted(parameters: object) -> int:
    """How many classes an output's parameters ask for; 0: none.

    Raises:
        BadRequest: the number is not a positive one.
    """
    count = parameters.get(PARAMETER) if isinstance(parameters, dict) else None
    if count is None:
        return 0
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise BadRequest(f"{PARAMETER} must be a positive number of classes")
    return count


def classified(tensor: Tensor, count: int, labels: Sequence[str]) -> Tensor:
    """`value:index[:label]` of the `count` largest values, best first, for every row of a batch.

    Raises:
        BadRequest: the output is no batch of numbers.
    """
    form = DATATYPES[tensor.datatype].form
    if form not in (Form.INT, Form.FLOAT) or not tensor.shape:
        raise BadRequest(f"{tensor.name!r} cannot be classified: it holds no numbers")
    rows = np.atleast_2d(tensor.data)
    rows = rows.reshape(len(rows), prod(rows.shape[1:]))  # -1 cannot be told of an empty batch
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = [_texts(row, order, labels) for row, order in zip(rows, best, strict=True)]
    data = np.empty(best.shape, object)
    data[...] = texts if data.size else None
    shape = best.shape if len(tensor.shape) > 1 else best.shape[1:]
    return Tensor(tensor.name, "BYTES", data.reshape(shape))


def _texts(row: Array, order: Array, labels: Sequence[str]) -> list[bytes]:
    return [f"{row[index]:f}:{index}{_label(labels, int(index))}".encode() for index in order]


def _label(labels: Sequence[str], index: int) -> str:
    return f":{labels[index]}" if index < len(labels) else ""
