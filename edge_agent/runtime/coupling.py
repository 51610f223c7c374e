"""Nodes of an ONNX file that make one row's answer depend on another's, told without running it.

What is found here is never run with other callers' rows. What is not found may depend all the same:
`row_proof` finds that out by running it. Field numbers are those of ONNX's onnx.proto.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from mmap import mmap

from edge_agent.runtime.onnx_file import fields

_ALWAYS = re.compile(
    "DynamicQuantize.*|MatMulIntegerToFloat|QAttention|QOrderedAttention|Random.*|Multinomial"
    "|Bernoulli|.+Dropout"
)
"""Scales that are taken from all that is in a run, and chance."""
_OF_VALUES = re.compile("Loop|Unique|NonZero|Compress")
"""How long they run, or what they give, depends on all values."""
_REDUCES = re.compile("Reduce.+")
_FROM_0 = re.compile("ArgMax|ArgMin|MeanVarianceNormalization")
_ALONG_LAST = re.compile("(Log)?Softmax|Hardmax|TopK|LpNormalization|LayerNormalization|CumSum")
"""By what is done where no axes are given: all, the first, or not the first."""
_WITHOUT_VALUES = frozenset(("Shape", "Size"))
_INT64 = 7


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]]
    """Attributes that are whole numbers."""
    constant: tuple[int, ...] | None
    graphs: tuple[memoryview, ...]


@dataclass(slots=True)
class _Scope:
    """Of the names that a graph knows: which depend on values of inputs, and which are constant."""

    valued: set[str] = field(default_factory=set)
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)


def coupled_by(data: bytes | mmap) -> str | None:
    """The kind of the first node found that couples rows, with what makes it do so.

    Raises:
        ValueError: this is no ONNX file.
    """
    with memoryview(data) as message:
        return next(_in_model(message), None)


def _in_model(message: memoryview) -> Iterator[str]:
    for number, value in fields(message):
        if isinstance(value, memoryview):
            if number == 7:
                yield from _in_graph(value, _Scope())
            elif number == 25:
                yield from _in_function(value)


def _in_function(message: memoryview) -> Iterator[str]:
    parts = list(fields(message))
    scope = _Scope({_text(value) for number, value in parts if number == 4})
    yield from _in_nodes([value for number, value in parts if number == 7], scope)


def _in_graph(message: memoryview, outer: _Scope) -> Iterator[str]:
    scope = _Scope(set(outer.valued), dict(outer.constants))
    parts = list(fields(message))
    for number, value in parts:
        if number == 11 and isinstance(value, memoryview):
            scope.valued.add(_name(value, 1))
    for number, value in parts:
        if number == 5 and isinstance(value, memoryview):
            name = _name(value, 8)
            scope.valued.discard(name)
            numbers = _numbers(value)
            if numbers is not None:
                scope.constants[name] = numbers
    yield from _in_nodes([value for number, value in parts if number == 1], scope)


def _in_nodes(messages: Sequence[memoryview | int], scope: _Scope) -> Iterator[str]:
    for message in messages:
        node = _node(message)
        if node.constant is not None:
            scope.constants.update(dict.fromkeys(node.outputs, node.constant))
        reason = _reason(node, scope)
        if reason is not None:
            yield reason
        for graph in node.graphs:
            yield from _in_graph(graph, scope)
        if node.kind not in _WITHOUT_VALUES and (
            node.graphs or not scope.valued.isdisjoint(node.inputs)
        ):
            scope.valued.update(node.outputs)


def _reason(node: _Node, scope: _Scope) -> str | None:
    if _ALWAYS.fullmatch(node.kind):
        return node.kind
    if node.numbers.get("training_mode", (0,)) != (0,):
        return f"{node.kind} in training mode"
    if scope.valued.isdisjoint(node.inputs):
        return None
    if _OF_VALUES.fullmatch(node.kind) or (node.kind == "If" and node.inputs[0] in scope.valued):
        return f"{node.kind} of values"
    axes = _axes(node, scope)
    if axes is not None and (0 in axes or not axes):
        return f"{node.kind} {'over axis 0' if axes else 'over all axes'}"
    return None


def _axes(node: _Node, scope: _Scope) -> tuple[int, ...] | None:
    """The axes along which it works, none for all of them; None where that is not known."""
    reduces = _REDUCES.fullmatch(node.kind) is not None
    if reduces:
        default: tuple[int, ...] = ()
    elif _FROM_0.fullmatch(node.kind):
        default = (0,)
    elif _ALONG_LAST.fullmatch(node.kind):
        default = (-1,)
    else:
        return None
    if node.numbers.get("noop_with_empty_axes", (0,)) != (0,):
        default = (-1,)
    given = node.numbers.get("axes", node.numbers.get("axis"))
    if given is None and (reduces or node.kind == "CumSum") and node.inputs[1:] not in ((), ("",)):
        given = scope.constants.get(node.inputs[1], (-1,))  # else: told by running it
    return given or default


def _node(message: memoryview | int) -> _Node:
    parts = list(fields(message)) if isinstance(message, memoryview) else []
    numbers: dict[str, tuple[int, ...]] = {}
    graphs: list[memoryview] = []
    constant = None
    for attribute in (value for number, value in parts if number == 5):
        if isinstance(attribute, memoryview):
            name, whole, tensor, inner = _attribute(attribute)
            numbers[name] = whole
            graphs += inner
            constant = tensor if tensor is not None else constant
    kind = next((_text(value) for number, value in parts if number == 4), "")
    if kind == "Constant" and constant is None:
        constant = next(iter(numbers.values()), None)
    return _Node(
        kind,
        tuple(_text(value) for number, value in parts if number == 1),
        tuple(_text(value) for number, value in parts if number == 2),
        numbers,
        constant if kind == "Constant" else None,
        tuple(graphs),
    )


def _attribute(
    message: memoryview,
) -> tuple[str, tuple[int, ...], tuple[int, ...] | None, list[memoryview]]:
    """Name, whole numbers, those of a tensor, and graphs."""
    whole: list[int] = []
    tensor = None
    graphs = []
    for number, value in fields(message):
        if number in (3, 8):
            whole += [_signed(value)] if isinstance(value, int) else _packed(value)
        elif isinstance(value, memoryview) and number == 5:
            tensor = _numbers(value)
        elif isinstance(value, memoryview) and number in (6, 11):
            graphs.append(value)
    return _name(message, 1), tuple(whole), tensor, graphs


def _numbers(tensor: memoryview) -> tuple[int, ...] | None:
    """What a small tensor of 64-bit numbers holds; None of any other."""
    held: list[int] = []
    kind = None
    for number, value in fields(tensor):
        if number == 2:
            kind = value
        elif number == 7:
            held += [_signed(value)] if isinstance(value, int) else _packed(value)
        elif number == 9 and isinstance(value, memoryview) and len(value) <= 256:
            starts = range(0, len(value) - 7, 8)
            held += [int.from_bytes(value[at : at + 8], "little", signed=True) for at in starts]
    return tuple(held) if kind == _INT64 else None


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


def _name(message: memoryview, number: int) -> str:
    return next((_text(value) for found, value in fields(message) if found == number), "")


def _text(value: memoryview | int) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""
