"""Nodes of an ONNX file that make one row's answer depend on another's, told without running it.

What is found here is never run with other callers' rows. What is not found may depend all the same:
`row_proof` finds that out by running it. Field numbers are those of ONNX's onnx.proto.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from mmap import mmap

from isochrone.edge_agent.runtime.engines.onnx_node import (
    Node,
    all_of,
    name_of,
    node_of,
    numbers_of,
    sizes_of,
    text_of,
)
from isochrone.edge_agent.runtime.loading.row_axes import (
    NOT_KNOWN,
    RowAxes,
    axes_of,
    carried,
    mixes_rows,
)
from isochrone.edge_agent.runtime.package.onnx_file import fields

_ALWAYS = re.compile(
    "DynamicQuantize.*|MatMulIntegerToFloat|QAttention|QOrderedAttention|Random.*|Multinomial"
    "|Bernoulli|.+Dropout"
)
"""Scales that are taken from all that is in a run, and chance."""
_OF_VALUES = re.compile("Loop|Unique|NonZero|Compress")
"""How long they run, or what they give, depends on all values."""
_WITHOUT_VALUES = frozenset(("Shape", "Size"))


@dataclass(slots=True)
class _Scope:
    """Of the names that a graph knows: which depend on values of inputs, which are constant, and
    which hold rows."""

    valued: set[str] = field(default_factory=set)
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: dict[str, RowAxes] = field(default_factory=dict)

    def held(self, node: Node) -> list[RowAxes]:
        return [self.rows.get(name, NOT_KNOWN) for name in node.inputs]

    def holds(
        self, name: str, numbers: tuple[int, ...] | None, sizes: tuple[int, ...] | None
    ) -> None:
        """A constant."""
        if numbers is not None:
            self.constants[name] = numbers
        self.rows[name] = NOT_KNOWN if sizes is None else RowAxes(len(sizes), sizes=sizes)


def coupled_by(data: bytes | mmap) -> str | None:
    """The kind of the first node found that couples rows, with what makes it do so.

    Raises:
        ValueError: this is no ONNX file.
    """
    with memoryview(data) as message:
        return next(_in_model(message), None)


def _in_model(message: memoryview) -> Iterator[str]:
    for graph in all_of(message, 7):
        yield from _in_graph(graph, _Scope(), is_whole=True)
    for function in all_of(message, 25):
        inputs = set(map(text_of, all_of(function, 4)))
        yield from _in_nodes(all_of(function, 7), _Scope(inputs))


def _in_graph(message: memoryview, outer: _Scope, *, is_whole: bool = False) -> Iterator[str]:
    """The first axis of each input of a whole graph holds rows."""
    scope = _Scope(set(outer.valued), dict(outer.constants), dict(outer.rows))
    for value in all_of(message, 11):
        name = name_of(value, 1)
        scope.valued.add(name)
        rank = _rank(value) if is_whole else 0
        scope.rows[name] = RowAxes(rank, frozenset({-rank})) if rank else NOT_KNOWN
    for tensor in all_of(message, 5):
        name = name_of(tensor, 8)
        scope.valued.discard(name)
        scope.holds(name, numbers_of(tensor), sizes_of(tensor))
    yield from _in_nodes(all_of(message, 1), scope)


def _rank(value_info: memoryview) -> int:
    """0 where it is not stated."""
    shapes = [value_info]
    for wanted in (2, 1, 2):
        shapes = [inner for shape in shapes for inner in all_of(shape, wanted)]
    return sum(number == 1 for shape in shapes for number, _ in fields(shape))


def _in_nodes(messages: Iterable[memoryview], scope: _Scope) -> Iterator[str]:
    for message in messages:
        node = node_of(message)
        reason = _reason(node, scope)
        if reason is not None:
            yield reason
        for graph in node.graphs:
            yield from _in_graph(graph, scope)
        if node.kind not in _WITHOUT_VALUES and (
            node.graphs or not scope.valued.isdisjoint(node.inputs)
        ):
            scope.valued.update(node.outputs)
        if node.kind == "Constant":
            tensor = node.tensor
            numbers = next(iter(node.numbers.values()), None)
            for name in node.outputs:
                if tensor is None:
                    scope.holds(name, numbers, None)
                else:
                    scope.holds(name, numbers_of(tensor), sizes_of(tensor))
        else:
            rows = carried(node, scope.held(node), scope.constants)
            scope.rows.update(dict.fromkeys(node.outputs, rows))


def _reason(node: Node, scope: _Scope) -> str | None:
    if _ALWAYS.fullmatch(node.kind):
        return node.kind
    if node.numbers.get("training_mode", (0,)) != (0,):
        return f"{node.kind} in training mode"
    if scope.valued.isdisjoint(node.inputs):
        return None
    if _OF_VALUES.fullmatch(node.kind) or (node.kind == "If" and node.inputs[0] in scope.valued):
        return f"{node.kind} of values"
    axes = axes_of(node, scope.constants)
    if axes is not None and (0 in axes or not axes):
        return f"{node.kind} {'over axis 0' if axes else 'over all axes'}"
    if mixes_rows(node, scope.held(node), scope.constants):
        return f"{node.kind} over an axis of rows"
    return None
