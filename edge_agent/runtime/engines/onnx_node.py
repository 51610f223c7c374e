"""Nodes of an ONNX file, as far as a walk over them needs it; numbers from ONNX's onnx.proto."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isochrone.edge_agent.runtime.package.onnx_file import fields

INT64 = 7
"""Of TensorProto.DataType."""
_SMALL_BYTES = 256


@dataclass(frozen=True, slots=True)
class Node:
    kind: str
    domain: str
    """Empty for ONNX's own."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]]
    """Attributes that are whole numbers."""
    equation: str
    """Of an Einsum."""
    tensor: memoryview | None
    """That an attribute holds."""
    graphs: tuple[memoryview, ...]

    def given(self, index: int) -> str:
        """An input's name; none where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


def node_of(message: memoryview) -> Node:
    read = [_attribute(attribute) for attribute in all_of(message, 5)]
    return Node(
        name_of(message, 4),
        name_of(message, 7).replace("ai.onnx", ""),
        tuple(map(text_of, all_of(message, 1))),
        tuple(map(text_of, all_of(message, 2))),
        {one.name: one.whole for one in read},
        next((one.text for one in read if one.name == "equation"), ""),
        next((one.tensor for one in read if one.tensor is not None), None),
        tuple(graph for one in read for graph in one.graphs),
    )


@dataclass(slots=True)
class _Attribute:
    name: str = ""
    whole: tuple[int, ...] = ()
    text: str = ""
    tensor: memoryview | None = None
    graphs: tuple[memoryview, ...] = ()


def _attribute(message: memoryview) -> _Attribute:
    read = _Attribute()
    for number, value in fields(message):
        if number in (3, 8):
            read.whole += tuple(_whole(value))
        elif isinstance(value, int):
            continue
        elif number == 1:
            read.name = text_of(value)
        elif number == 4:
            read.text = text_of(value)
        elif number == 5:
            read.tensor = value
        elif number in (6, 11):
            read.graphs += (value,)
    return read


def sizes_of(tensor: memoryview) -> tuple[int, ...]:
    """The dimensions of a tensor."""
    return tuple(size for number, value in fields(tensor) if number == 1 for size in _whole(value))


def numbers_of(tensor: memoryview) -> tuple[int, ...] | None:
    """What a small tensor of 64-bit numbers holds; None of any other."""
    held: list[int] = []
    for number, value in fields(tensor):
        if isinstance(value, memoryview) and number in (7, 9) and len(value) > _SMALL_BYTES:
            return None
        if number == 7:
            held += _whole(value)
        elif number == 9 and isinstance(value, memoryview):
            starts = range(0, len(value) - 7, 8)
            held += [int.from_bytes(value[at : at + 8], "little", signed=True) for at in starts]
    return tuple(held) if number_in(tensor, 2) == INT64 else None


def _whole(value: memoryview | int) -> list[int]:
    return [_signed(value)] if isinstance(value, int) else _packed(value)


def _packed(message: memoryview) -> list[int]:
    numbers = []
    value = shift = 0
    for byte in message:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(_signed(value))
            value = shift = 0
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def all_of(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The messages and texts in one of the fields."""
    for number, value in fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def number_in(message: memoryview, wanted: int) -> int:
    """0 where that field is not there."""
    found = (value for number, value in fields(message) if number == wanted)
    return next((value for value in found if isinstance(value, int)), 0)


def name_of(message: memoryview, wanted: int) -> str:
    """The text of that field; none where it is not there."""
    return next(map(text_of, all_of(message, wanted)), "")


def text_of(value: memoryview) -> str:
    return str(value, "utf-8", "replace")
