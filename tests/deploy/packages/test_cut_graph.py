"""ONNX graphs, cut: chains that are followed all the way, and all that ends a walk."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from isochrone.deploy.packages.cut import cut, unread
from isochrone.deploy.packages.cut_graph import Graph

RNG = np.random.default_rng(4)


def _numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def _graph(nodes, shape, constants):
    tensors = [numpy_helper.from_array(np.asarray(data), name) for name, data in constants.items()]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, outputs, **more) for kind, inputs, outputs, more in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _said(data, x):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


IMAGE = (1, 8, 8)
CONV = ("Conv", ["x", "c", "cb"], ["h"], {"pads": [1] * 4})
CONV_WEIGHTS = {"c": _numbers(6, 1, 3, 3), "cb": _numbers(6)}
FLAT_384 = {"w": _numbers(384, 3)}
FOLLOWED = {
    "gemm, transposed or not": (
        [
            ("Gemm", ["x", "a", "ab"], ["h"], {"transB": 1}),
            ("Relu", ["h"], ["r"], {}),
            ("Gemm", ["r", "b", "bb"], ["y"], {}),
        ],
        (5,),
        {"a": _numbers(8, 5), "ab": _numbers(8), "b": _numbers(8, 3), "bb": _numbers(3)},
    ),
    "matmul with its bias beside it, over a sequence": (
        [
            ("MatMul", ["x", "a"], ["h"], {}),
            ("Add", ["ab", "h"], ["p"], {}),
            ("Mul", ["p", "half"], ["q"], {}),
            ("Gelu", ["q"], ["r"], {}),
            ("MatMul", ["r", "b"], ["y"], {}),
        ],
        (4, 5),
        {"a": _numbers(5, 8), "ab": _numbers(8), "half": np.float32(0.5), "b": _numbers(8, 3)},
    ),
    "convolution, batch norm, pool, flatten, softmax": (
        [
            CONV,
            ("BatchNormalization", ["h", "s", "t", "m", "v"], ["n"], {}),
            ("Sigmoid", ["n"], ["r"], {}),
            ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Flatten", ["p"], ["f"], {}),
            ("Gemm", ["f", "w"], ["z"], {}),
            ("Softmax", ["z"], ["y"], {}),
        ],
        IMAGE,
        {
            **CONV_WEIGHTS,
            **{name: abs(_numbers(6)) for name in "stmv"},
            "w": _numbers(96, 3),
        },
    ),
    "two convolutions, a shift of each channel, a global pool": (
        [
            CONV,
            ("Add", ["h", "shift"], ["r"], {}),
            ("Conv", ["r", "d"], ["e"], {}),
            ("Relu", ["e"], ["k"], {}),
            ("GlobalAveragePool", ["k"], ["p"], {}),
            ("Flatten", ["p"], ["f"], {}),
            ("MatMul", ["f", "w"], ["y"], {}),
        ],
        IMAGE,
        {
            **CONV_WEIGHTS,
            "shift": _numbers(1, 6, 1, 1),
            "d": _numbers(4, 6, 3, 3),
            "w": _numbers(4, 3),
        },
    ),
    "a reshape to sizes that are written down": (
        [
            CONV,
            ("Reshape", ["h", "sizes"], ["f"], {"allowzero": 1}),
            ("MatMul", ["f", "w"], ["y"], {}),
        ],
        IMAGE,
        {**CONV_WEIGHTS, "sizes": np.array([-1, 384]), **FLAT_384},
    ),
}


@pytest.mark.parametrize("case", FOLLOWED.values(), ids=FOLLOWED)
def test_what_is_followed_answers_as_the_whole_where_nobody_reads_what_went(case):
    nodes, shape, constants = case
    graph = Graph(_graph(nodes, shape, constants))
    joints, left = graph.joints()
    assert joints
    assert not left
    data = graph.written(cut(graph.arrays, joints, 0.5, "l1"))
    whole = graph.written(unread(graph.arrays, joints, 0.5, "l1"))
    x = _numbers(3, *shape)
    assert np.allclose(_said(data, x), _said(whole, x), atol=1e-4)
    sizes = [sum(np.prod(one.dims) for one in _constants(file)) for file in (data, whole)]
    assert sizes[0] < 0.7 * sizes[1], "rows are gone, not zero"


def _constants(data):
    return onnx.load_from_string(data).graph.initializer


DENSE: tuple = ("Gemm", ["x", "a"], ["h"], {})
ENDED = {
    "a sum of two layers": (
        [
            DENSE,
            ("MatMul", ["x", "b"], ["k"], {}),
            ("Add", ["h", "k"], ["s"], {}),
            ("MatMul", ["s", "w"], ["y"], {}),
        ],
        (5,),
        {"a": _numbers(5, 8), "b": _numbers(5, 8), "w": _numbers(8, 3)},
        "joins",
    ),
    "a branch": (
        [
            DENSE,
            ("Relu", ["h"], ["r"], {}),
            ("Add", ["r", "h"], ["s"], {}),
            ("MatMul", ["s", "w"], ["y"], {}),
        ],
        (5,),
        {"a": _numbers(5, 8), "w": _numbers(8, 3)},
        "several places",
    ),
    "weights that two layers share": (
        [DENSE, ("Gemm", ["h", "a"], ["y"], {})],
        (5,),
        {"a": _numbers(5, 5)},
        "shared",
    ),
    "an operator that mixes": (
        [DENSE, ("Softmax", ["h"], ["s"], {}), ("MatMul", ["s", "w"], ["y"], {})],
        (5,),
        {"a": _numbers(5, 8), "w": _numbers(8, 3)},
        "not known",
    ),
    "a grouped convolution": (
        [
            ("Conv", ["x", "c"], ["h"], {"group": 2}),
            ("Flatten", ["h"], ["f"], {}),
            ("MatMul", ["f", "w"], ["y"], {}),
        ],
        (2, 8, 8),
        {"c": _numbers(6, 1, 3, 3), "w": _numbers(216, 3)},
        "grouped",
    ),
    "images read without being flattened": (
        [CONV, ("MatMul", ["h", "w"], ["y"], {})],
        IMAGE,
        {**CONV_WEIGHTS, "w": _numbers(8, 3)},
        "one by one",
    ),
    "outputs used as weights": (
        [("MatMul", ["x", "a"], ["h"], {}), ("MatMul", ["x", "h"], ["y"], {})],
        (5, 5),
        {"a": _numbers(5, 5)},
        "as weights",
    ),
    "a constant along something else": (
        [
            CONV,
            ("Add", ["h", "rows"], ["r"], {}),
            ("Flatten", ["r"], ["f"], {}),
            ("MatMul", ["f", "w"], ["y"], {}),
        ],
        IMAGE,
        {**CONV_WEIGHTS, "rows": _numbers(8, 1), **FLAT_384},
        "does not run along",
    ),
}


@pytest.mark.parametrize("case", ENDED.values(), ids=ENDED)
def test_what_cannot_be_followed_is_left_and_said(case):
    nodes, shape, constants, says = case
    joints, left = Graph(_graph(nodes, shape, constants)).joints()
    assert not joints
    assert any(says in reason for reason in left), left


def test_the_last_layer_keeps_its_outputs():
    model = _graph([("Gemm", ["x", "a"], ["y"], {})], (5,), {"a": _numbers(5, 8)})
    assert Graph(model).joints() == ([], [])
