"""A convolutional network on pictures of any size, whose runs take far more than its weights."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import Package, described, write_package

CHANNELS = 32
LAYERS = 3


def write_wide(store, name="wide") -> Package:
    """Takes `x` [n, 3, h, w]; gives `y` [n, 32], the means of the last layer's channels."""
    rng = np.random.default_rng(5)
    nodes, weights, before, count = [], [], "x", 3
    for number in range(LAYERS):
        weight = (rng.random((CHANNELS, count, 3, 3), np.float32) - 0.5) / count
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(
            helper.make_node("Conv", [before, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        before, count = f"r{number}", CHANNELS
    nodes.append(helper.make_node("ReduceMean", [before], ["y"], axes=[2, 3], keepdims=0))
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CHANNELS])
    graph = helper.make_graph(nodes, "wide", [takes], [gives], weights)
    opset = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    manifest = Manifest(
        name=name,
        version="1",
        inputs=(Declared("x", "FP32", (-1, 3, -1, -1)),),
        outputs=(Declared("y", "FP32", (-1, CHANNELS)),),
        warm_up=(Sample((SampleTensor("x", (1, 3, 1, 1)),)),),
        variants=(described(data, name="onnx", engine="onnx", file="wide.onnx"),),
    )
    return write_package(store, manifest, {"wide.onnx": data})
