"""The binary tensor extension of OIP V2: a JSON head, then the tensors' bytes one after another.

Little-endian, row-major, no padding; a BYTES element is its length (uint32) and its bytes. Source:
Triton's protocol/extension_binary_data.md.
"""

import struct
from collections.abc import Collection, Sequence
from functools import lru_cache
from math import prod

import numpy as np

from isochrone.router.errors import BadRequest
from isochrone.router.wire import json_codec
from isochrone.router.wire.bounds import UNBOUNDED, Bound
from isochrone.router.wire.json_codec import BINARY_SIZE, BINARY_WISHES, Place, Written
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.tensor import Array, Datatype, Form, Tensor, TensorSpec, datatype_named

_LENGTH = struct.Struct("<I")
_Told = tuple[str, str, tuple[int, ...], int]
"""Name, datatype, shape and bytes of a tensor."""
_KEPT_BYTES = 2048
"""Heads up to so long are kept for the next ones: what a client sends is mostly alike."""
_outline = lru_cache(maxsize=256)(json_codec.decode_outline)


def decode_request(body: bytes, head_bytes: int, bound: Bound = UNBOUNDED) -> InferRequest:
    """A request whose JSON is the first `head_bytes` of `body`.

    Raises:
        BadRequest: the JSON is wrong, or its tensors do not add up to the rest of the body.
        TooLarge: its tensors would take more than `bound`, or its parameters too much.
    """
    kept = 0 < head_bytes <= min(_KEPT_BYTES, len(body))
    outline = _outline(body[:head_bytes]) if kept else None
    if outline is not None and outline.plain_bytes == len(body) - head_bytes:
        return outline.filled(_Numbers(body, head_bytes).take, bound)
    head, blobs = _split(body, head_bytes)
    if outline is None:
        request = json_codec.decode_request(head, blobs.take, bound)
    else:
        request = outline.filled(blobs.take, bound)
    blobs.check_empty()
    return request


def decode_response(body: bytes, head_bytes: int) -> InferResponse:
    """An answer whose JSON is the first `head_bytes` of `body`.

    Raises:
        BadRequest: it is not one.
    """
    head, blobs = _split(body, head_bytes)
    response = json_codec.decode_response(head, blobs.take)
    blobs.check_empty()
    return response


def decode_raw(body: bytes, inputs: Sequence[TensorSpec]) -> InferRequest:
    """A body that is one tensor's bytes and nothing else; every output is wanted as binary.

    For a model with one input and at most one variable dimension. A BYTES input takes the whole
    body as its one element, without a length before it.

    Raises:
        BadRequest: the model is not such a one, or the bytes do not fit it.
    """
    if len(inputs) != 1:
        raise BadRequest(f"a raw body needs a model with one input; this one has {len(inputs)}")
    tensor = _raw_tensor(body, inputs[0])
    return InferRequest((tensor,), parameters={BINARY_WISHES: True})


def encode_request(request: InferRequest) -> tuple[bytes, int]:
    """The body of a request with every tensor binary, and how many bytes of it are JSON."""
    blobs: list[bytes] = []
    head = json_codec.encode_request(request, _appending(blobs))
    return b"".join((head, *blobs)), len(head)


def encode_response(response: InferResponse, binary: Collection[str]) -> tuple[bytes, int]:
    """The body of an answer, and its JSON's length; outputs that `binary` names are binary.

    Raises:
        BadRequest: an output that is wanted as JSON has no JSON form.
    """
    said = response.id or response.parameters
    if not said and {one.name for one in response.outputs if not one.parameters} == binary:
        return _plain(response)
    blobs: list[bytes] = []
    append = _appending(blobs)

    def place(tensor: Tensor) -> Written:
        return append(tensor) if tensor.name in binary else json_codec.in_json(tensor)

    head = json_codec.encode_response(response, place)
    return b"".join((head, *blobs)), len(head)


def to_bytes(tensor: Tensor) -> bytes:
    """The elements of a tensor, as they stand in a body."""
    return _blob(tensor)


def from_bytes(spec: TensorSpec, shape: Sequence[int], data: bytes) -> Tensor:
    """The tensor of that shape with these elements.

    Raises:
        BadRequest: they are none, or too many, or too few.
    """
    datatype, count = datatype_named(spec.datatype, spec.name), prod(shape)
    blobs = _Blobs(memoryview(data))
    array = blobs.take(spec.name, datatype, count, len(data))
    return Tensor(spec.name, spec.datatype, array.reshape(shape))


def _plain(response: InferResponse) -> tuple[bytes, int]:
    """An answer of nothing but binary tensors: its head is likely to have been there before."""
    blobs = [_blob(tensor) for tensor in response.outputs]
    told = [
        (tensor.name, tensor.datatype, tensor.shape, len(blob))
        for tensor, blob in zip(response.outputs, blobs, strict=True)
    ]
    head = _plain_head(response.model_name, response.model_version, tuple(told))
    return b"".join((head, *blobs)), len(head)


