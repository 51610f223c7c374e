"""Packages of a wished size: one square layer after another."""

import numpy as np

from isochrone.deploy.packages.onnx_graph import onnx_bytes
from isochrone.edge_agent.runtime.package.manifest import (
    Declared,
    Linear,
    Manifest,
    Sample,
    SampleTensor,
)
from isochrone.edge_agent.runtime.package.package import Package, described, write_package
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Tensor, TensorSpec

LAYER_BYTES = 4 << 20
WIDTH = 1024


def write_sized(store, name, megabytes) -> Package:
    """An ONNX package whose weights take this many MiB, in layers of 4."""
    takes, gives = (TensorSpec(end, "FP32", (-1, WIDTH)) for end in ("x", "y"))
    count = megabytes * (1 << 20) // LAYER_BYTES
    weights = {}
    rng = np.random.default_rng(11)
    for index in range(count):
        # No two alike: onnxruntime keeps equal ones once.
        weights[f"{index}.weight"] = rng.random((WIDTH, WIDTH), np.float32) / WIDTH
        weights[f"{index}.bias"] = np.zeros(WIDTH, np.float32)
    layers = tuple(Linear(inputs=WIDTH, outputs=WIDTH) for _ in range(count))
    data = onnx_bytes(layers, weights, takes, gives)
    manifest = Manifest(
        name=name,
        version="1",
        inputs=(Declared.of(takes),),
        outputs=(Declared.of(gives),),
        warm_up=(Sample((SampleTensor("x", (1, WIDTH)),)),),
        variants=(described(data, name="onnx", engine="onnx", file="sized.onnx"),),
    )
    return write_package(store, manifest, {"sized.onnx": data})


def ones() -> InferRequest:
    """A request for any of them."""
    return InferRequest((Tensor("x", "FP32", np.ones((1, WIDTH), np.float32)),))
