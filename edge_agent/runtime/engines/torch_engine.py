"""Runs networks that a manifest describes layer by layer, with safetensors weights, on torch."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from isochrone.edge_agent.runtime.calls.model import DirectModel, Feed
from isochrone.edge_agent.runtime.package import manifest
from isochrone.edge_agent.runtime.package.manifest import Architecture, Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.errors import Unavailable, Uncomputable
from isochrone.router.wire.tensor import Array, Tensor

_LAYERS: Mapping[type, Callable[[Any], nn.Module]] = {
    manifest.Conv2d: lambda one: nn.Conv2d(
        one.inputs, one.outputs, one.kernel, stride=one.stride, padding=one.padding
    ),
    manifest.Linear: lambda one: nn.Linear(one.inputs, one.outputs),
    manifest.MaxPool2d: lambda one: nn.MaxPool2d(one.kernel),
    manifest.Relu: lambda _: nn.ReLU(),
    manifest.Flatten: lambda _: nn.Flatten(),
    manifest.Softmax: lambda _: nn.Softmax(dim=-1),
}
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def has_gpu() -> bool:
    """torch sees a CUDA device."""
    return torch.cuda.is_available()


def network(architecture: Architecture) -> nn.Sequential:
    """The layers, in memory that torch's current default device gives."""
    return nn.Sequential(*(_LAYERS[type(layer)](layer) for layer in architecture))


class TorchModel(DirectModel):
    """One torch variant of a package: a network without branches, one input, one output."""

    def __init__(
        self, package: Package, variant: Variant, executor: Executor, threads: int
    ) -> None:
        super().__init__(package, executor)
        self._package = package
        self._variant = variant
        self._threads = threads
        self._network: nn.Sequential | None = None
        self._device = torch.device("cpu")

    def startup(self) -> None:
        """Check the digest, read the weights, build the network around them.

        Raises:
            PackageError: the file is not what the manifest promises.
        """
        where = str(self._package.file(self._variant))
        dtype = self._dtype(where)
        try:
            weights = load_safetensors(self._package.read(self._variant))
            with torch.device("meta"):  # no memory but that of the weights, whatever sizes it says
                built = network(self._variant.architecture or ())
            built.load_state_dict(weights, strict=True, assign=True)
        except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise PackageError(
                f"{where}: does not hold this architecture's weights ({reason});"
                " save the weights as safetensors again, or correct architecture"
            ) from error
        torch.set_num_threads(self._threads)
        if self._variant.accelerator != "cpu" and has_gpu():
            self._device = torch.device("cuda")
        self._network = built.to(self._device, dtype).eval().requires_grad_(requires_grad=False)

    def compute(self, feed: Feed) -> tuple[Tensor, ...]:
        """The one output; see `DirectModel`."""
        (data,), (output,) = feed.arrays.values(), feed.outputs
        return (Tensor(output.name, output.datatype, self._run(data)),)

    def shutdown(self) -> None:
        """Release the weights; a call that still runs keeps them until its end."""
        self._network = None

    def is_healthy(self) -> bool:
        """The weights are there."""
        return self._network is not None

    def _dtype(self, where: str) -> torch.dtype:
        takes, gives = self._package.takes, self._package.gives
        if [spec.datatype for spec in (*takes, *gives)] != ["FP32", "FP32"]:
            raise PackageError(
                f"{where}: engine torch takes one FP32 input and gives one FP32 output;"
                " correct inputs and outputs"
            )
        dtype = _PRECISIONS.get(self._variant.precision)
        if dtype is None:
            raise PackageError(
                f"{where}: engine torch has no precision {self._variant.precision};"
                f" use one of {', '.join(_PRECISIONS)}"
            )
        return dtype

    def _run(self, data: Array) -> Array:
        net = self._network
        if net is None:
            raise Unavailable(f"{self._package.name} is not loaded")
        # The bytes of a request may be read-only, which torch warns of: it never writes here.
        own = np.array(data, np.float32, order="C")
        dtype = next(net.parameters()).dtype
        try:
            with torch.inference_mode():
                answer = net(torch.from_numpy(own).to(self._device, dtype))
                result: Array = answer.float().cpu().numpy()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise Unavailable("the model ran out of memory", retry_after_s=1.0) from error
        except RuntimeError as error:  # of sizes that do not go together, and without a GPU of both
            if _goes_together(self._variant.architecture or (), own.shape):
                raise Unavailable("the model ran out of memory", retry_after_s=1.0) from error
            raise Uncomputable(
                f"{self._package.name} cannot compute these inputs: sizes do not fit"
            ) from error
        return result


def _goes_together(architecture: Architecture, shape: tuple[int, ...]) -> bool:
    """The layers take an input of that shape: tried without weights, values or memory."""
    try:
        with torch.inference_mode(), torch.device("meta"):
            network(architecture)(torch.empty(shape))
    except RuntimeError:
        return False
    return True


def build(package: Package, variant: Variant, executor: Executor, threads: int) -> TorchModel:
    """A model that is not loaded yet; its calls run in `executor`, on `threads` cores each."""
    return TorchModel(package, variant, executor, threads)
