"""An ONNX file with weights of 8 bits, by ONNX Runtime's own quantisation."""

from isochrone.edge_agent.runtime.engines import ort  # noqa: F401  # before onnxruntime itself

# isort: split
import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime import quantization
from onnxruntime.quantization.registry import IntegerOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from isochrone.deploy.packages import arguments
from isochrone.deploy.packages.dataset import Dataset
from isochrone.deploy.packages.draft import Draft, Source
from isochrone.deploy.packages.judge import judged
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import ConfigError
from isochrone.router.wire.tensor import Array

HELP = "add a variant with weights of 8 bits"
_TOLD = """dynamic needs no data: activations are scaled while the model runs; convolutions stay as
they are. static scales them from a calibration set beforehand, convolutions too. Networks of a few
kilobytes become slower by it, which the verdict will say."""
Quantise = Callable[[Path, Path], None]
"""From the file of a prepared graph to that of the quantised one."""
_EIGHT_BITS = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every variant needs; the mode, and the calibration set."""
    arguments.add_arguments(parser, _TOLD)
    parser.add_argument(
        "--mode", choices=("dynamic", "static"), default="dynamic", help=arguments.DEFAULT
    )
    parser.add_argument(
        "--calibration",
        dest="data",
        type=Path,
        metavar="FILE",
        help="data set of typical inputs; static needs it, 100 items do",
    )


def run(args: argparse.Namespace) -> int:
    """Make and judge it; 3 where it is not kept."""
    return judged(args, make, _called, engine="onnx", data="--calibration")


def make(source: Source, args: argparse.Namespace) -> Draft:
    """The quantised file.

    Raises:
        ConfigError: static quantisation without a calibration set.
        PackageError: the graph cannot be quantised, or holds nothing to quantise.
    """
    if args.mode == "static" and source.data is None:
        raise ConfigError("--mode static needs --calibration FILE: a data set of typical inputs")
    if source.variant.precision != "fp32":
        raise ConfigError(
            f"variant {source.variant.name} is {source.variant.precision}; quantise an fp32 one"
        )
    source.progress(f"quantising {source.variant.name}, {args.mode}")
    data = _quantised(source, _static(source.data) if args.mode == "static" else _dynamic)
    _check(source, data, args.mode)
    return Draft("onnx", data, by=f"quantize {args.mode}", precision="int8")


def _called(source: Variant, args: argparse.Namespace) -> str:
    plain = source.name.replace("-fp32", "")
    return f"{plain}-int8-{args.mode}"


def _dynamic(source: Path, target: Path) -> None:
    """Convolutions stay as they are: scaled while they run, they take several times longer."""
    model = onnx.load(source)
    del model.graph.value_info[:]  # exporters write down shapes of weights that are transposed now
    quantization.quantize_dynamic(
        model,
        target,
        op_types_to_quantize=[kind for kind in IntegerOpsRegistry if kind != "Conv"],
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )


def _static(data: Dataset | None) -> Quantise:
    def quantise(source: Path, target: Path) -> None:
        quantization.quantize_static(
            source,
            target,
            _Calibration(data) if data is not None else None,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
        )

    return quantise


def _quantised(source: Source, quantise: Quantise) -> bytes:
    """Batch norms are folded and shapes inferred before: quantised graphs hide both."""
    with tempfile.TemporaryDirectory(prefix="isochrone-") as folder:
        whole, prepared, target = (Path(folder) / f"{step}.onnx" for step in ("0", "1", "2"))
        try:
            whole.write_bytes(source.package.read(source.variant))
            with _quiet():
                quant_pre_process(whole, prepared, skip_symbolic_shape=True)
                quantise(prepared, target)
            return target.read_bytes()
        except PackageError:
            raise
        except Exception as error:  # onnx and its quantiser raise whatever comes
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PackageError(f"{source.where}: cannot be quantised ({reason})") from error


def _check(source: Source, data: bytes, mode: str) -> None:
    held = onnx.load_from_string(data).graph.initializer
    if not any(one.data_type in _EIGHT_BITS and len(one.dims) > 1 for one in held):
        raise PackageError(
            f"{source.where}: holds no weights that --mode {mode} can quantise"
            " (dynamic leaves convolutions alone, static does not)"
        )


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]  # has no types
    """Feeds a data set to ONNX Runtime's calibration, request by request."""

    def __init__(self, data: Dataset) -> None:
        self._feeds: Iterator[dict[str, Array]] = (
            {tensor.name: tensor.data for tensor in request.inputs} for request in data.requests()
        )

    def get_next(self) -> dict[str, Array] | None:
        """The next inputs by name; None at the end."""
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime advises, on the root logger, to do what has been done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
