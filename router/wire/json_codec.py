"""OIP V2 JSON bodies to requests and answers, and back; strict, and msgspec does the reading.

Where a tensor's data lie outside the JSON (the binary extension) the caller says how to take them
out or put them there. Source: open-inference-protocol/specification, protocol/inference_rest.md.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from isochrone.router.errors import BadRequest
from isochrone.router.wire.bounds import ID_CHARACTERS, PARAMETERS_BYTES, UNBOUNDED, Bound
from isochrone.router.wire.json_data import decode_data, encode_data
from isochrone.router.wire.message import InferRequest, InferResponse, Parameter, RequestedOutput
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.tensor import (
    DATATYPES,
    Array,
    Datatype,
    Form,
    Tensor,
    datatype_named,
    element_count,
)

BINARY_SIZE = "binary_data_size"
BINARY_WISH = "binary_data"
BINARY_WISHES = "binary_data_output"

T = TypeVar("T")
_Name = Annotated[str, Meta(max_length=256)]
_NOT_ONE = "the body is no inference message"

Take = Callable[[str, Datatype, int, int], Array]
"""Tensor name, datatype, elements and bytes → its data, flat, from outside the JSON."""


_NOTHING = msgspec.Raw(b"")


class _Part(msgspec.Struct):
    name: _Name
    datatype: Annotated[str, Meta(max_length=16)]
    shape: msgspec.Raw
    parameters: msgspec.Raw = _NOTHING
    data: msgspec.Raw = _NOTHING


class _Wish(msgspec.Struct):
    name: _Name
    parameters: msgspec.Raw = _NOTHING


class _Request(msgspec.Struct):
    inputs: list[_Part]
    id: Annotated[str, Meta(max_length=ID_CHARACTERS)] | None = None
    parameters: msgspec.Raw = _NOTHING
    outputs: msgspec.Raw = _NOTHING


class _Response(msgspec.Struct):
    model_name: str
    outputs: list[_Part]
    model_version: str | None = None
    id: str | None = None
    parameters: msgspec.Raw = _NOTHING


@dataclass(frozen=True, slots=True)
class _TensorHead:
    """A tensor without its data: `size` bytes outside the JSON, None where they should be in it."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    count: int
    size: int | None
    parameters: Mapping[str, Parameter]

    @property
    def is_plain(self) -> bool:
        """Any bytes of that length are its data."""
        of_any_bytes = self.datatype.form not in (Form.BOOL, Form.TEXT)
        return of_any_bytes and self.size == self.count * self.datatype.dtype.itemsize > 0

    @property
    def decoded_bytes(self) -> int:
        """What its elements take in memory."""
        return self.count * self.datatype.element_bytes

    def filled(self, take: Take, data: msgspec.Raw = _NOTHING) -> Tensor:
        """It, with its data.

        Raises:
            BadRequest: they are not there, or do not fit.
        """
        if self.size is not None:
            array = take(self.name, self.datatype, self.count, self.size)
        elif text := memoryview(data):
            array = decode_data(text, self.datatype, self.shape, self.name)
        else:
            raise BadRequest(f"{self.name!r}: no data")
        return Tensor(self.name, self.datatype.name, array.reshape(self.shape), self.parameters)


@dataclass(frozen=True, slots=True)
class Outline:
    """A request but for its inputs' data, which all lie outside the JSON."""

    inputs: tuple[_TensorHead, ...]
    outputs: tuple[RequestedOutput, ...]
    id: str
    parameters: Mapping[str, Parameter]
    plain_bytes: int | None
    """So many bytes, whatever they are, are the data of all inputs; None where it depends."""
    decoded_bytes: int

    def filled(self, take: Take, bound: Bound = UNBOUNDED) -> InferRequest:
        """It, with the data.

        Raises:
            BadRequest, TooLarge: as `decode_request`.
        """
        if self.decoded_bytes > bound.size_bytes:
            _check_size(self.inputs, bound)
        inputs = tuple([one.filled(take) for one in self.inputs])
        return InferRequest(inputs, self.outputs, self.id, self.parameters)


