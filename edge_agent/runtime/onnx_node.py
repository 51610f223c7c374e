"""Nodes of an ONNX file, as far as a walk over them needs it; numbers from ONNX's onnx.proto."""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.runtime.onnx_file import fields

_INT64 = 7


@dataclass(frozen=True, slots=True)
class Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]]
    """Attributes that are whole numbers."""
    equation: str
    """Of an Einsum."""
    constant: tuple[int, ...] | None
    constant_sizes: tuple[int, ...] | None
    """Of a Constant that holds a tensor."""
    graphs: tuple[memoryview, ...]


def node_of(message: memoryview | int) -> Node:
    parts = list(fields(message)) if isinstance(message, memoryview) else []
    kind = next((text_of(value) for number, value in parts if number == 4), "")
    read = [_attribute(value) for number, value in parts if number == 5]
    numbers = {one.name: one.whole for one in read}
    tensor = next((one.tensor for one in read if one.tensor is not None), None)
    constant, sizes = None, None
    if kind == "Constant":
        constant = numbers_of(tensor) if tensor is not None else next(iter(numbers.values()), None)
        sizes = sizes_of(tensor) if tensor is not None else None
    return Node(
        kind,
        tuple(text_of(value) for number, value in parts if number == 1),
        tuple(text_of(value) for number, value in parts if number == 2),
        numbers,
        next((one.text for one in read if one.name == "equation"), ""),
        constant,
        sizes,
        tuple(graph for one in read for graph in one.graphs),
    )


@dataclass(slots=True)
class _Attribute:
    name: str = ""
    whole: tuple[int, ...] = ()
    text: str = ""
    tensor: memoryview | None = None
    graphs: tuple[memoryview, ...] = ()


def _attribute(message: memoryview | int) -> _Attribute:
    read = _Attribute()
    for number, value in fields(message) if isinstance(message, memoryview) else ():
        if number in (3, 8):
            read.whole += tuple(_whole(value))
        elif number == 1:
            read.name = text_of(value)
        elif number == 4:
            read.text = text_of(value)
        elif isinstance(value, memoryview) and number == 5:
            read.tensor = value
        elif isinstance(value, memoryview) and number in (6, 11):
            read.graphs += (value,)
    return read


def sizes_of(tensor: memoryview) -> tuple[int, ...]:
    """The dimensions of a tensor."""
    return tuple(size for number, value in fields(tensor) if number == 1 for size in _whole(value))


def numbers_of(tensor: memoryview) -> tuple[int, ...] | None:
    """What a small tensor of 64-bit numbers holds; None of any other."""
    held: list[int] = []
    kind = None
    for number, value in fields(tensor):
        if number == 2:
            kind = value
        elif number == 7:
            held += _whole(value)
        elif number == 9 and isinstance(value, memoryview) and len(value) <= 256:
            starts = range(0, len(value) - 7, 8)
            held += [int.from_bytes(value[at : at + 8], "little", signed=True) for at in starts]
    return tuple(held) if kind == _INT64 else None


def _whole(value: memoryview | int) -> list[int]:
    return [_signed(value)] if isinstance(value, int) else _packed(value)


def _packed(message: memoryview) -> list[int]:
    numbers = []
    value = shift = 0
    for byte in message[:256]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(_signed(value))
            value = shift = 0
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def name_of(message: memoryview, number: int) -> str:
    return next((text_of(value) for found, value in fields(message) if found == number), "")


def text_of(value: memoryview | int) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""
