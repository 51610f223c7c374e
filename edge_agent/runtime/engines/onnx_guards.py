"""Nodes that keep a caller from ending the process, put into an ONNX graph before it is loaded.

onnxruntime aborts the process, or divides by zero in it, on a few inputs that are valid ONNX: a
recurrent layer over nothing, the least integer divided by -1. A size may become 0 only inside the
graph (a convolution over too short a signal), so the graph itself has to refuse it: an integer
division by 0 is an error that onnxruntime raises. Field numbers are those of ONNX's onnx.proto.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from mmap import mmap

import numpy as np

from isochrone.edge_agent.runtime.engines.onnx_node import (
    INT64,
    Node,
    all_of,
    name_of,
    node_of,
    number_in,
    text_of,
)
from isochrone.edge_agent.runtime.package.onnx_file import head, raw_fields

_MARK = "isochrone.guard"
_FOUND = re.compile(re.escape(_MARK) + r"\.(\w+)")
_GRAPH_OF, _FUNCTION_OF, _OPSETS = 7, 25, 8
_NODE, _INITIALIZER, _INPUT = 1, 5, 11
_NODES_OF_FUNCTION, _INPUTS_OF_FUNCTION, _OPSETS_OF_FUNCTION = 7, 4, 9
_INPUT_OF, _OUTPUT_OF, _NAME_OF, _KIND_OF, _ATTRIBUTE_OF = 1, 2, 3, 4, 5
_FLOATS = frozenset((1, 10, 11, 16))
_INT32, _BOOL = 6, 9
_WITH_SHAPE_RANGE, _WITH_WHERE = 15, 9
"""The first opsets in which Shape takes a range, and in which Where is."""
_RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
_COUNTS = frozenset(("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression"))
_TRUTHS = re.compile("Equal|Greater.*|Less.*|Not|And|Or|Xor|Is(NaN|Inf)")
_LIKE_FIRST = frozenset(("Pow", "Resize", "Identity"))
_INDICES_AFTER_FIRST = frozenset(("TopK", "Unique", "MaxPool"))
_WITHOUT_VALUES = frozenset(("Shape", "Size"))
_MINUS_ONE = b"\xff" * 9 + b"\x01"
"""As protobuf writes it among packed numbers."""
_INT_ATTRIBUTE = bytes((20 << 3 & 0x7F | 0x80, 20 << 3 >> 7, 2))
"""AttributeProto.type: INT."""
Pieces = list[bytes | memoryview]


@dataclass(slots=True)
class _Scope:
    """Of the names that a graph knows: types, as in TensorProto.DataType; which depend on values
    of inputs; and which are constant, with whether a constant holds -1."""

    opset: int
    types: dict[str, int] = field(default_factory=dict)
    valued: set[str] = field(default_factory=set)
    constants: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Guard:
    """Nodes before and after one, its new inputs by place, and the new name of its output."""

    before: Sequence[Pieces] = ()
    inputs: Mapping[int, str] = field(default_factory=dict)
    output: str = ""
    after: Sequence[Pieces] = ()


_NO_GUARD = _Guard()
_NO_NUMBERS: Mapping[str, int] = {}


def guarded(data: bytes | mmap) -> bytes | None:
    """The same file with such nodes; None where it needs none.

    Raises:
        ValueError: this is no ONNX file.
    """
    guards = _Guards()
    pieces = guards.model(memoryview(data))
    return b"".join(pieces) if guards.count else None


def refused_by(error: Exception) -> str | None:
    """The kind of node whose guard raised an error of onnxruntime; None where none did."""
    found = _FOUND.search(str(error))
    return found[1] if found else None


class _Guards:
    """Puts guards into one file; `count` is how many."""

    def __init__(self) -> None:
        self.count = 0

    def model(self, message: memoryview) -> Pieces:
        opset = _opset(message, _OPSETS)
        pieces: Pieces = []
        for number, value, whole in raw_fields(message):
            if number == _GRAPH_OF and isinstance(value, memoryview):
                pieces += _framed(number, self._graph(value, _Scope(opset)))
            elif number == _FUNCTION_OF and isinstance(value, memoryview):
                pieces += _framed(number, self._function(value))
            else:
                pieces.append(whole)
        return pieces

    def _function(self, message: memoryview) -> Pieces:
        names = {text_of(value) for value in all_of(message, _INPUTS_OF_FUNCTION)}
        scope = _Scope(_opset(message, _OPSETS_OF_FUNCTION), valued=names)
        return self._nodes(message, _NODES_OF_FUNCTION, scope)

    def _graph(self, message: memoryview, outer: _Scope) -> Pieces:
        scope = _Scope(outer.opset, {**outer.types}, {*outer.valued}, {**outer.constants})
        for value in all_of(message, _INPUT):
            name = name_of(value, 1)
            scope.valued.add(name)
            scope.constants.pop(name, None)
            scope.types[name] = _type_of_input(value)
        for value in all_of(message, _INITIALIZER):
            name = name_of(value, 8)
            scope.valued.discard(name)
            scope.types[name] = number_in(value, 2)
            scope.constants[name] = _holds_minus_one(value)
        return self._nodes(message, _NODE, scope)

    def _nodes(self, message: memoryview, field_number: int, scope: _Scope) -> Pieces:
        pieces: Pieces = []
        for number, value, whole in raw_fields(message):
            if number != field_number or not isinstance(value, memoryview):
                pieces.append(whole)
                continue
            node, before = node_of(value), self.count
            guard = self._guard(node, scope)
            changed = self._changed(value, guard, scope)
            if self.count == before:
                pieces.append(whole)
            else:
                for one in (*guard.before, changed, *guard.after):
                    pieces += _framed(number, one)
            _learn(node, scope)
        return pieces

    def _changed(self, node: memoryview, guard: _Guard, scope: _Scope) -> Pieces:
        """A node with guards in the graphs that it holds, and with other inputs and outputs."""
        pieces: Pieces = []
        index = 0
        for number, value, whole in raw_fields(node):
            if number == _ATTRIBUTE_OF and isinstance(value, memoryview):
                pieces += _framed(number, self._attribute(value, scope))
            elif number == _INPUT_OF:
                name = guard.inputs.get(index)
                pieces += [whole] if name is None else _framed(number, [name.encode()])
                index += 1
            elif number == _OUTPUT_OF and guard.output:
                pieces += _framed(number, [guard.output.encode()])
            else:
                pieces.append(whole)
        return pieces

    def _attribute(self, message: memoryview, scope: _Scope) -> Pieces:
        pieces: Pieces = []
        for number, value, whole in raw_fields(message):
            if number in (6, 11) and isinstance(value, memoryview):
                pieces += _framed(number, self._graph(value, scope))
            else:
                pieces.append(whole)
        return pieces

    def _guard(self, node: Node, scope: _Scope) -> _Guard:
        if node.kind in _RECURRENT:
            return self._of_size(node, 0, {})
        if node.kind == "ConvTranspose" and len(node.numbers.get("kernel_shape", ())) not in (1, 2):
            ranged = {"start": 2} if scope.opset >= _WITH_SHAPE_RANGE else {}
            return self._of_size(node, 0, ranged)
        if node.kind == "Attention" and not node.domain and "kv_num_heads" not in node.numbers:
            return self._of_size(node, 1, {"start": 1, "end": 2})
        if node.kind == "STFT" and node.given(3):
            return self._of_value(node, 3)
        if node.kind in ("Div", "Mod") and _may_overflow(node, scope):
            return self._of_division(node)
        return _NO_GUARD

    def _name(self, node: Node) -> Callable[[str], str]:
        self.count += 1
        stem = f"{_MARK}.{node.kind}.{self.count}"
        return lambda what: f"{stem}.{what}"

    def _of_size(self, node: Node, index: int, ranged: Mapping[str, int]) -> _Guard:
        """An input as it is, unless one of its sizes, or of those in a range of axes, is 0."""
        name, given = self._name(node), node.given(index)
        shape, checked, ones, same, out = map(name, ("shape", "checked", "ones", "same", "out"))
        before = [
            _made("Shape", [given], checked, ranged),
            _made("Div", [checked, checked], ones),
        ]
        if ranged:  # a product of ones, for all sizes
            one = name("one")
            before += [
                _made("ReduceProd", [ones], one, {"keepdims": 0}),
                _made("Shape", [given], shape),
            ]
            ones = one
        else:
            shape = checked
        before += [_made("Mul", [shape, ones], same), _made("Reshape", [given, same], out)]
        return _Guard(before, {index: out})

    def _of_value(self, node: Node, index: int) -> _Guard:
        """An integer as it is, unless it is 0."""
        name, given = self._name(node), node.given(index)
        one, out = name("one"), name("out")
        before = [_made("Div", [given, given], one), _made("Mul", [given, one], out)]
        return _Guard(before, {index: out})

    def _of_division(self, node: Node) -> _Guard:
        """Divide by 1 instead of by -1, and change the sign; what overflows stays what it was."""
        name, divisor = self._name(node), node.given(1)
        one, zero, minus, found, safe, plain, turned = map(
            name, ("one", "zero", "minus", "found", "safe", "plain", "turned")
        )
        before = [
            _made("Div", [divisor, divisor], one),
            _made("Sub", [divisor, divisor], zero),
            _made("Sub", [zero, one], minus),
            _made("Equal", [divisor, minus], found),
            _made("Where", [found, one, divisor], safe),
        ]
        if node.kind == "Mod":
            return _Guard(before, {1: safe})
        after = [
            _made("Sub", [zero, plain], turned),
            _made("Where", [found, turned, plain], node.outputs[0]),
        ]
        return _Guard(before, {1: safe}, plain, after)


def _may_overflow(node: Node, scope: _Scope) -> bool:
    """Its dividend may be the least integer, and its divisor -1, if a caller says so."""
    dividend, divisor = node.given(0), node.given(1)
    kind = scope.types.get(dividend) or scope.types.get(divisor) or 0
    is_whole = kind in (0, _INT32, INT64) and not node.domain
    overflows = dividend in scope.valued and scope.constants.get(divisor, True)
    return is_whole and overflows and scope.opset >= _WITH_WHERE


def _learn(node: Node, scope: _Scope) -> None:
    """Of its outputs."""
    for index, name in enumerate(node.outputs):
        scope.types[name] = _type_of_output(node, index, scope)
        scope.constants.pop(name, None)
        if node.kind == "Constant":
            scope.constants[name] = (
                any(-1 in numbers for numbers in node.numbers.values())
                if node.tensor is None
                else _holds_minus_one(node.tensor)
            )
    if node.kind not in _WITHOUT_VALUES and (
        node.graphs or not scope.valued.isdisjoint(node.inputs)
    ):
        scope.valued.update(node.outputs)


def _type_of_output(node: Node, index: int, scope: _Scope) -> int:
    """0 where it is not known. An operator with a float input gives floats, if not told here."""
    kinds = [scope.types.get(name, 0) for name in node.inputs]
    if node.kind in _COUNTS or (index and node.kind in _INDICES_AFTER_FIRST):
        return INT64
    if _TRUTHS.fullmatch(node.kind):
        return _BOOL
    if node.kind == "Cast":
        return next(iter(node.numbers.get("to", ())), 0)
    if node.kind == "CastLike":
        return kinds[1]
    if node.kind in ("Constant", "ConstantOfShape"):
        return number_in(node.tensor, 2) if node.tensor is not None else _type_of_value(node)
    if node.graphs:
        return 0
    if node.kind in _LIKE_FIRST:
        return kinds[0]
    floats = [kind for kind in kinds if kind in _FLOATS]
    wholes = [kind for kind in kinds if kind in (_INT32, INT64)]
    return next(iter([*floats, *wholes, *kinds]), 0)


def _type_of_value(node: Node) -> int:
    is_whole = not {"value_int", "value_ints"}.isdisjoint(node.numbers)
    return INT64 if is_whole else min(_FLOATS)


def _made(
    kind: str, inputs: Sequence[str], output: str, numbers: Mapping[str, int] = _NO_NUMBERS
) -> Pieces:
    """A NodeProto, named as its output."""
    pieces: Pieces = []
    for number, texts in (
        (_INPUT_OF, inputs), (_OUTPUT_OF, [output]), (_NAME_OF, [output]), (_KIND_OF, [kind]),
    ):  # fmt: skip
        for text in texts:
            pieces += _framed(number, [text.encode()])
    for name, value in numbers.items():
        attribute = [*_framed(1, [name.encode()]), bytes((3 << 3, value)), _INT_ATTRIBUTE]
        pieces += _framed(_ATTRIBUTE_OF, attribute)
    return pieces


def _framed(number: int, inner: Pieces) -> Pieces:
    return [head(number, sum(map(len, inner))), *inner]


def _holds_minus_one(tensor: memoryview) -> bool:
    """Or it is not known that it does not."""
    kind = number_in(tensor, 2)
    if kind not in (_INT32, INT64):
        return False
    for number, value, _ in raw_fields(tensor):
        if number in (5, 7) and value == (1 << 64) - 1:
            return True
        if number in (5, 7) and isinstance(value, memoryview) and _MINUS_ONE in bytes(value):
            return True
        if number == 9 and isinstance(value, memoryview):
            return bool((np.frombuffer(value, "<i4" if kind == _INT32 else "<i8") == -1).any())
    return False


def _type_of_input(message: memoryview) -> int:
    for kind in all_of(message, 2):
        for tensor in all_of(kind, 1):
            return number_in(tensor, 1)
    return 0


def _opset(message: memoryview, field_number: int) -> int:
    """Of ONNX's own operators; 1 where the file does not say."""
    versions = [
        number_in(one, 2)
        for one in all_of(message, field_number)
        if name_of(one, 1) in ("", "ai.onnx")
    ]
    return max(versions, default=1)