class Written(msgspec.Struct, omit_defaults=True):
    """A tensor as it goes out; without `data`, its bytes follow the JSON."""

    name: str
    datatype: str
    shape: Sequence[int]
    parameters: dict[str, Parameter] = {}
    data: list[Any] | msgspec.Raw | UnsetType = UNSET  # JSON scalars: the datatype says which


Place = Callable[[Tensor], Written]
"""Decides where a tensor's data go, and puts them there."""


def _nowhere(name: str, datatype: Datatype, count: int, size: int) -> Array:  # noqa: ARG001 - Take
    raise BadRequest(
        f"{name!r}: {BINARY_SIZE} is set, and the header Inference-Header-Content-Length is missing"
    )


_encode = msgspec.json.Encoder().encode
_decode_shape = msgspec.json.Decoder(tuple[int, ...]).decode
_SHAPE_BYTES = 1024
_Parameters = dict[str, Parameter]


def decode_request(
    text: bytes | memoryview, take: Take = _nowhere, bound: Bound = UNBOUNDED
) -> InferRequest:
    """An inference request.

    Raises:
        BadRequest: anything at all is wrong with it; the message names the tensor.
        TooLarge: its tensors would take more than `bound`, or its parameters too much.
    """
    read = read_json(text, _Request, _NOT_ONE, most_bytes=None)
    return InferRequest(
        inputs=_tensors("inputs", read.inputs, take, bound),
        outputs=_wishes(read.outputs),
        id=read.id or "",
        parameters=_parameters(read.parameters),
    )


def decode_outline(text: bytes) -> Outline | None:
    """A request that may be filled any number of times; None where some data lie in the JSON.

    Raises:
        BadRequest: as `decode_request`, as far as that can be told without the data.
    """
    read = read_json(text, _Request, _NOT_ONE, most_bytes=None)
    _refuse_twice("inputs", [part.name for part in read.inputs])
    inputs = tuple([_head(part) for part in read.inputs])
    sizes = [one.size for one in inputs if one.size is not None]
    if len(sizes) < len(inputs):
        return None
    outputs = _wishes(read.outputs)
    plain_bytes = sum(sizes) if all(one.is_plain for one in inputs) else None
    decoded_bytes = sum([head.decoded_bytes for head in inputs])
    parameters = _parameters(read.parameters)
    return Outline(inputs, outputs, read.id or "", parameters, plain_bytes, decoded_bytes)


def decode_response(text: bytes | memoryview, take: Take = _nowhere) -> InferResponse:
    """An inference answer.

    Raises:
        BadRequest: it is not one.
    """
    read = read_json(text, _Response, _NOT_ONE, most_bytes=None)
    return InferResponse(
        model_name=read.model_name,
        model_version=read.model_version or "",
        outputs=_tensors("outputs", read.outputs, take, UNBOUNDED),
        id=read.id or "",
        parameters=_parameters(read.parameters),
    )


def in_json(tensor: Tensor) -> Written:
    """Data in row-major order, flat, inside the JSON.

    Raises:
        BadRequest: JSON cannot carry them (NaN, infinity, FP16, BF16, bytes that are not UTF-8).
    """
    return Written(
        tensor.name,
        tensor.datatype,
        tensor.shape,
        dict(tensor.parameters),
        encode_data(tensor, DATATYPES[tensor.datatype].form),
    )


def encode_request(request: InferRequest, place: Place = in_json) -> bytes:
    """The JSON of a request.

    Raises:
        BadRequest: a tensor has no JSON form.
    """
    message = {
        "id": request.id,
        "parameters": dict(request.parameters),
        "inputs": [place(tensor) for tensor in request.inputs],
        "outputs": [_written_wish(output) for output in request.outputs],
    }
    return _encode({key: value for key, value in message.items() if value or key == "inputs"})


