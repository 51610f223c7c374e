"""A tensor's data as JSON: read and written a step at a time.

A Python object for each element takes up to thirty times what the element takes as text or in an
array. So what the text holds is compared with the shape first, and only the elements of one step
are ever objects. The text is known to be JSON: the message that it stood in was read before.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from isochrone.router.errors import BadRequest
from isochrone.router.wire.tensor import DATATYPES, Array, Datatype, Form, Tensor

STEP_BYTES = 64 << 10
STEP_ELEMENTS = 4096
_COMMA = re.compile(rb",")
_NESTED = re.compile(rb"\s*\[\s*\[")
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
"""Possessive: nothing is kept to go back to, however many escapes there are."""
_ESCAPED_BYTES = 6
"""Of a control character."""
_WIDEST_BYTES = {
    (Form.BOOL, 1): 6,
    (Form.INT, 1): 5,
    (Form.INT, 2): 7,
    (Form.INT, 4): 12,
    (Form.INT, 8): 21,
    (Form.FLOAT, 4): 25,  # which is written as the FP64 that it is
    (Form.FLOAT, 8): 25,
    (Form.NONE, 2): 0,
}
"""An element and its comma."""
_SPACE = b" \t\r\n"
_NO_STRUCTURE = bytes(set(range(256)) - set(b"[],"))
_FLAT = bytes.maketrans(b"[]", b"  ")
_encode = msgspec.json.Encoder().encode


def decode_data(
    text: bytes | memoryview, datatype: Datatype, shape: Sequence[int], name: str
) -> Array:
    """The data of the tensor called `name`, flat; nested as its shape, or not at all.

    Raises:
        BadRequest: they do not fit the shape, or an element is none of this datatype.
    """
    if datatype.form is Form.NONE:
        raise BadRequest(f"{name!r}: {datatype.name} has no JSON form; send it as binary")
    count = prod(shape)
    nested = len(shape) > 1 and _NESTED.match(text) is not None
    form = tuple(shape) if nested else (count,)
    if len(text) <= STEP_BYTES:
        lists = _decoded(text, datatype, len(form), name)
        return _converted(_flat(lists, form, name, shape), datatype, name)
    brackets = _brackets(form, len(text))
    if brackets is None:
        raise _misfit(name, shape)
    array = np.empty(count, datatype.dtype)
    steps = _texts if datatype.form is Form.TEXT else _numbers
    seen = filled = 0
    for structure, values in steps(text, datatype, name):
        if brackets[seen : seen + len(structure)] != structure or filled + len(values) > count:
            raise _misfit(name, shape)
        array[filled : filled + len(values)] = values
        seen += len(structure)
        filled += len(values)
    if seen != len(brackets) or filled != count:
        raise _misfit(name, shape)
    return array


def encode_data(tensor: Tensor, form: Form) -> list[Any] | msgspec.Raw:
    """Data in row-major order, flat.

    Raises:
        BadRequest: JSON cannot carry them (NaN, infinity, FP16, BF16, bytes that are not UTF-8).
    """
    if form is Form.NONE:
        raise _binary_only(tensor, f"{tensor.datatype} values")
    if form is Form.FLOAT and not np.isfinite(tensor.data).all():
        raise _binary_only(tensor, "NaN or infinity")
    flat = tensor.data.ravel()
    if flat.size <= STEP_ELEMENTS:
        return _scalars(tensor, flat, form)
    starts = range(0, flat.size, STEP_ELEMENTS)
    steps = (_scalars(tensor, flat[start : start + STEP_ELEMENTS], form) for start in starts)
    return msgspec.Raw(b"[%b]" % b",".join([_encode(step)[1:-1] for step in steps]))


def json_bytes(tensor: Tensor) -> int:
    """What a tensor takes as JSON, at most."""
    datatype = DATATYPES[tensor.datatype]
    if datatype.form is not Form.TEXT:
        return tensor.data.size * _WIDEST_BYTES[datatype.form, datatype.dtype.itemsize]
    texts: list[bytes] = tensor.data.ravel().tolist()
    return len(texts) * 3 + sum(map(len, texts)) * _ESCAPED_BYTES


def _flat(values: list[Any], form: Sequence[int], name: str, shape: Sequence[int]) -> list[Any]:
    level: list[Any] = [values]
    for size in form:
        if any(len(row) != size for row in level):
            raise _misfit(name, shape)
        level = list(chain.from_iterable(level))
    return level


def _misfit(name: str, shape: Sequence[int]) -> BadRequest:
    return BadRequest(f"{name!r}: data do not fit shape {list(shape)}")


def _brackets(shape: Sequence[int], most_bytes: int) -> bytes | None:
    """All brackets and commas of lists of this shape; None where that is more than `most_bytes`."""
    if 0 in shape:  # inside a list without elements nothing can stand
        shape = shape[: shape.index(0) + 1]
    lists, size_bytes = 1, 0
    for size in shape:
        size_bytes += lists * (2 + max(0, size - 1))
        lists *= size
    if size_bytes > most_bytes:
        return None
    inner = b""
    for size in reversed(shape):
        inner = b"[%b]" % ((inner + b",") * (size - 1) + inner if size else b"")
    return inner


def _numbers(
    text: bytes | memoryview, datatype: Datatype, name: str
) -> Iterator[tuple[bytes, Array]]:
    """Of each step its brackets and commas, and its elements."""
    at, end = 0, len(text)
    while at < end:
        comma = _COMMA.search(text, at + STEP_BYTES)
        until = end if comma is None else comma.start()
        step = bytes(text[at:until])
        structure = step.translate(None, _NO_STRUCTURE)
        flat = step.translate(_FLAT)
        if comma is not None:
            structure += b","
        if not flat.strip(b"," + _SPACE):  # lists without elements
            flat = b""
        values = _decoded(b"[%b]" % flat, datatype, 1, name)
        yield structure, _converted(values, datatype, name)
        at = until + 1


def _texts(
    text: bytes | memoryview, datatype: Datatype, name: str
) -> Iterator[tuple[bytes, Array]]:
    """As `_numbers`."""
    found: list[bytes] = []
    structure: list[bytes] = []
    at = 0
    for match in _TEXT.finditer(text):
        structure.append(bytes(text[at : match.start()]).translate(None, _SPACE))
        found.append(match[0])
        at = match.end()
        if len(found) == STEP_ELEMENTS:
            yield b"".join(structure), _converted(_joined(found, datatype, name), datatype, name)
            found, structure = [], []
    structure.append(bytes(text[at:]).translate(None, _SPACE))
    yield b"".join(structure), _converted(_joined(found, datatype, name), datatype, name)


def _joined(texts: Sequence[bytes], datatype: Datatype, name: str) -> list[Any]:
    return _decoded(b"[%b]" % b",".join(texts), datatype, 1, name)


def _decoded(text: bytes | memoryview, datatype: Datatype, rank: int, name: str) -> list[Any]:
    try:
        return _decoder(datatype, rank).decode(text)
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise BadRequest(f"{name!r}: data: {error}") from error


def _converted(flat: list[Any], datatype: Datatype, name: str) -> Array:
    if datatype.form is Form.TEXT:
        array = np.empty(len(flat), object)
        array[:] = [text.encode() for text in flat]
        return array
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, datatype.dtype)
    except OverflowError:  # above what UINT64 holds
        raise BadRequest(f"{name!r}: data hold a number outside {datatype.name}") from None
    if datatype.name == "FP32" and not np.isfinite(array).all():
        raise BadRequest(f"{name!r}: data hold a number outside FP32")
    return array


@lru_cache(maxsize=256)
def _decoder(datatype: Datatype, rank: int) -> msgspec.json.Decoder[list[Any]]:
    """Reads `rank` nested lists of the datatype's elements, each checked against its range."""
    kind: Any = _element(datatype)
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


def _scalars(tensor: Tensor, flat: Array, form: Form) -> list[Any]:
    elements: list[Any] = flat.tolist()
    if form is not Form.TEXT:
        return elements
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError:
        raise _binary_only(tensor, "bytes that are not UTF-8") from None


def _binary_only(tensor: Tensor, what: str) -> BadRequest:
    return BadRequest(
        f"{tensor.name!r} holds {what}, which JSON cannot carry; ask for binary_data: true"
    )
