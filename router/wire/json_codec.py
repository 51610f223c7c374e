"""OIP V2 JSON bodies to requests and answers, and back; strict, and msgspec does the reading.

Where a tensor's data lie outside the JSON (the binary extension) the caller says how to take them
out or put them there. Source: open-inference-protocol/specification, protocol/inference_rest.md.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from router.errors import BadRequest
from router.wire.message import InferRequest, InferResponse, Parameter, RequestedOutput
from router.wire.peer_json import read_json
from router.wire.tensor import (
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

_Parameters = dict[str, Parameter] | None
_NOT_ONE = "the body is no inference message"

Take = Callable[[str, Datatype, int, int], Array]
"""Tensor name, datatype, elements and bytes → its data, flat, from outside the JSON."""


class _Part(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = None
    data: msgspec.Raw = msgspec.Raw(b"")


class _Wish(msgspec.Struct):
    name: str
    parameters: _Parameters = None


class _Request(msgspec.Struct):
    inputs: list[_Part]
    id: str | None = None
    parameters: _Parameters = None
    outputs: list[_Wish] | None = None


class _Response(msgspec.Struct):
    model_name: str
    outputs: list[_Part]
    model_version: str | None = None
    id: str | None = None
    parameters: _Parameters = None


@dataclass(frozen=True, slots=True)
class _Outside:
    """A tensor whose data lie outside the JSON."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    count: int
    size: int
    parameters: Mapping[str, Parameter]

    @property
    def is_plain(self) -> bool:
        """Any bytes of that length are its data."""
        of_any_bytes = self.datatype.form not in (Form.BOOL, Form.TEXT)
        return of_any_bytes and 0 < self.size == self.count * self.datatype.dtype.itemsize

    def taken(self, take: Take) -> Tensor:
        """It, with its data."""
        data = take(self.name, self.datatype, self.count, self.size)
        return Tensor(self.name, self.datatype.name, data.reshape(self.shape), self.parameters)


@dataclass(frozen=True, slots=True)
class Outline:
    """A request but for its inputs' data, which all lie outside the JSON."""

    inputs: tuple[_Outside, ...]
    outputs: tuple[RequestedOutput, ...]
    id: str
    parameters: Mapping[str, Parameter]
    plain_bytes: int | None
    """So many bytes, whatever they are, are the data of all inputs; None where it depends."""

    def filled(self, take: Take) -> InferRequest:
        """It, with the data."""
        inputs = tuple([one.taken(take) for one in self.inputs])
        return InferRequest(inputs, self.outputs, self.id, self.parameters)


class Written(msgspec.Struct, omit_defaults=True):
    """A tensor as it goes out; without `data`, its bytes follow the JSON."""

    name: str
    datatype: str
    shape: Sequence[int]
    parameters: dict[str, Parameter] = {}
    data: list[Any] | UnsetType = UNSET  # lists of any JSON scalar: the datatype says which


Place = Callable[[Tensor], Written]
"""Decides where a tensor's data go, and puts them there."""


def _nowhere(name: str, datatype: Datatype, count: int, size: int) -> Array:  # noqa: ARG001 - Take
    raise BadRequest(
        f"{name!r}: {BINARY_SIZE} is set, and the header Inference-Header-Content-Length is missing"
    )


_encode = msgspec.json.Encoder().encode


def decode_request(text: bytes | memoryview, take: Take = _nowhere) -> InferRequest:
    """An inference request.

    Raises:
        BadRequest: anything at all is wrong with it; the message names the tensor.
    """
    read = read_json(text, _Request, _NOT_ONE, most_bytes=None)
    return InferRequest(
        inputs=_tensors("inputs", read.inputs, take),
        outputs=_wishes(read.outputs or ()),
        id=_ascii(read.id or ""),
        parameters=read.parameters or {},
    )


def decode_outline(text: bytes) -> Outline | None:
    """A request that may be filled any number of times; None where some data lie in the JSON.

    Raises:
        BadRequest: as `decode_request`, as far as that can be told without the data.
    """
    read = read_json(text, _Request, _NOT_ONE, most_bytes=None)
    _refuse_twice("inputs", [part.name for part in read.inputs])
    found = [_outside(part) for part in read.inputs]
    inputs = tuple([one for one in found if one is not None])
    if len(inputs) < len(found):
        return None
    outputs = _wishes(read.outputs or ())
    plain = all(one.is_plain for one in inputs)
    plain_bytes = sum(one.size for one in inputs) if plain else None
    return Outline(inputs, outputs, _ascii(read.id or ""), read.parameters or {}, plain_bytes)


