"""Structured pruning: which outputs of a layer go, and everything that goes with them.

Importance is the norm of an output's own weights: H. Li et al., "Pruning Filters for Efficient
ConvNets", ICLR 2017. Rows are removed, not set to zero: only that makes a network smaller and
faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from isochrone.router.wire.tensor import Array

Norm = Literal["l1", "l2"]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Axis:
    """An array's axis along a layer's outputs; `repeat` places in a row belong to each output."""

    array: str
    axis: int
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Joint:
    """A layer whose outputs can be cut: its weights, all else along them, and who reads them."""

    name: str
    weights: Axis
    along: tuple[Axis, ...]
    reader: Axis


def cut(
    arrays: Mapping[str, Array], joints: Sequence[Joint], share: float, norm: Norm
) -> dict[str, Array]:
    """The arrays without the least important `share` of each joint's outputs; at least 1 stays."""
    kept = {joint.name: _kept(arrays, joint, share, norm) for joint in joints}
    smaller = dict(arrays)
    for joint in joints:
        for axis in (joint.weights, *joint.along, joint.reader):
            places = _places(kept[joint.name], axis.repeat)
            smaller[axis.array] = np.take(smaller[axis.array], places, axis.axis)
    return smaller


def unread(
    arrays: Mapping[str, Array], joints: Sequence[Joint], share: float, norm: Norm
) -> dict[str, Array]:
    """The arrays at their full size, but nobody reads what `cut` would remove.

    A network with these answers as one with the cut arrays does: the proof that it was cut right.
    """
    masked = dict(arrays)
    for joint in joints:
        reader = joint.reader
        places = _places(_kept(arrays, joint, share, norm), reader.repeat)
        data = masked[reader.array]
        mask = np.zeros(data.shape[reader.axis], data.dtype)
        mask[places] = 1
        masked[reader.array] = data * np.expand_dims(
            mask, [axis for axis in range(data.ndim) if axis != reader.axis]
        )
    return masked


def _kept(arrays: Mapping[str, Array], joint: Joint, share: float, norm: Norm) -> Places:
    """Places of the outputs that stay, in their order; of equals, those that come first."""
    weights = np.moveaxis(arrays[joint.weights.array], joint.weights.axis, 0)
    norms = np.linalg.norm(
        weights.reshape(len(weights), -1).astype(np.float64), 1 if norm == "l1" else 2, axis=1
    )
    count = max(1, round(len(norms) * (1 - share)))
    return np.sort(np.argsort(-norms, kind="stable")[:count])


def _places(kept: Places, repeat: int) -> Places:
    return (kept[:, None] * repeat + np.arange(repeat)).ravel()
