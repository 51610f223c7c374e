"""Where an ONNX graph can be cut: chains of dense layers and convolutions.

From each layer on, the graph is followed as long as every operator treats the layer's outputs one
by one, up to the layers that read them. A branch, a sum of two layers, or an operator that is not
known here ends the walk, and the layer is left alone.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from isochrone.deploy.packages.cut import Axis, Joint
from isochrone.router.wire.tensor import Array

_DENSE = frozenset({"Gemm", "MatMul"})
_ONE_BY_ONE = frozenset(
    {
        *("Abs", "Celu", "Clip", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
        *("LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh"),
    }
)
_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"})
_WITH_CONSTANT = frozenset({"Add", "Div", "Mul", "PRelu", "Sub"})
_FLATTENERS = frozenset({"Flatten", "Reshape"})


class _Lost(Exception):
    """A layer's outputs cannot be followed; the text says why."""


@dataclass(frozen=True, slots=True)
class _Walk:
    """How far a layer's outputs were followed, and what runs along them so far."""

    tensor: str
    size: int
    images: bool
    """Outputs are channels of images; else the last dimension."""
    flat: bool = False
    along: tuple[Axis, ...] = ()
    reshapes: tuple[str, ...] = ()

    def on(self, node: onnx.NodeProto, *along: Axis) -> "_Walk":
        return replace(self, tensor=node.output[0], along=(*self.along, *along))


