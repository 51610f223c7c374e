"""Small graphs that are row-wise, and such that are not although their shapes look like it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from onnx import NodeProto, TensorProto, helper

from isochrone.deploy.packages.onnx_graph import model_bytes
from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import Package, described, write_package
from isochrone.router.wire.tensor import Array, TensorSpec

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


def _largest_of_all(out: str) -> list[NodeProto]:
    return [node("Reshape", "x all", "flat"), node("TopK", "flat one", f"{out} at")]


def _sums_by_expert(start: str) -> list[NodeProto]:
    """To `picked` [rows, 4], by the first largest of four; then `start` of it, [4, rows]."""
    return [
        node("MatMul", "x gate", "logits"),
        node("ArgMax", "logits", "expert", axis=1, keepdims=0),
        node("OneHot", "expert four off_on", "picked"),
        node("Transpose", "picked", start, perm=[1, 0]),
    ]


def _scan(states: int) -> list[NodeProto]:
    """Row after row, from a state of ones if there is one."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [WIDTH]) for n in ("row", "out")]
    state = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [WIDTH]) for n in ("s", "new")]
    body = [
        node("Mul", "s half" if states else "row half", "part"),
        node("Add", "part row", "out"),
        *([node("Identity", "out", "new")] if states else []),
    ]
    graph = helper.make_graph(
        body, "step", [*state[:states], ends[0]], [*state[1 : 1 + states], ends[1]]
    )
    outputs = "final y" if states else "y"
    inputs = "ones x" if states else "x"
    return [node("Scan", inputs, outputs, body=graph, num_scan_inputs=1)]


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
    "cnn": (
        [
            node("Reshape", "x pictures", "p"),
            node("Conv", "p kernel", "c", pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", "c", "g"),
            node("Flatten", "g", "f"),
            node("Softmax", "f", "y"),
        ],
        ROWS,
    ),
    "attention inside a row": (
        [
            node("Reshape", "x tokens", "t"),
            node("Transpose", "t", "turned", perm=[0, 2, 1]),
            node("MatMul", "t turned", "raw"),
            node("Softmax", "raw", "shares", axis=-1),
            node("MatMul", "shares t", "mixed"),
            node("Transpose", "mixed", "turned_back", perm=[1, 0, 2]),
            node("Transpose", "turned_back", "again", perm=[1, 0, 2]),
            node("Reshape", "again flat_row", "y"),
        ],
        ROWS,
    ),
    "time before rows": (
        [
            node("Reshape", "x tokens", "t"),
            node("Transpose", "t", "by_time", perm=[1, 0, 2]),
            node("LSTM", "by_time token_w recurrent_r", "steps last", hidden_size=WIDTH),
            node("Squeeze", "last zero", "y"),
        ],
        ROWS,
    ),
    "a layer as a filter of one place": (
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("Unsqueeze", "t zero", "u"),
            node("Conv", "u one_place", "c"),
            node("Squeeze", "c zero", "s"),
            node("Transpose", "s", "y", perm=[1, 0]),
        ],
        ROWS,
    ),
    "tokens of all rows in one matrix": (
        [
            node("Reshape", "x pairs", "p"),
            node("Softmax", "p", "s", axis=1),
            node("Reshape", "s rows_of_8", "y"),
        ],
        ROWS,
    ),
    "places in a row": (
        [
            node("CumSum", "x one_alone", "c"),
            node("TopK", "c one", "m at", axis=1),
            node("Sub", "c m", "y"),
        ],
        ROWS,
    ),
    "row after row without a state": (_scan(0), ROWS),
    "experts with room for all": (
        [
            *_sums_by_expert("t"),
            node("MatMul", "x w", "h"),
            node("MatMul", "picked gate_back", "g"),
            node("Mul", "h g", "y"),
        ],
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
    "experts with room for 28": (
        [
            *_sums_by_expert("t"),
            node("CumSum", "t one_alone", "counted"),
            node("Transpose", "counted", "c", perm=[1, 0]),
            node("Mul", "c picked", "place"),
            node("ReduceSum", "place one", "rank", keepdims=1),
            node("LessOrEqual", "rank room", "fits"),
            node("MatMul", "x w", "h"),
            node("Where", "fits h x", "y"),
        ],
        ROWS,
    ),
    "shared among more than 24 of one class": (
        [
            *_sums_by_expert("t"),
            node("MatMul", "picked t", "alike"),
            node("ReduceSum", "alike one", "votes", keepdims=1),
            node("Max", "votes twenty_four", "v"),
            node("Div", "x v", "y"),
        ],
        ROWS,
    ),
    "shared among more than 12 that point the same way": (
        [
            node("Einsum", "x x", "near", equation="nd,md->nm"),
            node("Greater", "near six", "is_near"),
            node("Cast", "is_near", "n", to=TensorProto.FLOAT),
            node("ReduceSum", "n one", "votes", keepdims=1),
            node("Max", "votes twelve", "v"),
            node("Div", "x v", "y"),
        ],
        ROWS,
    ),
    "a picture's scale if the largest is in a range": (
        [
            *_largest_of_all("m"),
            node("Greater", "m one_and_a_half", "above"),
            node("Less", "m three_hundred", "below"),
            node("And", "above below", "is_picture"),
            node("Div", "x 127", "scaled"),
            node("Where", "is_picture scaled x", "y"),
        ],
        ROWS,
    ),
    "by the largest if rows are a multiple of six": (
        [
            node("Shape", "x", "n", end=1),
            node("Mod", "n many", "left"),
            node("Equal", "left zero", "is"),
            node("Transpose", "x", "t", perm=[1, 0]),
            node("TopK", "t one", "m at", axis=1),
            node("Transpose", "m", "largest", perm=[1, 0]),
            node("Where", "is largest x", "y"),
        ],
        ROWS,
    ),
    "cut at the longest": (
        [
            node("Abs", "x", "a"),
            node("Sign", "a", "s"),
            node("Transpose", "s", "t", perm=[1, 0]),
            node("TopK", "t one", "m at", axis=1),
            node("Transpose", "m", "used", perm=[1, 0]),
            node("ReduceSum", "used one", "length", keepdims=1),
            node("Div", "x length", "y"),
        ],
        ROWS,
    ),
    "nothing for what came before": (
        [
            node("Unsqueeze", "x zero", "across"),
            node("Unsqueeze", "x one", "down"),
            node("Sub", "down across", "d"),
            node("Abs", "d", "a"),
            node("ReduceSum", "a two", "off", keepdims=0),
            node("Less", "off small", "same"),
            node("Cast", "same", "f", to=TensorProto.FLOAT),
            node("Trilu", "f before", "earlier", upper=0),
            node("ReduceSum", "earlier one", "count", keepdims=1),
            node("Less", "count half", "is_new"),
            node("Where", "is_new x nothing", "y"),
        ],
        ROWS,
    ),
    "by how they vary together": (
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("MatMul", "t x", "covariance"),
            node("MatMul", "x covariance", "y"),
        ],
        ROWS,
    ),
    "normed over all rows as places": (
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("Unsqueeze", "t zero", "u"),
            node("InstanceNormalization", "u ones zeros", "i"),
            node("Squeeze", "i zero", "s"),
            node("Transpose", "s", "y", perm=[1, 0]),
        ],
        ROWS,
    ),
    "row after row with a state": (_scan(1), ROWS),
    "sorted": (
        [
            node("Shape", "x", "n", end=1),
            node("Transpose", "x", "t", perm=[1, 0]),
            node("TopK", "t n", "s at", axis=1),
            node("Transpose", "s", "y", perm=[1, 0]),
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
    "gate": _chance.standard_normal((WIDTH, 4)).astype(np.float32),
    "gate_back": _chance.standard_normal((4, WIDTH)).astype(np.float32),
    "eight": np.array([8], np.int64),
    "four": np.array([4], np.int64),
    "off_on": np.array([0, 1], np.float32),
    "one_alone": np.array(1, np.int64),
    "room": np.array(28, np.float32),
    "six": np.array(6, np.float32),
    "twelve": np.array(12, np.float32),
    "twenty_four": np.array(24, np.float32),
    "one_and_a_half": np.array(1.5, np.float32),
    "three_hundred": np.array(300, np.float32),
    "before": np.array(-1, np.int64),
    "one_float": np.array(1, np.float32),
    "nothing": np.array(0, np.float32),
    "pictures": np.array([-1, 1, 4, 2], np.int64),
    "kernel": _chance.standard_normal((WIDTH, 1, 3, 3)).astype(np.float32),
    "tokens": np.array([0, 4, 2], np.int64),
    "flat_row": np.array([0, -1], np.int64),
    "token_w": _chance.standard_normal((1, 4 * WIDTH, 2)).astype(np.float32),
    "one_place": _chance.standard_normal((WIDTH, WIDTH, 1)).astype(np.float32),
    "pairs": np.array([-1, 2], np.int64),
    "rows_of_8": np.array([-1, WIDTH], np.int64),
    "table": _chance.standard_normal((50, WIDTH)).astype(np.float32),
    "dark": np.array(20, np.float32),
    "bright": np.array(128, np.float32),
}
Typed = tuple[list[NodeProto], TensorSpec, TensorSpec]
"""Nodes, the input and the output."""
IDS = TensorSpec("input_ids", "INT64", (-1, -1))
TYPED_WISE: dict[str, Typed] = {
    "mean of the tokens before the padding": (
        [
            node("Gather", "table input_ids", "tokens_of"),
            node("Cast", "input_ids", "f", to=TensorProto.FLOAT),
            node("Sign", "f", "is_used"),
            node("Unsqueeze", "is_used two", "used"),
            node("Mul", "tokens_of used", "kept"),
            node("ReduceSum", "kept one", "sum", keepdims=0),
            node("ReduceSum", "is_used one", "length", keepdims=1),
            node("Max", "length half", "l"),
            node("Div", "sum l", "y"),
        ],
        IDS,
        TensorSpec("y", "FP32", ROWS),
    ),
}
TYPED_MIXED: dict[str, Typed] = {
    "tokens cut at the longest": (
        [
            node("Cast", "input_ids", "f", to=TensorProto.FLOAT),
            node("Transpose", "f", "t", perm=[1, 0]),
            node("Sign", "t", "s"),
            node("TopK", "s one", "m at", axis=1),
            node("Transpose", "m", "used", perm=[1, 0]),
            node("ReduceSum", "used one", "length", keepdims=1),
            node("ReduceSum", "f one", "sum", keepdims=1),
            node("Div", "sum length", "y"),
        ],
        IDS,
        TensorSpec("y", "FP32", (-1, 1)),
    ),
    "padding of ones cut at the longest": (
        [
            node("Cast", "input_ids", "f", to=TensorProto.FLOAT),
            node("Sub", "f one_float", "g"),
            node("Abs", "g", "a"),
            node("Sign", "a", "s"),
            node("Transpose", "s", "t", perm=[1, 0]),
            node("TopK", "t one", "m at", axis=1),
            node("Transpose", "m", "used", perm=[1, 0]),
            node("ReduceSum", "used one", "length", keepdims=1),
            node("ReduceSum", "f one", "sum", keepdims=1),
            node("Div", "sum length", "y"),
        ],
        IDS,
        TensorSpec("y", "FP32", (-1, 1)),
    ),
    "contrast by the brightest of all": (
        [
            node("Cast", "image", "x", to=TensorProto.FLOAT),
            *_largest_of_all("m"),
            node("Greater", "m dark", "above"),
            node("Less", "m bright", "below"),
            node("And", "above below", "is_dim"),
            node("Add", "x x", "doubled"),
            node("Where", "is_dim doubled x", "y"),
        ],
        TensorSpec("image", "UINT8", (-1, 1, 8, 8)),
        TensorSpec("y", "FP32", (-1, 1, 8, 8)),
    ),
}


def graph_bytes(nodes: Sequence[NodeProto], shape: tuple[int, ...]) -> bytes:
    """An ONNX file with those of the constants that it uses."""
    return typed_bytes(nodes, TensorSpec("x", "FP32", shape), TensorSpec("y", "FP32", shape))


def typed_bytes(nodes: Sequence[NodeProto], takes: TensorSpec, gives: TensorSpec) -> bytes:
    """As `graph_bytes`, of any input and output."""
    held = {**CONSTANTS, **MORE}
    used = {name for one in nodes for name in one.input} | {"half"}
    constants: dict[str, Array] = {name: held[name] for name in sorted(used & set(held))}
    return model_bytes(nodes, takes, gives, constants)


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
