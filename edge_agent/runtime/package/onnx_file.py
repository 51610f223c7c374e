"""The tensors of an ONNX file: which keep their data in other files, and the precision of all.

A walk over the protobuf fields that can hold a tensor; field numbers from ONNX's onnx.proto.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from mmap import mmap

from isochrone.edge_agent.runtime.package.manifest import Precision

_TENSOR = "TensorProto"
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
}
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_PRECISIONS: Mapping[int, Precision] = {
    1: "fp32", 10: "fp16", 16: "bf16", 2: "int8", 3: "int8", 21: "int8", 22: "int8",
}  # fmt: skip
"""By TensorProto.DataType; four bits are named with eight."""
_MAX_DIGITS = 20
_GRAPH, _INPUT = 7, 11
_OPTIONAL_TYPE = 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TAG_BYTES, _TAG_BITS = 5, 32
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class ExternalData:
    """Where a tensor's data are said to be; without a length, up to the end of that file."""

    tensor: str
    location: str
    offset: int
    length: int | None


def has_external_data(data: bytes | mmap) -> bool:
    """Some tensor of the file says that its data are in another file.

    Raises:
        ValueError: this is no protobuf message.
    """
    with memoryview(data) as message:
        return any(map(_is_external, _tensors(message, "ModelProto", 0)))


def with_data_inside(data: bytes, read: Callable[[ExternalData], bytes]) -> bytes:
    """The same file, the data of each such tensor as `read` gives them; nothing else changes.

    Raises:
        ValueError: this is no protobuf message, or does not say where the data are.
    """
    return b"".join(_inside(memoryview(data), "ModelProto", 0, read))


def precision(data: bytes) -> Precision:
    """That of most of the weights.

    Raises:
        ValueError: this is no protobuf message.
    """
    counts: Counter[Precision] = Counter()
    for tensor in _tensors(memoryview(data), "ModelProto", 0):
        kind, count = _kind_and_count(tensor)
        if kind in _PRECISIONS:
            counts[_PRECISIONS[kind]] += count
    return max(counts, key=counts.__getitem__, default="fp32")


def unranked_inputs(data: bytes) -> frozenset[str]:
    """The inputs of the graph whose shape the file does not state: a scalar's is stated, and empty.

    Raises:
        ValueError: this is no protobuf message.
    """
    model = memoryview(data)
    inputs = [one for graph in _parts(model, _GRAPH) for one in _parts(graph, _INPUT)]
    return frozenset(
        str(name, "utf-8")
        for one in inputs
        for name in _parts(one, 1)
        if not any(map(_states_shape, _parts(one, 2)))
    )


def _states_shape(kind: memoryview) -> bool:
    """Of a TypeProto; that of an optional value nests another one."""
    inner = (one for optional in _parts(kind, _OPTIONAL_TYPE) for one in _parts(optional, 1))
    return any(_parts(tensor, 2) for one in (kind, *inner) for tensor in _parts(one, 1))


def _parts(message: memoryview, wanted: int) -> list[memoryview]:
    """The messages and texts in one of the fields."""
    found = raw_fields(message)
    return [one for number, one, _ in found if number == wanted and isinstance(one, memoryview)]


def _tensors(message: memoryview, kind: str, depth: int) -> Iterator[memoryview]:
    if kind == _TENSOR:
        yield message
        return
    for number, value, _ in raw_fields(message):
        child = _child(kind, number, value, depth)
        if child is not None and isinstance(value, memoryview):
            yield from _tensors(value, child, depth + 1)


def _child(kind: str, number: int, value: memoryview | int, depth: int) -> str | None:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    return _CHILDREN[kind].get(number) if isinstance(value, memoryview) else None


def _is_external(tensor: memoryview) -> bool:
    return any(
        number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
        for number, value, _ in raw_fields(tensor)
    )


def _inside(
    message: memoryview, kind: str, depth: int, read: Callable[[ExternalData], bytes]
) -> list[bytes | memoryview]:
    if kind == _TENSOR:
        return _tensor_inside(message, read) if _is_external(message) else [message]
    pieces: list[bytes | memoryview] = []
    for number, value, whole in raw_fields(message):
        child = _child(kind, number, value, depth)
        if child is None or not isinstance(value, memoryview):
            pieces.append(whole)
        else:
            inner = _inside(value, child, depth + 1, read)
            pieces += [head(number, sum(map(len, inner))), *inner]
    return pieces


def _tensor_inside(
    tensor: memoryview, read: Callable[[ExternalData], bytes]
) -> list[bytes | memoryview]:
    dropped = (_EXTERNAL_DATA, _DATA_LOCATION, _RAW_DATA)
    kept = [whole for number, _, whole in raw_fields(tensor) if number not in dropped]
    data = read(_external_data(tensor))
    return [*kept, head(_RAW_DATA, len(data)), data]


def _external_data(tensor: memoryview) -> ExternalData:
    told: dict[str, str] = {}
    name = ""
    for number, value, _ in raw_fields(tensor):
        if isinstance(value, memoryview) and number == _EXTERNAL_DATA:
            entry = {
                key: text for key, text, _ in raw_fields(value) if isinstance(text, memoryview)
            }
            told[str(entry.get(1, b""), "utf-8")] = str(entry.get(2, b""), "utf-8")
        elif isinstance(value, memoryview) and number == _TENSOR_NAME:
            name = str(value, "utf-8")
    if not told.get("location"):
        raise ValueError(f"tensor {name!r} keeps its data in a file that it does not name")
    length = _whole(told["length"]) if "length" in told else None
    return ExternalData(name, told["location"], _whole(told.get("offset", "0")), length)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS):
        raise ValueError(f"{text!r} is no place in a file")
    return int(text)


def _kind_and_count(tensor: memoryview) -> tuple[int, int]:
    kind, sizes = 0, []
    for number, value, _ in raw_fields(tensor):
        if number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _DIMS and isinstance(value, int):
            sizes.append(value)
        elif number == _DIMS and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                size, at = _varint(value, at)
                sizes.append(size)
    return kind, prod(sizes)


def head(number: int, size: int) -> bytes:
    """What stands before `size` bytes of a field."""
    return _number(number << 3 | _BYTES) + _number(size)


def _number(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of a protobuf message.

    Raises:
        ValueError: this is none.
    """
    return ((number, value) for number, value, _ in raw_fields(message))


def raw_fields(message: memoryview) -> Iterator[tuple[int, memoryview | int, memoryview]]:
    """The number of each field, its value, and all its bytes."""
    at = 0
    while at < len(message):
        start = at
        number, wire_type, at = _tag(message, at)
        value, at = _value(message, at, wire_type)
        yield number, value, message[start:at]


def _tag(message: memoryview, at: int) -> tuple[int, int, int]:
    """Field number, wire type and what follows; nothing that another reader may see otherwise."""
    key, end = _varint(message, at)
    if end - at > _TAG_BYTES or key >> _TAG_BITS or not key >> 3:
        raise ValueError(f"field tag {key:#x} does not exist")
    return key >> 3, key & 7, end


def _value(message: memoryview, at: int, wire_type: int) -> tuple[memoryview | int, int]:
    if wire_type == _VARINT:
        return _varint(message, at)
    if wire_type == _BYTES:
        size, at = _varint(message, at)
    elif wire_type in (_FIXED32, _FIXED64):
        size = 4 if wire_type == _FIXED32 else 8
    else:
        raise ValueError(f"wire type {wire_type} does not exist")
    if at + size > len(message):
        raise ValueError("a field is longer than the file")
    return message[at : at + size], at + size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("the file ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than ten bytes")