def decode_response(text: bytes | memoryview, take: Take = _nowhere) -> InferResponse:
    """An inference answer.

    Raises:
        BadRequest: it is not one.
    """
    read = read_json(text, _Response, _NOT_ONE, most_bytes=None)
    return InferResponse(
        model_name=read.model_name,
        model_version=read.model_version or "",
        outputs=_tensors("outputs", read.outputs, take),
        id=read.id or "",
        parameters=read.parameters or {},
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
        _elements(tensor, DATATYPES[tensor.datatype].form),
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


def _tensors(where: str, parts: Sequence[_Part], take: Take) -> tuple[Tensor, ...]:
    _refuse_twice(where, [part.name for part in parts])
    return tuple([_tensor(part, take) for part in parts])


def _refuse_twice(where: str, names: Collection[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"{where}: {name!r} is there twice")
        seen.add(name)


def _tensor(part: _Part, take: Take) -> Tensor:
    outside = _outside(part)
    if outside is not None:
        return outside.taken(take)
    if not memoryview(part.data):
        raise BadRequest(f"{part.name!r}: no data")
    data = _array(part, DATATYPES[part.datatype])
    return Tensor(part.name, part.datatype, data.reshape(part.shape), part.parameters or {})


def _outside(part: _Part) -> _Outside | None:
    """A tensor whose data lie outside the JSON; None where they should be in it.

    Raises:
        BadRequest: it cannot be a tensor, or its data would be in both places.
    """
    datatype = datatype_named(part.datatype, part.name)
    count = element_count(part.shape, part.name)
    parameters = dict(part.parameters or {})
    size = parameters.pop(BINARY_SIZE, None)
    if size is None:
        return None
    given = len(memoryview(part.data)) > 0
    if given or isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise BadRequest(
            f"{part.name!r}: {BINARY_SIZE} must be a whole number of bytes, without data beside it"
        )
    return _Outside(part.name, datatype, tuple(part.shape), count, size, parameters)


def _array(part: _Part, datatype: Datatype) -> Array:
    if datatype.form is Form.NONE:
        raise BadRequest(f"{part.name!r}: {datatype.name} has no JSON form; send it as binary")
    text = bytes(part.data)
    nested = len(part.shape) > 1 and text[1:].lstrip().startswith(b"[")
    try:
        values = _data_decoder(datatype.name, len(part.shape) if nested else 1).decode(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRequest(f"{part.name!r}: data: {error}") from error
    flat = _flat(values, part.shape if nested else (element_count(part.shape, part.name),), part)
    return _converted(flat, datatype, part.name)


def _flat(values: list[Any], shape: Sequence[int], part: _Part) -> list[Any]:
    level: list[Any] = [values]
    for size in shape:
        if any(len(row) != size for row in level):
            raise BadRequest(f"{part.name!r}: data do not fit shape {part.shape}")
        level = list(chain.from_iterable(level))
    return level


def _converted(flat: list[Any], datatype: Datatype, name: str) -> Array:
    if datatype.form is Form.TEXT:
        return _objects([text.encode() for text in flat])
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, datatype.dtype)
    except OverflowError:  # above what UINT64 holds
        raise BadRequest(f"{name!r}: data hold a number outside {datatype.name}") from None
    if datatype.name == "FP32" and not np.isfinite(array).all():
        raise BadRequest(f"{name!r}: data hold a number outside FP32")
    return array


def _objects(elements: list[bytes]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


@lru_cache(maxsize=256)
def _data_decoder(datatype: str, rank: int) -> msgspec.json.Decoder[Any]:
    """Reads `rank` nested lists of the datatype's elements, each checked against its range."""
    kind: Any = _element(DATATYPES[datatype])
    for _ in range(rank):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _element(datatype: Datatype) -> Any:  # noqa: ANN401 - a type expression
    plain = {Form.BOOL: bool, Form.FLOAT: float, Form.TEXT: str}.get(datatype.form)
    if plain is not None:
        return plain
    if datatype.name == "UINT64":
        return Annotated[int, Meta(ge=0)]  # msgspec's bounds end at 63 bits; numpy checks the rest
    bounds = np.iinfo(datatype.dtype)  # type: ignore[type-var]  # integers only, by their form
    return Annotated[int, Meta(ge=int(bounds.min), le=int(bounds.max))]


def _wishes(wishes: Sequence[_Wish]) -> tuple[RequestedOutput, ...]:
    _refuse_twice("outputs", [wish.name for wish in wishes])
    return tuple(map(_wish, wishes))


def _wish(wish: _Wish) -> RequestedOutput:
    parameters = dict(wish.parameters or {})
    binary = parameters.pop(BINARY_WISH, None)
    if binary is not None and not isinstance(binary, bool):
        raise BadRequest(f"{wish.name!r}: {BINARY_WISH} must be true or false")
    return RequestedOutput(wish.name, binary, parameters)


def _written_wish(output: RequestedOutput) -> dict[str, object]:
    wish = {} if output.binary is None else {BINARY_WISH: output.binary}
    parameters = {**output.parameters, **wish}
    return {"name": output.name, **({"parameters": parameters} if parameters else {})}


def _elements(tensor: Tensor, form: Form) -> list[Any]:
    if form is Form.NONE:
        raise _binary_only(tensor, f"{tensor.datatype} values")
    if form is Form.FLOAT and not np.isfinite(tensor.data).all():
        raise _binary_only(tensor, "NaN or infinity")
    flat: list[Any] = tensor.data.ravel().tolist()
    return _texts(tensor, flat) if form is Form.TEXT else flat


def _texts(tensor: Tensor, flat: list[bytes]) -> list[str]:
    try:
        return [element.decode() for element in flat]
    except UnicodeDecodeError:
        raise _binary_only(tensor, "bytes that are not UTF-8") from None


def _binary_only(tensor: Tensor, what: str) -> BadRequest:
    return BadRequest(
        f"{tensor.name!r} holds {what}, which JSON cannot carry; ask for {BINARY_WISH}: true"
    )


def _ascii(identifier: str) -> str:
    if not identifier.isascii() or not identifier.isprintable():
        raise BadRequest("id must be printable ASCII")
    return identifier
