"""The same models in the bare engines, in a process of their own: what served answers must equal.

`python -m deploy.demo.offline PACKAGE... --images FILE.npy` prints one JSON object on standard
output: model to the class of each image. Nothing of the runtime is used, the manifest apart.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file

from edge_agent.runtime.manifest import (
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Relu,
    Softmax,
    Variant,
)
from edge_agent.runtime.package import Package, open_package
from router.wire.tensor import Array


def classes(package: Package, images: Array) -> list[int]:
    """The class that the first variant of a package sees in each image, one image at a time."""
    variant = package.manifest.variants[0]
    run = _onnx if variant.engine == "onnx" else _torch
    return [int(np.argmax(scores)) for scores in run(package.file(variant), variant, images)]


def _onnx(path: Path, _variant: Variant, images: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return [session.run(None, {name: image[np.newaxis]})[0] for image in images]


def _torch(path: Path, variant: Variant, images: Array) -> list[Array]:
    network = torch.nn.Sequential(*map(_layer, variant.architecture or ()))
    network.load_state_dict(load_file(path))
    network.eval()
    with torch.inference_mode():
        return [network(torch.from_numpy(image[np.newaxis])).numpy() for image in images]


def _layer(layer: Layer) -> torch.nn.Module:
    match layer:
        case Conv2d():
            return torch.nn.Conv2d(
                layer.inputs,
                layer.outputs,
                layer.kernel,
                stride=layer.stride,
                padding=layer.padding,
            )
        case Linear():
            return torch.nn.Linear(layer.inputs, layer.outputs)
        case MaxPool2d():
            return torch.nn.MaxPool2d(layer.kernel)
        case Relu():
            return torch.nn.ReLU()
        case Flatten():
            return torch.nn.Flatten()
        case Softmax():
            return torch.nn.Softmax(-1)


def main(arguments: list[str]) -> int:
    """Print what the bare engines say."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.offline", description=__doc__)
    parser.add_argument("packages", type=Path, nargs="+", help="directories NAME/VERSION")
    parser.add_argument("--images", type=Path, required=True, help="a batch, as numpy saves it")
    args = parser.parse_args(arguments)
    images = np.load(args.images)
    packages = [open_package(path) for path in args.packages]
    json.dump({package.name: classes(package, images) for package in packages}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
