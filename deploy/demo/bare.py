"""Answers images with an engine alone: the yardstick of the demo.

Nothing of ours runs here: the manifest is read as any manifest is, the layers are torch's own.

`python -m isochrone.deploy.demo.bare PACKAGE... < images.npy` prints a JSON list of digits per
package.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from isochrone.edge_agent.runtime.engines.ort import onnxruntime
from isochrone.edge_agent.runtime.package.manifest import (
    Conv2d,
    Flatten,
    Layer,
    Linear,
    Manifest,
    MaxPool2d,
    Relu,
    Softmax,
    Variant,
)
from isochrone.router.process.settings import load_settings
from isochrone.router.wire.tensor import Array


def main(paths: Iterable[Path]) -> None:
    """Read images, print digits."""
    images = np.load(BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    print(json.dumps([_probabilities(path, images).argmax(1).tolist() for path in paths]))


def _probabilities(path: Path, images: Array) -> Array:
    variant = load_settings(path / "model.yaml", Manifest).variants[0]
    answer = _onnx if variant.engine == "onnx" else _torch
    return answer(path, variant, images)


def _onnx(path: Path, variant: Variant, images: Array) -> Array:
    session = onnxruntime.InferenceSession(str(path / variant.file))
    answer: Array = session.run(None, {session.get_inputs()[0].name: images})[0]
    return answer


def _torch(path: Path, variant: Variant, images: Array) -> Array:
    weights = load_file(path / variant.file)
    values = torch.from_numpy(images)
    for index, layer in enumerate(variant.architecture or ()):
        values = _after(values, layer, f"{index}.", weights)
    answer: Array = values.numpy()
    return answer


def _after(values: Tensor, layer: Layer, own: str, weights: Mapping[str, Tensor]) -> Tensor:
    match layer:
        case Conv2d():
            weight, bias = weights[own + "weight"], weights[own + "bias"]
            return functional.conv2d(values, weight, bias, layer.stride, layer.padding)
        case Linear():
            return functional.linear(values, weights[own + "weight"], weights[own + "bias"])
        case MaxPool2d():
            return functional.max_pool2d(values, layer.kernel)
        case Relu():
            return functional.relu(values)
        case Flatten():
            return values.flatten(1)
        case Softmax():
            return values.softmax(-1)


if __name__ == "__main__":
    main(map(Path, sys.argv[1:]))