class Graph:
    """An ONNX model, its constants, and who reads what."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph
        self.arrays: dict[str, Array] = {
            one.name: numpy_helper.to_array(one) for one in model.graph.initializer
        }
        self._uses = Counter(name for node in self._graph.node for name in node.input)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._given = {one.name for one in self._graph.output}
        self._flattened: set[str] = set()

    def joints(self) -> tuple[list[Joint], list[str]]:
        """Every layer that can be cut, and why others cannot; what gives an output is never cut."""
        found, left = [], []
        for node in self._graph.node:
            if node.op_type not in {*_DENSE, "Conv"}:
                continue
            try:
                joint = self._joint(node)
            except _Lost as reason:
                left.append(f"{_title(node)} is left as it is: {reason}")
            else:
                if joint is not None:
                    found.append(joint)
        return found, left

    def written(self, arrays: Mapping[str, Array]) -> bytes:
        """The model with other constants; whoever loads it infers the sizes in between anew."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for one in model.graph.initializer:
            if arrays[one.name] is not self.arrays[one.name]:
                one.CopyFrom(
                    numpy_helper.from_array(np.ascontiguousarray(arrays[one.name]), one.name)
                )
        self._unfix(model)
        del model.graph.value_info[:]
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _unfix(self, model: onnx.ModelProto) -> None:
        """A Reshape to [batch, features] becomes a Flatten, whose result may be of any size."""
        for node in model.graph.node:
            if node.op_type == "Reshape" and node.output[0] in self._flattened:
                flat = helper.make_node("Flatten", node.input[:1], node.output, node.name, axis=1)
                node.CopyFrom(flat)

    def _joint(self, node: onnx.NodeProto) -> Joint | None:
        weights, bias = self._weights(node)
        size = self.arrays[weights.array].shape[weights.axis]
        walk = _Walk(node.output[0], size, images=node.op_type == "Conv", along=bias)
        while True:
            reader = self._reader(walk.tensor)
            if reader is None:
                return None
            if reader.op_type in {*_DENSE, "Conv"}:
                reading = self._reading(walk, reader)
                self._flattened.update(walk.reshapes)
                return Joint(_title(node), weights, walk.along, reading)
            walk = self._past(walk, reader)

    def _reader(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor; None where it is an output of the graph."""
        readers = self._readers.get(tensor, [])
        if tensor in self._given and not readers:
            return None
        if len(readers) != 1 or tensor in self._given:
            raise _Lost("its outputs are read in several places")
        if self._uses[tensor] > 1:
            raise _Lost("its outputs are read twice by one operator")
        return readers[0]

    def _past(self, walk: _Walk, node: onnx.NodeProto) -> _Walk:
        kind = node.op_type
        if kind in _ONE_BY_ONE and list(node.input).index(walk.tensor) == 0:
            return walk.on(node)
        if kind in _POOLS and walk.images and not walk.flat:
            return walk.on(node)
        if kind == "BatchNormalization" and not walk.flat:
            return walk.on(node, *(Axis(self._own(name), 0) for name in node.input[1:5]))
        if kind in _WITH_CONSTANT:
            return walk.on(node, *self._constant(walk, node))
        if kind == "Softmax" and self._reader(node.output[0]) is None:
            return walk.on(node)
        if kind in _FLATTENERS and self._is_flattening(node):
            reshapes = (*walk.reshapes, node.output[0])
            return replace(walk.on(node), flat=walk.images, reshapes=reshapes)
        raise _Lost(f"what {_title(node)} does with its outputs is not known here")

    def _constant(self, walk: _Walk, node: onnx.NodeProto) -> tuple[Axis, ...]:
        """The axis of a constant that runs along the outputs; none where it is one number."""
        (name,) = (one for one in node.input if one != walk.tensor)
        if name not in self.arrays or walk.flat:
            raise _Lost(f"{_title(node)} joins its outputs with others")
        shape = self.arrays[name].shape
        if self.arrays[name].size == 1:
            return ()
        axis = len(shape) - (3 if walk.images else 1)
        if axis < 0 or shape[axis] != walk.size or self.arrays[name].size != walk.size:
            raise _Lost(f"{_title(node)} has a constant that does not run along them")
        return (Axis(self._own(name), axis),)

    def _reading(self, walk: _Walk, node: onnx.NodeProto) -> Axis:
        """The axis of the reading layer's weights that runs along the outputs."""
        if node.input[0] != walk.tensor:
            raise _Lost(f"{_title(node)} uses them as weights")
        weights, _ = self._weights(node)
        axis = 1 - weights.axis
        size = self.arrays[weights.array].shape[axis]
        together = walk.flat or walk.images == (node.op_type == "Conv")
        if not together or size % walk.size or (size != walk.size and not walk.flat):
            raise _Lost(f"{_title(node)} does not read them one by one")
        return Axis(weights.array, axis, size // walk.size)

    def _weights(self, node: onnx.NodeProto) -> tuple[Axis, tuple[Axis, ...]]:
        """The axis of a layer's weights that runs along its outputs, and that of its bias."""
        known = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if known.get("group", 1) != 1 or known.get("transA", 0):
            raise _Lost("it is grouped or transposed")
        weights = self._own(node.input[1])
        if node.op_type != "Conv" and self.arrays[weights].ndim != 2:
            raise _Lost("its weights are no matrix")
        axis = 0 if node.op_type == "Conv" or known.get("transB", 0) else 1
        if len(node.input) < 3 or not node.input[2] or self._size(node.input[2]) == 1:
            return Axis(weights, axis), ()
        bias = self._own(node.input[2])
        return Axis(weights, axis), (Axis(bias, self.arrays[bias].ndim - 1),)

    def _size(self, name: str) -> int:
        """How many numbers a constant holds; 0 where it is none."""
        return self.arrays[name].size if name in self.arrays else 0

    def _own(self, name: str) -> str:
        """A constant that one node alone reads."""
        if name not in self.arrays:
            raise _Lost(f"{name!r} is no constant")
        if self._uses[name] != 1 or name in self._given:
            raise _Lost(f"{name!r} is shared with another operator")
        return name

    def _is_flattening(self, node: onnx.NodeProto) -> bool:
        known = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Flatten":
            return int(known.get("axis", 1)) == 1
        shape = self.arrays.get(node.input[1])
        if shape is None or len(shape) != 2:
            return False
        keeps_items = (-1, 1) if known.get("allowzero", 0) else (-1, 0, 1)
        return shape[0] in keeps_items


def _title(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"
