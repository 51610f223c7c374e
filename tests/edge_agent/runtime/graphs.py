"""Small graphs that are row-wise, and such that are not although their shapes look like it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from onnx import NodeProto, TensorProto, helper

from deploy.variants.onnx_graph import model_bytes
from edge_agent.runtime.manifest import Declared, Manifest, Sample, SampleTensor
from edge_agent.runtime.package import Package, described, write_package
from router.wire.tensor import Array, TensorSpec

WIDTH = 8
Made = tuple[list[NodeProto], tuple[int, ...]]
"""Nodes from `x` to `y`, and the shape of both."""
_chance = np.random.default_rng(23)
CONSTANTS: dict[str, Array] = {
    "w": _chance.standard_normal((WIDTH, WIDTH)).astype(np.float32),
    "w1": _chance.standard_normal((WIDTH, WIDTH)).astype(np.float32),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    "all": np.array([-1], np.int64),
    "as_row": np.array([1, 1, -1], np.int64),
    "first": np.array(0, np.int64),
    "taps": _chance.standard_normal((1, 1, 3)).astype(np.float32),
    "small": np.array(1e-3, np.float32),
    "five": np.array(5.0, np.float32),
    "many": np.array([6], np.int64),
    "recurrent_w": _chance.standard_normal((1, 4 * WIDTH, WIDTH)).astype(np.float32),
    "recurrent_r": _chance.standard_normal((1, 4 * WIDTH, WIDTH)).astype(np.float32),
    "ones": np.ones(WIDTH, np.float32),
    "zeros": np.zeros(WIDTH, np.float32),
    "true": np.array(True),
    "half": np.array(0.5, np.float32),
}


def node(kind: str, inputs: str, outputs: str, **more) -> NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **more)


def _if_many() -> list[NodeProto]:
    """Half of it where there are more than six rows."""
    branches = {}
    for name, kind in (("then_branch", "Mul"), ("else_branch", "Add")):
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node(kind, "x half", name)], name, [], [out])
    return [
        node("Shape", "x", "n", end=1),
        node("Greater", "n many", "is_more"),
        node("Squeeze", "is_more", "is"),
        node("If", "is", "y", **branches),
    ]


ROWS = (-1, WIDTH)
FLAT = (-1,)
WISE: dict[str, Made] = {
    "mlp": (
        [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r w1", "y")],
        ROWS,
    ),
    "softmax": ([node("MatMul", "x w", "h"), node("Softmax", "h", "y", axis=1)], ROWS),
    "norm": ([node("LayerNormalization", "x ones zeros", "h"), node("Tanh", "h", "y")], ROWS),
    "scalar": ([node("Mul", "x half", "h"), node("Tanh", "h", "y")], FLAT),
    "mean": (
        [node("ReduceMean", "x one", "m", keepdims=1), node("Sub", "x m", "y")],
        ROWS,
    ),
}
MIXED: dict[str, Made] = {
    "softmax over rows": ([node("Softmax", "x", "y", axis=0)], FLAT),
    "softmax over rows, last axis": ([node("Softmax", "x", "y", axis=-1)], FLAT),
    "cumulated": ([node("CumSum", "x first", "y")], ROWS),
    "filter over rows": (
        [
            node("Reshape", "x as_row", "row"),
            node("Conv", "row taps", "c", pads=[1, 1]),
            node("Reshape", "c all", "y"),
        ],
        FLAT,
    ),
    "time first": (
        [
            node("Unsqueeze", "x one", "t"),
            node("LSTM", "t recurrent_w recurrent_r", "h", hidden_size=WIDTH),
            node("Squeeze", "h one", "s"),
            node("Squeeze", "s one", "y"),
        ],
        ROWS,
    ),
    "attention between rows": (
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("MatMul", "x t", "raw"),
            node("Softmax", "raw", "shares", axis=-1),
            node("MatMul", "shares x", "y"),
        ],
        ROWS,
    ),
    "normed by the largest": ([node("ReduceMax", "x", "m"), node("Div", "x m", "y")], ROWS),
    "normed by the largest if it is large": (
        [
            node("Reshape", "x all", "flat"),
            node("ReduceMax", "flat zero", "m"),
            node("Max", "m five", "least"),
            node("Div", "x least", "y"),
        ],
        ROWS,
    ),
    "normed by the least if it is far below": (
        [
            node("Reshape", "x all", "flat"),
            node("TopK", "flat one", "m at", largest=0),
            node("Neg", "m", "minus"),
            node("Max", "minus five", "least"),
            node("Div", "x least", "y"),
        ],
        ROWS,
    ),
    "batch norm in training": (
        [node("BatchNormalization", "x ones zeros zeros ones", "y m v", training_mode=1)],
        ROWS,
    ),
    "a little of the mean": (
        [
            node("Reshape", "x all", "flat"),
            node("ReduceMean", "flat zero", "m"),
            node("Mul", "m small", "s"),
            node("Add", "x s", "y"),
        ],
        ROWS,
    ),
    "another answer for many rows": (_if_many(), ROWS),
    "by the place of the row": (
        [
            node("Shape", "x", "n", end=1),
            node("Squeeze", "n", "count"),
            node("Range", "first count step", "places"),
            node("Cast", "places", "p", to=TensorProto.FLOAT),
            node("Add", "x p", "y"),
        ],
        FLAT,
    ),
    "backwards": ([node("Slice", "x from to zero back", "y")], ROWS),
    "chance": ([node("RandomNormalLike", "x", "r"), node("Add", "x r", "y")], ROWS),
    "dropout in training": ([node("Dropout", "x half true", "y")], ROWS),
    "eight bits": (
        [
            node("DynamicQuantizeLinear", "x", "q scale point"),
            node("DequantizeLinear", "q scale point", "y"),
        ],
        ROWS,
    ),
    "eight bits by hand": (
        [
            node("Abs", "x", "a"),
            node("Reshape", "a all", "flat"),
            node("ReduceMax", "flat zero", "m"),
            node("Div", "x m", "u"),
            node("Mul", "u 127", "f"),
            node("Round", "f", "i"),
            node("Div", "i 127", "v"),
            node("Mul", "v m", "y"),
        ],
        ROWS,
    ),
}
MORE: dict[str, Array] = {
    "step": np.array(1, np.int64),
    "from": np.array([-1], np.int64),
    "to": np.array([-(1 << 40)], np.int64),
    "back": np.array([-1], np.int64),
    "127": np.array(127.0, np.float32),
}


def graph_bytes(nodes: Sequence[NodeProto], shape: tuple[int, ...]) -> bytes:
    """An ONNX file with those of the constants that it uses."""
    held = {**CONSTANTS, **MORE}
    used = {name for one in nodes for name in one.input} | {"half"}
    constants: dict[str, Array] = {name: held[name] for name in sorted(used & set(held))}
    return model_bytes(
        nodes, TensorSpec("x", "FP32", shape), TensorSpec("y", "FP32", shape), constants
    )


def write_graph(
    store: Path, data: bytes, shape: tuple[int, ...], name="graph", version="1", **more
) -> Package:
    """A package of one variant; `more` stands in the variant."""
    takes, gives = (TensorSpec(end, "FP32", shape) for end in ("x", "y"))
    plain = described(data, name="onnx", engine="onnx", file="model.onnx")
    variant = msgspec.structs.replace(plain, **more)
    manifest = Manifest(
        name=name,
        version=version,
        inputs=(Declared.of(takes),),
        outputs=(Declared.of(gives),),
        warm_up=(Sample((SampleTensor("x", (1, *shape[1:])),)),),
        variants=(variant,),
    )
    return write_package(store, manifest, {"model.onnx": data})