def encode_response(response: InferResponse, place: Place = in_json) -> bytes:
    """The JSON of an answer; a NaN never leaves in it.

    Raises:
        BadRequest: a tensor has no JSON form; the message says to ask for binary.
    """
    return encode_outputs(response, [place(tensor) for tensor in response.outputs])


def encode_outputs(response: InferResponse, outputs: Sequence[Written]) -> bytes:
    """The JSON of an answer, with these outputs instead of its own."""
    message = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
        "parameters": dict(response.parameters),
        "outputs": outputs,
    }
    kept = ("model_name", "outputs")
    return _encode({key: value for key, value in message.items() if value or key in kept})


def _tensors(where: str, parts: Sequence[_Part], take: Take, bound: Bound) -> tuple[Tensor, ...]:
    _refuse_twice(where, [part.name for part in parts])
    heads = [_head(part) for part in parts]
    _check_size(heads, bound)
    return tuple([head.filled(take, part.data) for head, part in zip(heads, parts, strict=True)])


def _check_size(heads: Sequence[_TensorHead], bound: Bound) -> None:
    size_bytes = sum([head.decoded_bytes for head in heads])
    if size_bytes > bound.size_bytes:
        largest = max(heads, key=lambda head: head.decoded_bytes)
        shape = f"{largest.name!r} of shape {list(largest.shape)}"
        bound.check(size_bytes, f"the tensors, {shape} the largest, take")


def _refuse_twice(where: str, names: Collection[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"{where}: {name!r} is there twice")
        seen.add(name)


def _head(part: _Part) -> _TensorHead:
    """A tensor but for its data.

    Raises:
        BadRequest: it cannot be one, or its data would be in both places.
    """
    datatype = datatype_named(part.datatype, part.name)
    shape = _shape(part)
    parameters = _parameters(part.parameters)
    size = parameters.pop(BINARY_SIZE, None)
    if size is not None:
        given = len(memoryview(part.data)) > 0
        if given or isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise BadRequest(
                f"{part.name!r}: {BINARY_SIZE} must be a whole number of bytes,"
                " without data beside it"
            )
    count = element_count(shape, part.name)
    return _TensorHead(part.name, datatype, shape, count, size, parameters)


def _shape(part: _Part) -> tuple[int, ...]:
    if len(memoryview(part.shape)) > _SHAPE_BYTES:
        raise BadRequest(f"{part.name!r}: shape is longer than {_SHAPE_BYTES} characters")
    try:
        return _decode_shape(part.shape)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRequest(f"{part.name!r}: shape: {error}") from error


def _parameters(text: msgspec.Raw) -> dict[str, Parameter]:
    return _read(text, _Parameters, "parameters") or {}


def _read(text: msgspec.Raw, kind: type[T], what: str) -> T | None:
    """A part of a message that may be left out, as `kind`; its JSON is bounded."""
    given = memoryview(text)
    if not given or bytes(given[:5]) == b"null":
        return None
    return read_json(given, kind, what, most_bytes=PARAMETERS_BYTES)


def _wishes(text: msgspec.Raw) -> tuple[RequestedOutput, ...]:
    wishes = _read(text, list[_Wish], "outputs") or []
    _refuse_twice("outputs", [wish.name for wish in wishes])
    return tuple(map(_wish, wishes))


def _wish(wish: _Wish) -> RequestedOutput:
    parameters = _parameters(wish.parameters)
    binary = parameters.pop(BINARY_WISH, None)
    if binary is not None and not isinstance(binary, bool):
        raise BadRequest(f"{wish.name!r}: {BINARY_WISH} must be true or false")
    return RequestedOutput(wish.name, binary, parameters)


def _written_wish(output: RequestedOutput) -> dict[str, object]:
    wish = {} if output.binary is None else {BINARY_WISH: output.binary}
    parameters = {**output.parameters, **wish}
    return {"name": output.name, **({"parameters": parameters} if parameters else {})}
