"""Inputs on which onnxruntime ends the process are refused, and the process lives on."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from isochrone.edge_agent.runtime.engines.onnx_engine import declared, open_session, run_session
from isochrone.edge_agent.runtime.engines.onnx_guards import guarded
from isochrone.edge_agent.runtime.engines.ort import onnxruntime
from isochrone.router.errors import Uncomputable

FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
SIZE = 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LEAST = -(2**63)


def node(kind, inputs, outputs, **more):
    names = [one if one != "-" else "" for one in inputs.split()]
    return helper.make_node(kind, names, outputs.split(), **more)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def weights(kind):
    each = np.full((1, GATES[kind] * 2, SIZE), 0.5, np.float32)
    return [
        numpy_helper.from_array(each[:, :, :size], name) for size, name in ((SIZE, "w"), (2, "r"))
    ]


def written(nodes, inputs, outputs=("y",), constants=(), opset=17, kind=FLOAT, functions=()):
    graph = helper.make_graph(
        nodes, "g", inputs, [value(one, kind, None) for one in outputs], list(constants)
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    model.ir_version = 10
    return model.SerializeToString()


def recurrent(kind):
    nodes = [node(kind, "x w r", "y", hidden_size=2)]
    return written(nodes, [value("x", FLOAT, ["t", "b", SIZE])], constants=weights(kind))


def cut(kind):
    """Its signal is shorter by two."""
    constants = [
        numpy_helper.from_array(np.array([number], np.int64), name)
        for number, name in ((2, "from"), (99, "to"), (0, "axis"))
    ]
    nodes = [
        node("Slice", "x from to axis", "shorter"),
        node(kind, "shorter w r", "y", hidden_size=2),
    ]
    inputs = [value("x", FLOAT, ["t", "b", SIZE])]
    return written(nodes, inputs, constants=[*weights(kind), *constants])


def inside_if(kind):
    branches = {}
    for name in ("then_branch", "else_branch"):
        inner = node(kind, "x w r", name, hidden_size=2)
        branches[name] = helper.make_graph([inner], name, [], [value(name, FLOAT, None)])
    nodes = [node("If", "is", "y", **branches)]
    inputs = [value("x", FLOAT, ["t", "b", SIZE]), value("is", TensorProto.BOOL, [])]
    return written(nodes, inputs, constants=weights(kind))


def inside_function(kind):
    body = [node(kind, "a b c", "d", hidden_size=2)]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Layer", ["a", "b", "c"], ["d"], body, opsets)
    nodes = [node("Layer", "x w r", "y", domain="own")]
    inputs = [value("x", FLOAT, ["t", "b", SIZE])]
    return written(nodes, inputs, constants=weights(kind), functions=[function])


def divided(kind, whole, opset=17):
    return written(
        [node(kind, "a b", "y")],
        [value("a", whole, ["n"]), value("b", whole, ["n"])],
        kind=whole,
        opset=opset,
    )


def halved():
    return written(
        [node("Div", "a two", "y")],
        [value("a", INT64, ["n"])],
        constants=[numpy_helper.from_array(np.array([2], np.int64), "two")],
        kind=INT64,
    )


def turned():
    return written(
        [node("Div", "a minus", "y")],
        [value("a", INT32, ["n"])],
        constants=[numpy_helper.from_array(np.array([-1], np.int32), "minus")],
        kind=INT32,
    )


def unfolded():
    taps = numpy_helper.from_array(np.ones((3, 4, 3, 3, 3), np.float32), "taps")
    inputs = [value("x", FLOAT, ["n", 3, "d", "h", "w"])]
    return written([node("ConvTranspose", "x taps", "y")], inputs, constants=[taps])


def attended():
    inputs = [value(one, FLOAT, ["n", "heads", "t", 4]) for one in "qkv"]
    return written([node("Attention", "q k v", "y")], inputs, opset=23)


def transformed():
    step = numpy_helper.from_array(np.array(2, np.int64), "step")
    inputs = [value("x", FLOAT, [1, "t", 1]), value("frame", INT64, [])]
    return written([node("STFT", "x step - frame", "y")], inputs, constants=[step])


def floats(*shape):
    return np.ones(shape, np.float32)


def signal(*shape):
    return {"x": floats(*shape)}


def pair(some, others, dtype=np.int64):
    return {"a": np.array(some, dtype), "b": np.array(others, dtype)}


def heads(count):
    return {one: floats(1, count, 5, 4) for one in "qkv"}


LETHAL = {
    **{
        f"{made.__name__} {kind} {shape}": (made(kind), {**signal(*shape), **more})
        for kind in GATES
        for made, more in (
            (recurrent, {}),
            (inside_if, {"is": np.array(True)}),
            (inside_function, {}),
        )
        for shape in ((2, 0, SIZE), (0, 2, SIZE))
    },
    **{f"cut {kind}": (cut(kind), signal(2, 1, SIZE)) for kind in GATES},
    "3-D transposed convolution": (unfolded(), signal(1, 3, 0, 4, 4)),
    "no heads": (attended(), heads(0)),
    "frames of nothing": (transformed(), {**signal(1, 16, 1), "frame": np.array(0)}),
    "divided by 0": (divided("Div", INT64), pair([1], [0])),
}
OVERFLOWS = {
    f"{kind} of {np.dtype(dtype).name}": (
        divided(kind, whole),
        pair([np.iinfo(dtype).min, 7], [-1, -1], dtype),
    )
    for kind in ("Div", "Mod")
    for whole, dtype in ((INT64, np.int64), (INT32, np.int32))
}
OVERFLOWS["Div by a constant"] = turned(), {"a": np.array([-(2**31), 7], np.int32)}


def computed(data, arrays):
    session = open_session(data, "here", 1)
    outputs = declared(session.get_outputs(), "here")
    return run_session(session, arrays, outputs)[0].data.tolist()


def outcomes():
    """Runs in a process of its own, which must not die."""
    for name, (data, arrays) in {**LETHAL, **OVERFLOWS}.items():
        try:
            computed(data, arrays)
            print(f"{name}: computed", flush=True)
        except Uncomputable as error:
            print(f"{name}: {error.message}", flush=True)


@pytest.fixture(scope="module")
def told():
    code = "from tests.edge_agent.runtime.engines import test_onnx_guards as it; it.outcomes()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"died by {-done.returncode} after {lines[-1:]}"
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("name", LETHAL)
def test_what_would_end_the_process_is_refused(told, name):
    assert told[name].startswith("the model cannot compute these inputs: ")


@pytest.mark.parametrize("name", OVERFLOWS)
def test_the_least_integer_divided_by_minus_one_is_computed(told, name):
    assert told[name] == "computed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("recurrent GRU (2, 0, 3)", "'x' has shape [2, 0, 3]; a size of 0 comes to its GRU"),
        ("cut LSTM", "a size of 0 comes to its LSTM"),
        ("divided by 0", "its Div divides whole numbers by 0"),
        ("frames of nothing", "its STFT gets frames of 0 samples"),
    ],
)
def test_the_refusal_names_input_size_and_operator(told, name, words):
    assert told[name] == f"the model cannot compute these inputs: {words}"


@pytest.mark.parametrize(
    ("data", "arrays"),
    [
        (recurrent("LSTM"), signal(3, 2, SIZE)),
        (inside_if("GRU"), {**signal(3, 2, SIZE), "is": np.array(True)}),
        (inside_function("RNN"), signal(3, 2, SIZE)),
        (unfolded(), signal(2, 3, 4, 4, 4)),
        (unfolded(), signal(0, 3, 4, 4, 4)),
        (attended(), heads(2)),
        (transformed(), {**signal(1, 16, 1), "frame": np.array(4)}),
    ],
)
def test_a_guarded_graph_answers_as_the_file_does(data, arrays):
    assert guarded(data) is not None
    bare = onnxruntime.InferenceSession(data)
    assert computed(data, arrays) == bare.run(None, arrays)[0].tolist()


@pytest.mark.parametrize(
    "data",
    [
        halved(),
        divided("Div", FLOAT),
        divided("Div", TensorProto.INT16),
        written([node("Add", "x x", "y")], [value("x", FLOAT, ["n"])]),
    ],
)
def test_a_graph_that_cannot_end_the_process_is_left_alone(data):
    assert guarded(data) is None


DIVISIONS = {
    (kind, whole): open_session(divided(kind, whole), "here", 1)
    for kind in ("Div", "Mod")
    for whole in (INT64, INT32)
}
BITS = {INT64: 63, INT32: 31}


@given(st.sampled_from([*DIVISIONS]), st.data())
def test_whole_numbers_are_divided_as_before(case, data):
    bits = BITS[case[1]]
    wholes = st.integers(-(2**bits), 2**bits - 1)
    extremes = st.sampled_from([-(2**bits), 2**bits - 1, -1, 1, 0])
    some = data.draw(st.lists(wholes | extremes, min_size=1, max_size=5))
    divisors = (wholes | extremes).filter(bool)
    others = [data.draw(divisors) for _ in some]
    found = DIVISIONS[case].run(None, pair(some, others, f"i{(bits + 1) // 8}"))[0].tolist()
    for one, other, answer in zip(some, others, found, strict=True):
        whole = abs(one) // abs(other) * (1 if (one < 0) == (other < 0) else -1)
        expected = whole if case[0] == "Div" else one % other
        assert (answer - expected) % 2 ** (bits + 1) == 0, "but for what overflows"
