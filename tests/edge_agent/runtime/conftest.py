"""Small real packages: a network with the same weights for both engines."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from isochrone.deploy.packages.onnx_graph import onnx_bytes
from isochrone.edge_agent.runtime.package.manifest import (
    Conv2d,
    Declared,
    Flatten,
    Linear,
    Manifest,
    MaxPool2d,
    Relu,
    Sample,
    SampleTensor,
    Softmax,
)
from isochrone.edge_agent.runtime.package.package import Package, described, write_package
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Tensor, TensorSpec

TAKES = TensorSpec("image", "FP32", (-1, 1, 8, 8))
GIVES = TensorSpec("probabilities", "FP32", (-1, 3))
ARCHITECTURE = (
    Conv2d(inputs=1, outputs=2, kernel=3, padding=1),
    Relu(),
    MaxPool2d(kernel=2),
    Flatten(),
    Linear(inputs=32, outputs=3),
    Softmax(),
)


def _weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"0.weight": (2, 1, 3, 3), "0.bias": (2,), "4.weight": (3, 32), "4.bias": (3,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _manifest(variants, **changes) -> Manifest:
    manifest = Manifest(
        name="small",
        version="1",
        inputs=(Declared.of(TAKES),),
        outputs=(Declared.of(GIVES),),
        labels=("a", "b", "c"),
        warm_up=(Sample((SampleTensor("image", (2, 1, 8, 8)),)),),
        variants=tuple(variants),
    )
    return msgspec.structs.replace(manifest, **changes)


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The same weights as an ONNX and as a safetensors file."""
    weights = _weights()
    return {
        "small.onnx": onnx_bytes(ARCHITECTURE, weights, TAKES, GIVES),
        "small.safetensors": safetensors.numpy.save(weights),
    }


@pytest.fixture
def write(tmp_path, files):
    """Write a package of one or both engines into `tmp_path`, with changes to its manifest."""

    def written(*engines: str, **changes) -> Package:
        kinds = {
            "onnx": described(files["small.onnx"], name="onnx", engine="onnx", file="small.onnx"),
            "torch": described(
                files["small.safetensors"],
                name="torch",
                engine="torch",
                file="small.safetensors",
                architecture=ARCHITECTURE,
            ),
        }
        chosen = [kinds[engine] for engine in engines or ("onnx",)]
        held = {variant.file: files[variant.file] for variant in chosen}
        return write_package(tmp_path, _manifest(chosen, **changes), held)

    return written


@pytest.fixture(scope="session")
def question() -> InferRequest:
    """Four images."""
    data = np.random.default_rng(5).random((4, 1, 8, 8), np.float32)
    return InferRequest((Tensor("image", "FP32", data),), id="four")


@pytest.fixture
def edit():
    """Replace text in a package's manifest."""

    def edited(path: Path, old: str, new: str) -> None:
        manifest = path / "model.yaml"
        text = manifest.read_text()
        assert old in text
        manifest.write_text(text.replace(old, new, 1))

    return edited
