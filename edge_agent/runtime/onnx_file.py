"""Whether an ONNX file keeps weights outside itself, where no digest covers them.

A walk over the protobuf fields that can hold a tensor; field numbers from ONNX's onnx.proto.
"""

from collections.abc import Iterator, Mapping
from mmap import mmap

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
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TAG_BYTES, _TAG_BITS = 5, 32
_MAX_DEPTH = 64


def has_external_data(data: bytes | mmap) -> bool:
    """Some tensor of the file says that its data are in another file.

    Raises:
        ValueError: this is no protobuf message.
    """
    with memoryview(data) as message:
        return _external(message, "ModelProto", 0)


def _external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    if kind == _TENSOR:
        return any(
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            for number, value in _fields(message)
        )
    children = _CHILDREN[kind]
    return any(
        isinstance(value, memoryview) and _external(value, children[number], depth + 1)
        for number, value in _fields(message)
        if number in children
    )


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    at = 0
    while at < len(message):
        number, wire_type, at = _tag(message, at)
        value, at = _value(message, at, wire_type)
        yield number, value


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
