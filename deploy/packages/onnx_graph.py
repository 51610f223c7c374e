"""Writes a list of layers as an ONNX graph; the same weights give the same bytes."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from isochrone.edge_agent.runtime.package.manifest import (
    Architecture,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Relu,
    Softmax,
)
from isochrone.router.wire.tensor import Array, TensorSpec

_OPSET = 21
_IR_VERSION = 10
"""The newest that every onnxruntime since 1.20 reads."""
_TYPES = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64, "UINT8": TensorProto.UINT8}


def onnx_bytes(
    architecture: Architecture, weights: Mapping[str, Array], takes: TensorSpec, gives: TensorSpec
) -> bytes:
    """The network with its weights (`i.weight`, `i.bias`) as an ONNX file."""
    names = [takes.name, *(f"after_{i}" for i in range(len(architecture) - 1)), gives.name]
    nodes = [
        _node(layer, index, names[index], names[index + 1])
        for index, layer in enumerate(architecture)
    ]
    return model_bytes(nodes, takes, gives, weights)


def model_bytes(
    nodes: Sequence[onnx.NodeProto],
    takes: TensorSpec,
    gives: TensorSpec,
    constants: Mapping[str, Array],
) -> bytes:
    """A graph with one input and one output as an ONNX file."""
    tensors = [numpy_helper.from_array(np.asarray(data), name) for name, data in constants.items()]
    graph = helper.make_graph(nodes, "network", [_declared(takes)], [_declared(gives)], tensors)
    model = helper.make_model(
        graph,
        producer_name="isochrone",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _declared(spec: TensorSpec) -> onnx.ValueInfoProto:
    shape = [f"{spec.name}_{i}" if size == -1 else size for i, size in enumerate(spec.shape)]
    if shape and spec.shape[0] == -1:
        shape[0] = "batch"
    return helper.make_tensor_value_info(spec.name, _TYPES[spec.datatype], shape)


def _node(layer: Layer, index: int, source: str, target: str) -> onnx.NodeProto:
    inputs = [source, f"{index}.weight", f"{index}.bias"]
    match layer:
        case Conv2d():
            return helper.make_node(
                "Conv",
                inputs,
                [target],
                kernel_shape=[layer.kernel] * 2,
                pads=[layer.padding] * 4,
                strides=[layer.stride] * 2,
            )
        case Linear():
            return helper.make_node("Gemm", inputs, [target], transB=1)
        case MaxPool2d():
            square = [layer.kernel] * 2
            return helper.make_node(
                "MaxPool", [source], [target], kernel_shape=square, strides=square
            )
        case Relu():
            return helper.make_node("Relu", [source], [target])
        case Flatten():
            return helper.make_node("Flatten", [source], [target])
        case Softmax():
            return helper.make_node("Softmax", [source], [target], axis=-1)
