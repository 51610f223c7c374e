"""The models of the edge benchmark, with random weights, each made as large as a time asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import NodeProto, helper

from isochrone.deploy.packages.onnx_graph import model_bytes
from isochrone.router.wire.tensor import Array, TensorSpec

_SEED = 5
_MOMENTS, _MOMENT_S = 5, 0.08
_TRIES = 12
_NEAR = 0.12
GIVES = TensorSpec("out", "FP32", (-1, 16))


@dataclass(frozen=True, slots=True)
class Made:
    """A model as an ONNX file, one input for it, and the right answer."""

    name: str
    data: bytes
    takes: TensorSpec
    given: Array
    answer: Array
    bare_s: float


@dataclass(frozen=True, slots=True)
class _Graph:
    nodes: list[NodeProto]
    weights: dict[str, Array]
    takes: TensorSpec


def _random(*shape: int) -> Array:
    scale = np.sqrt(2.0 / np.prod(shape[:-1]))
    numbers: Array = (np.random.default_rng(_SEED).normal(size=shape) * scale).astype(np.float32)
    return numbers


def mlp(size: int) -> _Graph:
    """Three layers, two of them `size` wide, on 1,024 numbers."""
    weights = {"w0": _random(1024, size), "w1": _random(size, size), "w2": _random(size, 16)}
    nodes = [
        helper.make_node("MatMul", ["in", "w0"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["r0"]),
        helper.make_node("MatMul", ["r0", "w1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("MatMul", ["r1", "w2"], ["out"]),
    ]
    return _Graph(nodes, weights, TensorSpec("in", "FP32", (-1, 1024)))


def cnn(size: int) -> _Graph:
    """Three convolutions of `size` channels on one 32 × 32 picture."""
    shapes = {"k0": (size, 1, 3, 3), "k1": (size, size, 3, 3), "k2": (size, size, 3, 3)}
    weights = {name: _random(*shape[::-1]).T.copy() for name, shape in shapes.items()}
    weights["w"] = _random(size, 16)
    names = ["in", "c0", "c1", "c2"]
    nodes = []
    for number in range(3):
        stride = 1 if number == 0 else 2
        nodes += [
            helper.make_node(
                "Conv",
                [names[number] if number == 0 else f"r{number - 1}", f"k{number}"],
                [names[number + 1]],
                strides=[stride, stride],
                pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", [names[number + 1]], [f"r{number}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["out"]),
    ]
    return _Graph(nodes, weights, TensorSpec("in", "FP32", (-1, 1, 32, 32)))


def transformer(size: int) -> _Graph:
    """Two blocks of one attention head and a feed-forward layer `size` wide, on 16 × 64 numbers."""
    weights: dict[str, Array] = {
        "scale": np.array(0.125, np.float32),
        "one": np.ones(64, np.float32),
        "zero": np.zeros(64, np.float32),
        "head": _random(64, 16),
    }
    nodes: list[NodeProto] = []
    before = "in"
    for block in range(2):
        before = _block(nodes, weights, before, f"b{block}_", size)
    nodes += [
        helper.make_node("ReduceMean", [before, "middle"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["out"]),
    ]
    weights["middle"] = np.array([1], np.int64)
    return _Graph(nodes, weights, TensorSpec("in", "FP32", (-1, 16, 64)))


def _block(
    nodes: list[NodeProto], weights: dict[str, Array], before: str, p: str, size: int
) -> str:
    for name in ("q", "k", "v", "o"):
        weights[p + name] = _random(64, 64)
    weights[p + "up"], weights[p + "down"] = _random(64, size), _random(size, 64)

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [p + output], **attributes))
        return p + output

    query, key, value = (add("MatMul", [before, p + one], one + "_") for one in ("q", "k", "v"))
    turned = add("Transpose", [key], "turned", perm=[0, 2, 1])
    scores = add("Mul", [add("MatMul", [query, turned], "raw"), "scale"], "scores")
    mixed = add("MatMul", [add("Softmax", [scores], "shares", axis=-1), value], "mixed")
    added = add("Add", [before, add("MatMul", [mixed, p + "o"], "o_")], "added")
    normal = add("LayerNormalization", [added, "one", "zero"], "normal", axis=-1)
    wide = add("Relu", [add("MatMul", [normal, p + "up"], "wide")], "active")
    return add("Add", [normal, add("MatMul", [wide, p + "down"], "narrow")], "after")


_KINDS: Mapping[str, tuple[Callable[[int], _Graph], int]] = {
    "mlp": (mlp, 128),
    "cnn": (cnn, 32),
    "transformer": (transformer, 16),
}
KINDS = tuple(_KINDS)


def session(data: bytes) -> ort.InferenceSession:
    """As the agent opens it: one thread, no spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def make(kind: str, target_s: float, suffix: str) -> Made:
    """A model of a kind that takes about so long here; a little more rather than less."""
    graph_of, size = _KINDS[kind]
    tried: dict[int, Made] = {}  # more is not always slower: 17 channels take twice as long as 16
    while size not in tried and len(tried) < _TRIES:
        made = tried[size] = _made(f"{kind}-{suffix}", graph_of(size))
        ratio = target_s / made.bare_s
        if 1 - _NEAR < ratio < 1 + _NEAR / 10:
            break
        size = max(1, round(size * min(8.0, max(0.2, ratio * 1.04)) ** (0.6 if ratio > 1 else 0.8)))
    return min(tried.values(), key=lambda made: abs(log(target_s / made.bare_s)))


def _made(name: str, graph: _Graph) -> Made:
    data = model_bytes(graph.nodes, graph.takes, GIVES, graph.weights)
    shape = (1, *graph.takes.shape[1:])
    given = np.random.default_rng(_SEED).random(shape, np.float32)
    opened = session(data)
    (answer,) = opened.run(None, {"in": given})
    return Made(name, data, graph.takes, given, answer, _median_s(opened, given))


def _median_s(opened: ort.InferenceSession, given: Array) -> float:
    """The least of several medians: what others do on this machine only makes it slower."""
    return min(_median_of_a_moment_s(opened, given) for _ in range(_MOMENTS))


def _median_of_a_moment_s(opened: ort.InferenceSession, given: Array) -> float:
    times = []
    until_s = perf_counter() + _MOMENT_S
    while perf_counter() < until_s:
        began_s = perf_counter()
        opened.run(["out"], {"in": given})
        times.append(perf_counter() - began_s)
    return float(np.median(times[len(times) // 4 :]))
