"""Inference requests, answers and metadata of the Open Inference Protocol V2, free of any encoding.

Source: open-inference-protocol/specification, protocol/inference_rest.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from isochrone.router.wire.tensor import Tensor, TensorSpec

Parameter = str | int | float | bool
Parameters = Mapping[str, Parameter]


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that the caller asks for; `binary` None: in the form that the request asks for."""

    name: str
    binary: bool | None = None
    parameters: Parameters = {}


class InferRequest(msgspec.Struct, frozen=True):
    """One call of a model. No `outputs` means all of them."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Parameters = {}


class InferResponse(msgspec.Struct, frozen=True):
    """One answer of a model, or one chunk of a streamed answer."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Parameters = {}


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model takes and gives; -1 in a shape stands for a variable dimension."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
