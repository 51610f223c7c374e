"""`--sample FILE`: a real request for a model, from an .npz, a JSON body or a picture."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from isochrone.deploy.cli import part
from isochrone.deploy.packages.asked_graph import Graph
from isochrone.edge_agent.runtime.loading import made_up
from isochrone.edge_agent.runtime.package.fit import feeds
from isochrone.router.errors import BadRequest, ConfigError
from isochrone.router.wire import json_codec
from isochrone.router.wire.message import InferRequest, Parameter
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec


class Pictures(Protocol):
    """The module that needs Pillow."""

    def read(self, path: Path, takes: Sequence[TensorSpec], /) -> InferRequest:
        """A picture as a request."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """One request."""

    arrays: Mapping[str, Array]
    parameters: Mapping[str, Parameter]


def read(path: Path, graph: Graph) -> Given:
    """The request in a file, for a graph.

    Raises:
        ConfigError: it cannot be read, or does not fit; the message names the input and the size.
    """
    where = f"--sample {path}"
    readers = {".npz": _npz, ".json": _json}
    try:
        request = readers.get(path.suffix.lower(), _picture)(path, graph.takes)
        ranks = {tensor.name: tensor.data.ndim for tensor in request.inputs}
        takes = [
            replace(spec, shape=(-1,) * ranks.get(spec.name, 0))
            if spec.name in graph.unranked
            else spec
            for spec in graph.takes
        ]
        return Given(feeds(request, takes, graph.optional), request.parameters)
    except BadRequest as error:
        raise ConfigError(f"{where}: {error.message}; correct the sample") from error
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror or error}") from error


def _json(path: Path, _takes: Sequence[TensorSpec]) -> InferRequest:
    return json_codec.decode_request(path.read_bytes())


def _npz(path: Path, takes: Sequence[TensorSpec]) -> InferRequest:
    specs = {spec.name: spec for spec in takes}
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise BadRequest("is no .npz of plain arrays; save it with numpy.savez") from error
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
    try:
        return cast(Pictures, part("picture")).read(path, takes)
    except BadRequest as error:
        raise BadRequest(f"{error.message} (a sample is .npz, .json or a picture)") from error
