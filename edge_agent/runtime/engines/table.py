"""Engine names and the modules behind them, imported when a package first needs one."""

import importlib
import importlib.util
from concurrent.futures import Executor
from typing import Protocol, cast

from isochrone.edge_agent.runtime.calls.model import Model
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package

_MODULES = {
    "onnx": "isochrone.edge_agent.runtime.engines.onnx_engine",
    "torch": "isochrone.edge_agent.runtime.engines.torch_engine",
}
NEEDS = {"onnx": ("onnxruntime", "edge"), "torch": ("torch", "torch")}
"""The distribution that an engine needs, and our extra that installs it."""
PLATFORMS = {"onnx": "onnx_onnxv1", "torch": "pytorch_safetensors"}
"""What model metadata calls an engine's packages (information only)."""


class EngineModule(Protocol):
    """What the module of an engine offers."""

    def has_gpu(self) -> bool:
        """A GPU is there that this engine can use."""
        ...

    def build(self, package: Package, variant: Variant, executor: Executor, threads: int) -> Model:
        """A model that is not loaded yet; its calls run in `executor`, on `threads` cores each."""
        ...


def engine(name: str) -> EngineModule:
    """The module of an engine."""
    return cast(EngineModule, importlib.import_module(_MODULES[name]))


def installed(variant: Variant) -> bool:
    """The engine that a variant needs is there; nothing is imported to find out."""
    return importlib.util.find_spec(NEEDS[variant.engine][0]) is not None


def lack(variant: Variant) -> str | None:
    """Why a variant cannot run here; None where it can."""
    if not installed(variant):
        return f"needs {NEEDS[variant.engine][0]}: install isochrone[{NEEDS[variant.engine][1]}]"
    if variant.accelerator == "gpu" and not engine(variant.engine).has_gpu():
        return f"wishes a GPU, and {NEEDS[variant.engine][0]} sees none"
    return None
