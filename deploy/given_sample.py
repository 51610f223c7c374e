"""`--sample FILE`: a real request for a model, from an .npz, a JSON body or a picture."""

import importlib
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.runtime import made_up
from edge_agent.runtime.fit import feeds
from router.errors import BadRequest, ConfigError
from router.wire import json_codec
from router.wire.message import InferRequest, Parameter
from router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec

_STEP = 32
"""Nets for pictures of any size halve them up to five times."""
_MOST_SIDE = 640
_WHITE = 255


@dataclass(frozen=True, slots=True)
class Given:
    """One request."""

    arrays: Mapping[str, Array]
    parameters: Mapping[str, Parameter]


def read(path: Path, takes: Sequence[TensorSpec], optional: Collection[str]) -> Given:
    """The request in a file, for a model with these inputs.

    Raises:
        ConfigError: it cannot be read, or does not fit; the message names the input and the size.
    """
    where = f"--sample {path}"
    readers = {".npz": _npz, ".json": _json}
    try:
        request = readers.get(path.suffix.lower(), _picture)(path, takes)
        known = [_ranked(spec, request) for spec in takes]
        return Given(feeds(request, known, optional), request.parameters)
    except BadRequest as error:
        raise ConfigError(f"{where}: {error.message}; correct the sample") from error
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror or error}") from error


def _ranked(spec: TensorSpec, request: InferRequest) -> TensorSpec:
    """A shape that says nothing is that of a scalar, or any."""
    ranks = [tensor.data.ndim for tensor in request.inputs if tensor.name == spec.name]
    return replace(spec, shape=(-1,) * ranks[0]) if ranks and not spec.shape else spec


def _json(path: Path, _takes: Sequence[TensorSpec]) -> InferRequest:
    return json_codec.decode_request(path.read_bytes())


def _npz(path: Path, takes: Sequence[TensorSpec]) -> InferRequest:
    specs = {spec.name: spec for spec in takes}
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise BadRequest(
            f"is no .npz of plain arrays ({error}); save it with numpy.savez"
        ) from error
    return InferRequest(tuple(_tensor(specs.get(name), name, arrays[name]) for name in arrays))


def _tensor(spec: TensorSpec | None, name: str, data: Array) -> Tensor:
    if spec is None:
        return Tensor(name, "", data)  # refused by its name
    datatype = DATATYPES[spec.datatype]
    if datatype.form is Form.TEXT:
        texts = np.empty(data.size, object)
        texts[:] = [text if isinstance(text, bytes) else str(text).encode() for text in data.flat]
        return Tensor(name, spec.datatype, texts.reshape(data.shape))
    if spec.datatype == "BF16" and data.dtype != np.uint16:
        return Tensor(name, spec.datatype, made_up.as_datatype("BF16", data))
    if not np.can_cast(data.dtype, datatype.dtype, "same_kind"):
        raise BadRequest(f"input {name!r} is {data.dtype}, the model takes {spec.datatype}")
    return Tensor(name, spec.datatype, data.astype(datatype.dtype))


def _picture(path: Path, takes: Sequence[TensorSpec]) -> InferRequest:
    (spec, *others) = takes
    if others or not made_up.is_image(spec):
        told = ", ".join(f"{one.name} {list(one.shape)}" for one in takes)
        raise BadRequest(f"the model takes {told}, which is no single picture: give .npz or .json")
    channels_first = spec.shape[-3] in made_up.CHANNELS
    channels = spec.shape[-3] if channels_first else spec.shape[-1]
    height, width = spec.shape[-2:] if channels_first else spec.shape[-3:-1]
    pixels = _pixels(path, {1: "L", 3: "RGB", 4: "RGBA"}[channels], height, width)
    if channels_first:
        pixels = pixels.transpose(2, 0, 1)
    if DATATYPES[spec.datatype].form is not Form.INT:
        pixels = made_up.as_datatype(spec.datatype, np.divide(pixels, _WHITE))
    data = np.ascontiguousarray(pixels).astype(DATATYPES[spec.datatype].dtype)
    return InferRequest(
        (Tensor(spec.name, spec.datatype, data[None] if len(spec.shape) == 4 else data),)
    )


def _pixels(path: Path, mode: str, height: int, width: int) -> Array:
    """Height, width and channels, each 0 to 255; an open side is that of the picture, about."""
    images = _pillow()
    try:
        with images.open(path) as picture:
            side = picture.size
            size = [
                wish if wish > 0 else max(_STEP, min(own, _MOST_SIDE) // _STEP * _STEP)
                for wish, own in zip((width, height), side, strict=True)
            ]
            small = picture.convert(mode).resize(size)
    except images.UnidentifiedImageError as error:
        raise BadRequest("is no .npz, no .json and no picture that Pillow reads") from error
    return np.asarray(small).reshape(size[1], size[0], -1)


def _pillow() -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise BadRequest("a picture needs Pillow: pip install 'isochrone[demo]'") from error
