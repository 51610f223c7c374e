"""The demo's model packages: trained once from real data, then kept by what they were made from."""

import hashlib
import importlib.metadata
import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import safetensors.torch

from isochrone.deploy.demo import bare, training
from isochrone.deploy.demo.training import Digits, Weights
from isochrone.deploy.packages import onnx_graph, teach
from isochrone.edge_agent.runtime.package import manifest as manifest_module
from isochrone.edge_agent.runtime.package.manifest import (
    Architecture,
    Declared,
    Manifest,
    Sample,
    SampleTensor,
    Softmax,
    Variant,
)
from isochrone.edge_agent.runtime.package.package import (
    Package,
    PackageError,
    described,
    open_package,
    write_package,
)
from isochrone.router.errors import IsochroneError
from isochrone.router.wire.tensor import Array, TensorSpec

DIGITS = "digits"
DIGITS_LARGE = "digits-large"
VERSION = "1"
LEAST_ACCURACY = {DIGITS: 0.94, DIGITS_LARGE: 0.985}
"""Shares of the held-out images that the models must get right."""
IMAGE = TensorSpec("image", "FP32", (-1, 1, 8, 8))
"""Grey images in [0, 1], ink bright: 0 is paper, 1 is ink."""
PROBABILITIES = TensorSpec("probabilities", "FP32", (-1, 10))
LABELS = tuple("0123456789")
_MADE_FROM = tuple(
    inspect.getsource(module)
    for module in (training, teach, onnx_graph, manifest_module, sys.modules[__name__])
)
_MADE_WITH = ("torch", "scikit-learn", "numpy", "onnx", "safetensors")
_BARE_TIMEOUT_S = 120


class TrainingError(IsochroneError):
    """The demo's models did not become what they must be."""

    code = "training"


@dataclass(frozen=True, slots=True)
class DemoModels:
    """Packages by model name, what they were not trained on, and how right a bare engine is."""

    packages: dict[str, Path]
    held_out: Digits
    answers: dict[str, list[int]]
    """By model: the bare engine's digit for every held-out image."""
    accuracy: dict[str, float]


def prepare(cache: Path, progress: Callable[[str], None]) -> DemoModels:
    """Both packages below `cache`, trained now where they are not there already, and checked.

    Raises:
        TrainingError: a model is less accurate than it must be.
        PackageError: `cache` cannot be written.
    """
    store = cache / f"models-{_fingerprint()}"
    _, held_out = training.digits()
    if store.is_dir():
        try:
            progress(f"using the models kept in {store}")
            return _checked(store, held_out)
        except (PackageError, TrainingError) as error:
            progress(f"they cannot be used, so they are made again: {error.message}")
            shutil.rmtree(store, ignore_errors=True)
    _make(store, progress)
    return _checked(store, held_out)


def bare_argmax(paths: Mapping[str, Path], images: Array) -> dict[str, list[int]]:
    """What bare engines say of images [n, 1, 8, 8], in another process without our runtime.

    Raises:
        TrainingError: they did not say anything, or not in time.
    """
    given = BytesIO()
    np.save(given, images, allow_pickle=False)
    try:
        done = subprocess.run(
            [sys.executable, "-m", bare.__name__, *map(str, paths.values())],
            input=given.getvalue(),
            capture_output=True,
            check=False,
            timeout=_BARE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise TrainingError(f"a bare engine took over {_BARE_TIMEOUT_S} s") from error
    if done.returncode:
        raise TrainingError(f"a bare engine failed: {done.stderr.decode()[-500:]}")
    return dict(zip(paths, msgspec.json.decode(done.stdout, type=list[list[int]]), strict=True))


def _make(store: Path, progress: Callable[[str], None]) -> None:
    trained = training.train(progress)
    write_package(store, *small_package(trained.small))
    write_package(store, *large_package(trained.large))


def small_package(weights: Weights) -> tuple[Manifest, dict[str, bytes]]:
    """`digits`: an ONNX file."""
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    data = onnx_graph.onnx_bytes(_with_softmax(training.SMALL), arrays, IMAGE, PROBABILITIES)
    variant = described(data, name="onnx-fp32", engine="onnx", file="digits.onnx")
    return _manifest(DIGITS, variant), {variant.file: data}


def large_package(weights: Weights) -> tuple[Manifest, dict[str, bytes]]:
    """`digits-large`: layers and a safetensors file."""
    data = safetensors.torch.save(weights)
    variant = described(
        data,
        name="torch-fp32",
        engine="torch",
        file="digits-large.safetensors",
        architecture=_with_softmax(training.LARGE),
    )
    return _manifest(DIGITS_LARGE, variant), {variant.file: data}


def _with_softmax(architecture: Architecture) -> Architecture:
    return (*architecture, Softmax())


def _manifest(name: str, variant: Variant) -> Manifest:
    return Manifest(
        name=name,
        version=VERSION,
        inputs=(Declared.of(IMAGE),),
        outputs=(Declared.of(PROBABILITIES),),
        labels=LABELS,
        warm_up=(Sample((SampleTensor(IMAGE.name, (1, 1, 8, 8)),)),),
        variants=(variant,),
    )


def _checked(store: Path, held_out: Digits) -> DemoModels:
    paths = {name: store / name / VERSION for name in LEAST_ACCURACY}
    for path in paths.values():
        _check_digests(open_package(path))
    answers = bare_argmax(paths, held_out.images)
    accuracy = {name: _share_right(said, held_out.labels) for name, said in answers.items()}
    for name, least in LEAST_ACCURACY.items():
        if accuracy[name] < least:
            raise TrainingError(f"{name} gets {accuracy[name]:.3f} right, it must be {least}")
    return DemoModels(paths, held_out, answers, accuracy)


def _check_digests(package: Package) -> None:
    for variant in package.manifest.variants:
        package.read(variant)


def _share_right(said: Sequence[int], labels: Array) -> float:
    return float(np.mean(np.asarray(said) == labels))


def _fingerprint() -> str:
    """Names everything that the packages' content depends on."""
    digest = hashlib.sha256()
    for source in _MADE_FROM:
        digest.update(source.encode())
    for name in _MADE_WITH:
        digest.update(f"{name}={importlib.metadata.version(name)}\n".encode())
    return digest.hexdigest()[:16]
