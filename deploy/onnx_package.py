"""A model package from anyone's ONNX file: the graph itself says what it takes and gives."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from deploy.external_data import read_whole
from edge_agent.runtime import verify, warmup
from edge_agent.runtime.manifest import (
    Declared,
    Manifest,
    Precision,
    Sample,
    SampleTensor,
)
from edge_agent.runtime.onnx_engine import declared, open_session, run_session
from edge_agent.runtime.ort import onnxruntime as ort
from edge_agent.runtime.package import Package, PackageError, described, write_package
from edge_agent.runtime.proven import stamped
from router.errors import BadRequest
from router.process.clock import monotonic
from router.wire.tensor import TensorSpec

_FREE_SIZES = (1, 8, 32, 224)
"""Tried for what a graph leaves open beside the batch: kernels may need room."""
_FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person says of the model that its file does not."""

    name: str
    version: str = "1"
    labels: tuple[str, ...] = ()
    precision: Precision = "fp32"


def build(onnx: Path, store: Path, wanted: Wanted) -> Package:
    """A package with one variant, proven to load and to answer before it stands in `store`.

    Raises:
        ConfigError: the file cannot be read.
        PackageError: it cannot be served, or that version is there with other content.
    """
    data = read_whole(onnx)
    manifest = _manifest(str(onnx), data, wanted)
    with tempfile.TemporaryDirectory(prefix="isochrone-") as draft:
        package = write_package(Path(draft), manifest, {_FILE: data})
        for problem in verify.problems(package):
            raise PackageError(problem)
        proven = tuple(stamped(package, one, monotonic) for one in manifest.variants)
    manifest = msgspec.structs.replace(manifest, variants=proven)
    return write_package(store, manifest, {_FILE: data})


def _manifest(where: str, data: bytes, wanted: Wanted) -> Manifest:
    session = open_session(data, where, threads=1)
    precision = wanted.precision
    variant = described(
        data, name=f"onnx-{precision}", engine="onnx", file=_FILE, precision=precision
    )
    takes = declared(session.get_inputs(), where)
    gives = declared(session.get_outputs(), where)
    try:
        manifest = Manifest(
            name=wanted.name,
            version=wanted.version,
            inputs=tuple(map(Declared.of, takes)),
            outputs=tuple(map(Declared.of, gives)),
            labels=wanted.labels,
            warm_up=(_sample(takes, 1),),
            variants=(variant,),
        )
    except ValueError as error:
        raise PackageError(f"{where}: {error}") from error
    return _with_sample(where, session, manifest)


def _with_sample(where: str, session: ort.InferenceSession, manifest: Manifest) -> Manifest:
    """The manifest with a warm-up sample that the graph answers, and the answer's own shapes."""
    reasons = []
    for size in _FREE_SIZES:
        tried = msgspec.structs.replace(manifest, warm_up=(_sample(manifest.takes(), size),))
        feeds = {tensor.name: tensor.data for tensor in warmup.samples(tried)[0].inputs}
        try:
            results = run_session(session, feeds, tried.gives())
        except BadRequest as error:
            reasons.append(error)
            continue
        shapes = [tensor.shape for tensor in results]
        outputs = tuple(map(_shaped, tried.outputs, shapes))
        return msgspec.structs.replace(tried, outputs=outputs)
    raise PackageError(
        f"{where}: answers no made-up input, whatever size is taken for its open dimensions;"
        " export it with those sizes fixed"
    ) from reasons[-1]


def _sample(takes: Sequence[TensorSpec], size: int) -> Sample:
    tensors = []
    for spec in takes:
        batch, rest = spec.shape[:1], spec.shape[1:]
        shape = [abs(length) for length in batch] + [size if n == -1 else n for n in rest]
        tensors.append(SampleTensor(spec.name, tuple(shape)))
    return Sample(tuple(tensors))


def _shaped(output: Declared, shape: Sequence[int]) -> Declared:
    """An output whose rank the graph does not state takes that of a real answer."""
    return output if output.shape else Declared(output.name, output.datatype, (-1,) * len(shape))
