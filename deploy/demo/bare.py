"""Answers images with an engine alone, without runtime, pool or wire: the yardstick of the demo.

`python -m deploy.demo.bare PACKAGE... < images.npy` prints a JSON list of digits per package.
"""

import json
import sys
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from edge_agent.runtime.manifest import Manifest, Variant
from edge_agent.runtime.ort import onnxruntime
from edge_agent.runtime.torch_engine import network
from router.process.settings import load_settings
from router.wire.tensor import Array


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
    net = network(variant.architecture or ())
    net.load_state_dict(load_file(path / variant.file))
    with torch.inference_mode():
        answer: Array = net.eval()(torch.from_numpy(images)).numpy()
    return answer


if __name__ == "__main__":
    main(map(Path, sys.argv[1:]))
