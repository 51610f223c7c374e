"""Whether a request fits what a model declares, and whether a file does."""

from collections.abc import Collection, Sequence

from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import BadRequest
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Array, TensorSpec, fits


def feeds(
    request: InferRequest, declared: Sequence[TensorSpec], optional: Collection[str] = ()
) -> dict[str, Array]:
    """The inputs by name, once they are known to be those that the model declares.

    Those that are `optional` may be missing.

    Raises:
        BadRequest: an input is missing, unknown, or of another datatype or shape.
    """
    given = {tensor.name: tensor for tensor in request.inputs}
    missing = 0
    for spec in declared:
        name, tensor = spec.name, given.get(spec.name)
        if tensor is None and name in optional:
            missing += 1
            continue
        if tensor is None:
            raise BadRequest(f"input {name!r} is missing")
        if tensor.datatype != spec.datatype:
            raise BadRequest(f"input {name!r} must be {spec.datatype}, not {tensor.datatype}")
        if not fits(spec, tensor.data.shape):
            shape = list(tensor.shape)
            raise BadRequest(f"input {name!r} must have shape {list(spec.shape)}, not {shape}")
    if len(given) > len(declared) - missing:
        unknown = sorted(set(given) - {spec.name for spec in declared})
        raise BadRequest(f"input {unknown[0]!r} is unknown; there are {_names(declared)}")
    return {name: tensor.data for name, tensor in given.items()}


def wanted(request: InferRequest, declared: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The outputs that are asked for, in that order; all of them where none is named.

    Raises:
        BadRequest: one of them is unknown.
    """
    if not request.outputs:
        return tuple(declared)
    known = {spec.name: spec for spec in declared}
    for output in request.outputs:
        if output.name not in known:
            raise BadRequest(f"output {output.name!r} is unknown; there are {_names(declared)}")
    return tuple(known[output.name] for output in request.outputs)


def check_inputs(where: str, promised: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    """A file takes exactly the inputs that the manifest promises.

    Raises:
        PackageError: it does not; the message begins `where`.
    """
    check_tensors(where, promised, found)
    undeclared = sorted({spec.name for spec in found} - {spec.name for spec in promised})
    if undeclared:
        raise PackageError(
            f"{where}: takes {undeclared[0]!r} too, which the manifest lacks; add it to inputs"
        )


def check_outputs(where: str, promised: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    """A file has the outputs that the manifest promises; shapes that both state must agree.

    Exporters write wrong shapes for outputs, so that a size which the manifest leaves open, or a
    whole shape, may be fixed in the file. The answers to the warm-up samples are checked anyway.

    Raises:
        PackageError: one is missing, or of another datatype or shape; the message begins `where`.
    """
    wishes = {spec.name: spec.shape for spec in promised}
    eased = [
        TensorSpec(spec.name, spec.datatype, _eased(spec.shape, wishes.get(spec.name, spec.shape)))
        for spec in found
    ]
    check_tensors(where, promised, eased)


def _eased(shape: tuple[int, ...], wish: tuple[int, ...]) -> tuple[int, ...]:
    """A file's shape, open where the wish is."""
    if set(wish) <= {-1}:
        return ()
    if len(shape) != len(wish):
        return shape
    return tuple(-1 if wanted == -1 else size for size, wanted in zip(shape, wish, strict=True))


def check_tensors(where: str, promised: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    """A file has the tensors that the manifest promises; a shape it leaves open may be any.

    Raises:
        PackageError: one is missing, or of another datatype or shape; the message begins `where`.
    """
    held = {spec.name: spec for spec in found}
    for spec in promised:
        other = held.get(spec.name)
        if other is None:
            raise PackageError(f"{where}: has no tensor {spec.name!r}; it has {_names(found)}")
        if other.datatype != spec.datatype or not _covers(other.shape, spec.shape):
            raise PackageError(
                f"{where}: {spec.name!r} is {other.datatype} {list(other.shape)}, the manifest"
                f" says {spec.datatype} {list(spec.shape)}; correct the manifest"
            )


def _covers(shape: Sequence[int], promised: Sequence[int]) -> bool:
    return not shape or (  # a scalar, or a shape that the file does not state
        len(shape) == len(promised)
        and all(size in (-1, wish) for size, wish in zip(shape, promised, strict=True))
    )


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs)