@lru_cache(maxsize=256)
def _plain_head(name: str, version: str, told: tuple[_Told, ...]) -> bytes:
    outputs = [
        Written(tensor, datatype, shape, {BINARY_SIZE: size_bytes})
        for tensor, datatype, shape, size_bytes in told
    ]
    return json_codec.encode_outputs(InferResponse(name, version, ()), outputs)


class _Numbers:
    """Takes arrays from the end of a body that is known to hold them."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self._at = at

    def take(self, _name: str, datatype: Datatype, count: int, size: int) -> Array:
        array = np.frombuffer(self._body, datatype.dtype, count, self._at)
        self._at += size
        return array if array.flags.aligned else array.copy()  # engines hand the address to C


class _Blobs:
    """Takes tensors' bytes from the front of what follows the JSON."""

    def __init__(self, rest: memoryview) -> None:
        self._rest = rest

    def take(self, name: str, datatype: Datatype, count: int, size: int) -> Array:
        if size > len(self._rest):
            raise BadRequest(f"{name!r}: {size} bytes announced, {len(self._rest)} are there")
        blob, self._rest = self._rest[:size], self._rest[size:]
        if datatype.form is Form.TEXT:
            return _elements(name, blob, count)
        return _numbers(name, blob, datatype, count)

    def check_empty(self) -> None:
        if self._rest:
            raise BadRequest(f"{len(self._rest)} bytes after the last tensor belong to none")


def _split(body: bytes, head_bytes: int) -> tuple[memoryview, _Blobs]:
    if not 0 < head_bytes <= len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length {head_bytes} is not within the body of {len(body)}"
        )
    view = memoryview(body)
    return view[:head_bytes], _Blobs(view[head_bytes:])


def _numbers(name: str, blob: memoryview, datatype: Datatype, count: int) -> Array:
    wanted = count * datatype.dtype.itemsize
    if len(blob) != wanted:
        raise BadRequest(
            f"{name!r}: shape and {datatype.name} make {wanted} bytes, {len(blob)} were sent"
        )
    if datatype.form is Form.BOOL and np.frombuffer(blob, np.uint8).max(initial=0) > 1:
        raise BadRequest(f"{name!r}: BOOL bytes must be 0 or 1")
    array = np.frombuffer(blob, datatype.dtype)
    return array if array.flags.aligned else array.copy()  # engines hand the address to C


def _elements(name: str, blob: memoryview, count: int) -> Array:
    if count * _LENGTH.size > len(blob):  # before anything of that size is made
        raise BadRequest(f"{name!r}: {len(blob)} bytes cannot hold {count} BYTES elements")
    array = np.empty(count, object)
    position = 0
    for index in range(count):
        start = position + _LENGTH.size
        if start > len(blob):
            raise BadRequest(f"{name!r}: BYTES data end before element {index}")
        (length,) = _LENGTH.unpack_from(blob, position)
        position = start + length
        if position > len(blob):
            raise BadRequest(f"{name!r}: BYTES element {index} is longer than the data")
        array[index] = bytes(blob[start:position])
    if position != len(blob):
        raise BadRequest(f"{name!r}: {len(blob) - position} bytes after the last BYTES element")
    return array


def _raw_tensor(body: bytes, spec: TensorSpec) -> Tensor:
    datatype = datatype_named(spec.datatype, spec.name)
    if datatype.form is Form.TEXT:
        return Tensor(spec.name, spec.datatype, np.array([body], object))
    if spec.shape.count(-1) > 1:
        raise BadRequest(f"{spec.name!r} has more than one variable dimension: no raw body fits")
    row = prod(dimension for dimension in spec.shape if dimension >= 0) * datatype.dtype.itemsize
    free = len(body) // row if row else 0
    shape = tuple(free if dimension == -1 else dimension for dimension in spec.shape)
    array = _numbers(spec.name, memoryview(body), datatype, prod(shape))
    return Tensor(spec.name, spec.datatype, array.reshape(shape))


def _appending(blobs: list[bytes]) -> Place:
    def place(tensor: Tensor) -> Written:
        blob = _blob(tensor)
        blobs.append(blob)
        parameters = {**tensor.parameters, BINARY_SIZE: len(blob)}
        return Written(tensor.name, tensor.datatype, tensor.shape, parameters)

    return place


def binary_bytes(tensor: Tensor) -> int:
    """What a tensor takes as binary."""
    if tensor.datatype != "BYTES":
        return tensor.data.nbytes
    texts: list[bytes] = tensor.data.ravel().tolist()
    return len(texts) * _LENGTH.size + sum(map(len, texts))


def _blob(tensor: Tensor) -> bytes:
    datatype = datatype_named(tensor.datatype, tensor.name)
    if datatype.form is Form.TEXT:
        flat: list[bytes] = tensor.data.ravel().tolist()
        return b"".join(part for text in flat for part in (_LENGTH.pack(len(text)), text))
    return tensor.data.astype(datatype.dtype, copy=False).tobytes()
