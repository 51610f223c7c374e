"""What goes into the making of a variant, and what comes out of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import safetensors.numpy

from isochrone.deploy.packages.dataset import Dataset
from isochrone.deploy.packages.onnx_graph import onnx_bytes
from isochrone.edge_agent.runtime.package.manifest import Architecture, Engine, Precision, Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.errors import ConfigError
from isochrone.router.wire.tensor import Array

Progress = Callable[[str], None]
Weights = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Source:
    """A variant to make another one from, and the data to learn from, if there are any."""

    package: Package
    variant: Variant
    data: Dataset | None
    progress: Progress

    @property
    def where(self) -> str:
        """What messages begin with."""
        return str(self.package.file(self.variant))

    def layers(self) -> Architecture:
        """Its network, where the manifest describes one.

        Raises:
            ConfigError: it does not.
        """
        if self.variant.architecture is None:
            raise ConfigError(
                f"{self.where}: the manifest does not describe its layers; only torch variants"
                " have an architecture"
            )
        return self.variant.architecture

    def weights(self) -> Weights:
        """What a torch variant's file holds, in 32 bits.

        Raises:
            PackageError: it is not what the manifest promises.
        """
        try:
            held = safetensors.numpy.load(self.package.read(self.variant))
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            raise PackageError(
                f"{self.where}: holds no weights that can be read here: {error}"
            ) from error
        return {name: data.astype("float32") for name, data in held.items()}


@dataclass(frozen=True, slots=True)
class Draft:
    """A variant that nobody has judged yet.

    `by` says how it was made; `notes` what its maker should know. `exact`: it must answer as its
    source does, within the package's tolerance.
    """

    engine: Engine
    data: bytes
    by: str
    precision: Precision = "fp32"
    architecture: Architecture | None = None
    notes: tuple[str, ...] = ()
    exact: bool = False


def as_onnx(package: Package, architecture: Architecture, weights: Weights, where: str) -> bytes:
    """A network as an ONNX file for a package's input and output.

    Raises:
        PackageError: they do not fit together.
    """
    (takes,), (gives,) = package.takes, package.gives
    try:
        return onnx_bytes(architecture, weights, takes, gives)
    except Exception as error:  # onnx's checker raises what it likes
        reason = " ".join(str(error).split())
        raise PackageError(f"{where}: its layers cannot be written as ONNX ({reason})") from error


def as_torch(weights: Weights) -> bytes:
    """Weights as a safetensors file."""
    return safetensors.numpy.save(dict(weights))
