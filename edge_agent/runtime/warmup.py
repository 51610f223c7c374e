"""The requests that a model must answer before it counts as warm: answering touches the weights."""

from collections.abc import AsyncIterator, Callable, Mapping
from math import prod

import numpy as np

from edge_agent.runtime.made_up import arrays
from edge_agent.runtime.manifest import Manifest, Sample, SampleTensor
from edge_agent.runtime.package import PackageError
from router.errors import BadRequest
from router.wire.message import InferRequest, InferResponse
from router.wire.tensor import DATATYPES, Array, Form, Tensor, fits

_SEED = 7
_MAX_BYTES = 256 << 20
"""Of one input: far above any request, far below what would fill a machine."""
Request = Callable[[InferRequest], AsyncIterator[InferResponse]]


def samples(manifest: Manifest) -> tuple[InferRequest, ...]:
    """The warm-up samples as requests, the same every time.

    Raises:
        PackageError: a sample's data do not fit its shape or datatype, or are too many.
    """
    datatypes = {one.name: one.datatype for one in manifest.inputs}
    return tuple(_request(manifest, datatypes, sample) for sample in manifest.warm_up)


async def answers(request: Request, manifest: Manifest) -> list[InferResponse]:
    """Ask every sample; every part of every answer, its tensors as the manifest promises.

    Raises:
        PackageError: a sample is wrong, is refused, or the answer does not fit the manifest.
    """
    where = f"{manifest.name}/{manifest.version}/model.yaml"
    try:
        parts = [part for sample in samples(manifest) async for part in request(sample)]
    except BadRequest as error:
        raise PackageError(
            f"{where}: warm_up: the model refuses a sample ({error.message}); correct it"
        ) from error
    for part in parts:
        _check(where, manifest, part)
    return parts


def _check(where: str, manifest: Manifest, part: InferResponse) -> None:
    given = {tensor.name: tensor for tensor in part.outputs}
    for spec in manifest.gives():
        tensor = given.get(spec.name)
        if tensor is None or tensor.datatype != spec.datatype or not fits(spec, tensor.shape):
            found = f"{tensor.datatype} {list(tensor.shape)}" if tensor else "nothing"
            raise PackageError(
                f"{where}: outputs: {spec.name} is declared {spec.datatype} {list(spec.shape)},"
                f" the model gives {found}; correct it"
            )


def _request(manifest: Manifest, datatypes: Mapping[str, str], sample: Sample) -> InferRequest:
    for given in sample.inputs:
        _check_size(manifest, given, datatypes[given.name])
    made = _made(manifest, sample)
    tensors = []
    for given in sample.inputs:
        try:
            data = made[given.name] if given.data is None else _data(given, datatypes[given.name])
        except (ValueError, TypeError, OverflowError) as error:
            raise PackageError(
                f"{manifest.name}/{manifest.version}/model.yaml: warm_up: data of {given.name}"
                f" do not fit {datatypes[given.name]} {list(given.shape)}: {error}; correct them"
            ) from error
        tensors.append(Tensor(given.name, datatypes[given.name], data))
    return InferRequest(tuple(tensors), parameters=sample.parameters)


def _check_size(manifest: Manifest, given: SampleTensor, datatype_name: str) -> None:
    size_bytes = prod(given.shape) * DATATYPES[datatype_name].dtype.itemsize
    if size_bytes > _MAX_BYTES:
        raise PackageError(
            f"{manifest.name}/{manifest.version}/model.yaml: warm_up: {given.name}"
            f" {list(given.shape)} takes {size_bytes} bytes, at most {_MAX_BYTES} are possible;"
            " give a smaller shape, or a model that takes less"
        )


def _data(given: SampleTensor, datatype_name: str) -> Array:
    datatype = DATATYPES[datatype_name]
    assert given.data is not None
    if datatype.form is Form.TEXT:
        flat = np.empty(len(given.data), object)
        flat[:] = [str(element).encode() for element in given.data]
        return flat.reshape(given.shape)
    return np.array(given.data, datatype.dtype).reshape(given.shape)


def _made(manifest: Manifest, sample: Sample) -> dict[str, Array]:
    """What stands for data that the sample lacks; positive, which most graphs can compute."""
    shapes = {one.name: one.shape for one in sample.inputs if one.data is None}
    if manifest.generate is not None:  # whose alphabet may lack any letter
        return {name: np.full(shape, b"", object) for name, shape in shapes.items()}
    takes = [spec for spec in manifest.takes() if spec.name in shapes]
    made = arrays(takes, shapes, np.random.default_rng(_SEED))
    return {name: np.abs(one) if one.dtype.kind == "f" else one for name, one in made.items()}
