"""The requests that a model must answer before it counts as warm: answering touches the weights."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from isochrone.edge_agent.runtime.loading import made_up
from isochrone.edge_agent.runtime.loading.made_up import Shape
from isochrone.edge_agent.runtime.package.manifest import Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.errors import BadRequest
from isochrone.router.wire import binary_codec
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec, fits

_SEED = 7
MAX_BYTES = 256 << 20
"""Of one input: far above any request, far below what would fill a machine."""
Request = Callable[[InferRequest], AsyncIterator[InferResponse]]


def samples(manifest: Manifest, package: Package | None = None) -> tuple[InferRequest, ...]:
    """The warm-up samples as requests, the same every time.

    Without the package, what it keeps in files is made up in the same shape.

    Raises:
        PackageError: a sample's data do not fit its shape or datatype, or are too many.
    """
    return tuple(_request(manifest, package, sample) for sample in manifest.warm_up)


async def answers(request: Request, package: Package) -> list[InferResponse]:
    """Ask every sample; every part of every answer, its tensors as the manifest promises.

    Raises:
        PackageError: a sample is wrong, is refused, or the answer does not fit the manifest.
    """
    manifest = package.manifest
    where = f"{manifest.name}/{manifest.version}/model.yaml"
    try:
        parts = [part for one in samples(manifest, package) async for part in request(one)]
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


def _request(manifest: Manifest, package: Package | None, sample: Sample) -> InferRequest:
    specs = {spec.name: spec for spec in manifest.takes()}
    for given in sample.inputs:
        _check_size(manifest, given, specs[given.name].datatype)
    made = _made_up(manifest, sample, specs, package)
    tensors = []
    for given in sample.inputs:
        spec = specs[given.name]
        try:
            data = made[given.name] if given.name in made else _data(given, spec, package)
        except (ValueError, TypeError, OverflowError, BadRequest) as error:
            raise PackageError(
                f"{manifest.name}/{manifest.version}/model.yaml: warm_up: data of {given.name}"
                f" do not fit {spec.datatype} {list(given.shape)}: {error}; correct them"
            ) from error
        tensors.append(Tensor(given.name, spec.datatype, data))
    return InferRequest(tuple(tensors), parameters=sample.parameters)


def stand_ins(takes: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """What stands for data that a sample lacks; positive, which most graphs can compute."""
    drawn = made_up.arrays(takes, shapes, np.random.default_rng(_SEED))
    return {
        name: np.asarray(np.abs(one)) if one.dtype.kind == "f" else one
        for name, one in drawn.items()
    }


def _made_up(
    manifest: Manifest, sample: Sample, specs: Mapping[str, TensorSpec], package: Package | None
) -> dict[str, Array]:
    """Those inputs that have no data, or none that can be read here."""
    shapes = {given.name: given.shape for given in sample.inputs}
    without = {
        given.name
        for given in sample.inputs
        if given.data is None and (given.kept is None or package is None)
    }
    if manifest.generate is not None:  # whose alphabet may lack any letter
        return {name: np.full(shapes[name], b"", object) for name in without}
    known = [
        spec if len(spec.shape) == len(shapes[name]) else replace(spec, shape=shapes[name])
        for name, spec in specs.items()
        if name in shapes
    ]
    return {name: data for name, data in stand_ins(known, shapes).items() if name in without}


def _check_size(manifest: Manifest, given: SampleTensor, datatype_name: str) -> None:
    size_bytes = prod(given.shape) * DATATYPES[datatype_name].dtype.itemsize
    if size_bytes > MAX_BYTES:
        raise PackageError(
            f"{manifest.name}/{manifest.version}/model.yaml: warm_up: {given.name}"
            f" {list(given.shape)} takes {size_bytes} bytes, at most {MAX_BYTES} are possible;"
            " give a smaller shape, or a model that takes less"
        )


def _data(given: SampleTensor, spec: TensorSpec, package: Package | None) -> Array:
    datatype = DATATYPES[spec.datatype]
    if given.kept is not None and package is not None:
        return binary_codec.from_bytes(spec, given.shape, package.read(given.kept)).data
    if datatype.form is Form.TEXT:
        flat = np.empty(len(given.data or ()), object)
        flat[:] = [str(element).encode() for element in given.data or ()]
        return flat.reshape(given.shape)
    if spec.datatype == "BF16":
        return made_up.as_datatype("BF16", np.array(given.data, "<f4")).reshape(given.shape)
    return np.array(given.data, datatype.dtype).reshape(given.shape)
