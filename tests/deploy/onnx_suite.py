"""ONNX's own test data through `package build` and our engine, against bare onnxruntime.

`python -m tests.deploy.onnx_suite [WORD]` takes every graph whose name contains WORD: some minutes.
It prints each one that is refused or differs, then the counts; 1 where one differs or crashes.
"""

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, TypeProto, numpy_helper

from isochrone.deploy.packages.onnx_package import Wanted, build
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.errors import IsochroneError
from isochrone.router.wire import codec
from isochrone.router.wire.json_codec import BINARY_WISHES
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.tensor import Array, Tensor

_DATA = Path(onnx.__file__).parent / "backend/test/data"
_STORED = ("simple", "pytorch-converted", "pytorch-operator")
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True, slots=True)
class Case:
    """A graph and inputs that it is asked with, in the order of its inputs."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[tuple[object, ...], ...]


def stored_cases() -> Iterator[Case]:
    """Those whose files come with the `onnx` package."""
    for kind in _STORED:
        for folder in sorted((_DATA / kind).iterdir()):
            model = onnx.load(folder / "model.onnx")
            sets = sorted(folder.glob("test_data_set_*"))
            yield Case(folder.name, model, tuple(_stored_inputs(model, one) for one in sets))


def all_cases() -> Iterator[Case]:
    """The stored ones, those of every operator, and the large nets of the `light` folder."""
    yield from stored_cases()
    for path in sorted((_DATA / "light").glob("*.onnx")):
        model = onnx.load(path)
        yield Case(path.stem, model, ((_image(model),),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - half a minute

        cases = collect_testcases(None)
    for case in cases:
        if case.model is not None:
            inputs = tuple(tuple(one[0]) for one in case.data_sets or ())
            yield Case(case.name, case.model, inputs)


def _image(model: onnx.ModelProto) -> Array:
    known = {tensor.name for tensor in model.graph.initializer}
    taken = next(one for one in model.graph.input if one.name not in known)
    shape = [dim.dim_value or 1 for dim in taken.type.tensor_type.shape.dim]
    return np.random.default_rng(3).random(shape, np.float32)


def _stored_inputs(model: onnx.ModelProto, folder: Path) -> tuple[object, ...]:
    paths = sorted(folder.glob("input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    known = {tensor.name for tensor in model.graph.initializer}
    takes = [one for one in model.graph.input if one.name not in known or len(paths) > 1]
    return tuple(_read(one.type, path) for one, path in zip(takes, paths, strict=False))


def _read(kind: TypeProto, path: Path) -> object:
    data = path.read_bytes()
    if kind.WhichOneof("value") == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind.WhichOneof("value") == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(TensorProto.FromString(data))


def bare(case: Case) -> list[list[object]] | None:
    """What onnxruntime itself answers; None where it cannot run the graph or these inputs."""
    try:
        session = ort.InferenceSession(case.model.SerializeToString(), _options())
        return [_bare_answer(session, one) for one in case.inputs]
    except Exception:  # whatever it raises, the graph is none that it runs
        return None


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _bare_answer(session: ort.InferenceSession, inputs: Sequence[object]) -> list[object]:
    takes = [node.name for node in session.get_inputs()]
    feeds = {name: _plain(one) for name, one in zip(takes, inputs, strict=False) if one is not None}
    kinds = {node.type for node in (*session.get_inputs(), *session.get_outputs())}
    if "tensor(bfloat16)" not in kinds:
        return list(session.run(None, feeds))
    values = {name: _ort_value(one) for name, one in feeds.items()}
    names = [node.name for node in session.get_outputs()]
    return [_bits(one) for one in session.run_with_ort_values(names, values)]


def _plain(one: object) -> object:
    return np.asarray(one) if isinstance(one, np.generic | int | float) else one


def _ort_value(one: object) -> ort.OrtValue:
    if isinstance(one, np.ndarray) and one.dtype == _BFLOAT16:
        bits = np.ascontiguousarray(one).view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(one)


def _bits(value: ort.OrtValue) -> object:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    target = np.empty(value.shape(), np.uint16)
    wide = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(target, TensorProto.BFLOAT16)
    wide.update_inplace(value.numpy())
    return target


def served(package: Package, case: Case) -> list[list[Array]]:
    """What our own engine answers to the same inputs, through both forms of the wire."""
    (variant,) = package.manifest.variants
    with ThreadPoolExecutor(1) as executor:
        model = start(package, variant, executor)
        try:
            return [_served_answer(package, model, one) for one in case.inputs]
        finally:
            model.shutdown()


def _served_answer(package: Package, model: object, inputs: Sequence[object]) -> list[Array]:
    tensors = [
        _tensor(spec.name, spec.datatype, one)
        for spec, one in zip(package.takes, inputs, strict=False)
        if one is not None
    ]
    parameters: Mapping[str, bool] = {BINARY_WISHES: True}
    fields, body = codec.encode_request(InferRequest(tuple(tensors), parameters=parameters))
    request = codec.decode_request(fields, body, package.takes)
    feed = model.feed(request)  # type: ignore[attr-defined]
    outputs = model.compute(feed)  # type: ignore[attr-defined]
    response = InferResponse(package.name, package.version, outputs, request.id)
    fields, body = codec.encode_response(request, response)
    return [tensor.data for tensor in codec.decode_response(fields, body).outputs]


def _tensor(name: str, datatype: str, one: object) -> Tensor:
    data: Array = np.asarray(one)
    if datatype == "BYTES":
        texts = np.empty(data.size, object)
        texts[:] = [str(text).encode() for text in data.ravel()]
        return Tensor(name, datatype, texts.reshape(data.shape))
    return Tensor(name, datatype, data.view(np.uint16) if data.dtype == _BFLOAT16 else data)


def alike(ours: Sequence[Array], theirs: Sequence[object]) -> bool:
    """The same bits, but for sums that may be taken in another order."""
    return len(ours) == len(theirs) and all(
        _same(one, np.asarray(other)) for one, other in zip(ours, theirs, strict=True)
    )


def _same(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype == object:
        texts = [str(text).encode() for text in other.ravel()]
        return bool(one.ravel().tolist() == texts)
    if other.dtype == _BFLOAT16:
        other = other.view(np.uint16)
    return bool(np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True))


def verdict(case: Case) -> tuple[str, str]:
    """`alike`, `refused`, `differs`, `crashed` or `not run by onnxruntime`, and why."""
    theirs = bare(case)
    if theirs is None:
        return "not run by onnxruntime", ""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.onnx"
        file.write_bytes(case.model.SerializeToString())
        try:
            package = build(file, Path(folder) / "models", Wanted("m"))
        except IsochroneError as error:
            return "refused", error.message.replace(folder, "")
        except Exception as error:  # that is what this looks for
            return "crashed", repr(error)
        try:
            ours = served(package, case)
        except Exception as error:  # likewise
            return "differs", repr(error)
    return _compared(ours, theirs)


def _compared(
    ours: Sequence[Sequence[Array]], theirs: Sequence[Sequence[object]]
) -> tuple[str, str]:
    pairs = zip(ours, theirs, strict=True)
    return ("alike", "") if all(alike(*pair) for pair in pairs) else ("differs", "another answer")


def main(word: str = "") -> int:
    """See the module."""
    counts: Counter[str] = Counter()
    for case in all_cases():
        if word not in case.name:
            continue
        found, why = verdict(case)
        counts[found] += 1
        if found in ("refused", "differs", "crashed"):
            print(f"{found}: {case.name}: {why}", flush=True)
    ran = counts.total() - counts["not run by onnxruntime"]
    print(f"onnxruntime runs {ran}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return 1 if counts["differs"] or counts["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
