"""Along which axes of a graph's tensors different rows lie, and which nodes mix them there.

An axis is told from the end (-1 is the last), so that it stays the same where others are put before
it. What is told is the least that is true: an axis may hold rows that is not told to.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from isochrone.edge_agent.runtime.engines.onnx_node import Node

Constants = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class RowAxes:
    """The rank of a tensor, None where it is not known, and those of its axes that hold rows.

    `sizes` are those of a constant.
    """

    rank: int | None = None
    axes: frozenset[int] = frozenset()
    sizes: tuple[int, ...] | None = None


NOT_KNOWN = RowAxes()
Held = Sequence[RowAxes]
_Mixed = Iterator[tuple[RowAxes, Iterable[int]]]

_REDUCES = re.compile("Reduce.+")
_FROM_0 = re.compile("ArgMax|ArgMin|MeanVarianceNormalization")
_ALONG_LAST = re.compile(
    "(Log)?Softmax|Hardmax|TopK|LpNormalization|CumSum|(Simplified)?LayerNormalization"
    "|RMSNormalization"
)
_TO_LAST = re.compile("(Simplified)?LayerNormalization|RMSNormalization")
_CONVOLVES = re.compile("Conv|ConvTranspose|ConvInteger|QLinearConv")
_POOLS = re.compile("(Max|Average|Lp)Pool")
_OVER_ALL_PLACES = re.compile("Global.+Pool|InstanceNormalization")
_RECURS = re.compile("LSTM|GRU|RNN")
_ATTENDS = re.compile("Attention|MultiHeadAttention|GroupQueryAttention")
_MULTIPLIES = re.compile("MatMul|MatMulInteger|QLinearMatMul")
_ONE_BY_ONE = re.compile(
    "Abs|A?(Sin|Cos|Tan)h?|Add|And|BiasGelu|Bitwise.+|Cast(Like)?|Ceil|Celu|Clip|Div|Elu|Equal|Erf|Exp"
    "|FastGelu|Floor|Gelu|Greater(OrEqual)?|HardSigmoid|HardSwish|Identity|Is(NaN|Inf)|LeakyRelu"
    "|Less(OrEqual)?|Log|Max|Mean|Min|Mish|Mod|Mul|Neg|Not|Or|PRelu|Pow|QLinear(Add|Mul)|QuickGelu"
    "|Reciprocal|Relu|Round|Selu|Shrink|Sigmoid|Sign|Soft(plus|sign)|Sqrt|Sub|Sum|Swish"
    "|ThresholdedRelu|Where|Xor|Concat"
)
_AS_THE_FIRST = re.compile(
    "Dropout|(Dynamic)?QuantizeLinear|SkipLayerNormalization|DequantizeLinear|BatchNormalization|GroupNormalization|LRN|Pad"
    "|Resize|Upsample|Slice|Split|Tile|Trilu|ReverseSequence|Scatter.*|MeanVarianceNormalization"
)
"""They keep rank and order of the axes; what they do along one of them leaves it one of rows."""


def axes_of(node: Node, constants: Constants) -> tuple[int, ...] | None:
    """The axes along which it works as it states them, none for all; None where that is unknown."""
    reduces = _REDUCES.fullmatch(node.kind) is not None
    if not reduces and not _FROM_0.fullmatch(node.kind) and not _ALONG_LAST.fullmatch(node.kind):
        return None
    given = node.numbers.get("axes", node.numbers.get("axis"))
    if given is not None:
        return given
    if (reduces or node.kind == "CumSum") and node.inputs[1:] not in ((), ("",)):
        return constants.get(node.inputs[1])
    if node.numbers.get("noop_with_empty_axes", (0,)) != (0,):
        return None
    return () if reduces else (0,) if _FROM_0.fullmatch(node.kind) else (-1,)


def mixes_rows(node: Node, held: Held, constants: Constants) -> bool:
    """It makes one number of what lies along an axis of rows."""
    return any(not one.axes.isdisjoint(axes) for one, axes in _mixed(node, held, constants))


def _mixed(node: Node, held: Held, constants: Constants) -> _Mixed:
    """Inputs with the axes along which their numbers meet each other."""
    along = axes_of(node, constants)
    if along is not None:
        yield held[0], _worked(node, held[0], along)
    elif _MULTIPLIES.fullmatch(node.kind):
        yield held[0], (-1,)
        yield held[3 if node.kind == "QLinearMatMul" else 1], (-2,)
    elif node.kind == "Gemm":
        yield held[0], (-2 if _is_set(node, "transA") else -1,)
        yield held[1], (-1 if _is_set(node, "transB") else -2,)
    elif node.kind == "NonMaxSuppression":
        yield from ((one, (-2, -1)) for one in held[:2])
    elif _ATTENDS.fullmatch(node.kind):
        yield held[0], (-2, -1)
    elif _RECURS.fullmatch(node.kind):
        yield held[0], (-2 if _is_set(node, "layout") else -3, -1)
    elif node.kind in ("Einsum", "Scan"):
        yield from _summed(node, held) if node.kind == "Einsum" else _scanned(node, held)
    else:
        yield (
            held[0] if held else NOT_KNOWN,
            (*_picked(node, held, constants), *_places(node, held)),
        )


def _picked(node: Node, held: Held, constants: Constants) -> Iterable[int]:
    """Of what takes some of an axis, or turns it round, the same whatever the values."""
    if node.kind == "ReverseSequence":
        return _from_end(node.numbers.get("time_axis", (0,)), held[0].rank)
    if node.kind == "Gather" and node.inputs[1] in constants:
        return _from_end(node.numbers.get("axis", (0,)), held[0].rank)
    return ()


def _scanned(node: Node, held: Held) -> _Mixed:
    """What is gone through with a state in hand."""
    given = held[-node.numbers.get("num_scan_inputs", (len(held),))[0] :]
    axes = node.numbers.get("scan_input_axes", (0,) * len(given))
    if len(given) < len(held):
        yield from ((one, _from_end((at,), one.rank)) for one, at in zip(given, axes, strict=False))


def _worked(node: Node, one: RowAxes, along: tuple[int, ...]) -> Iterable[int]:
    if not along:
        return one.axes
    worked = _from_end(along, one.rank)
    return range(worked[0], 0) if worked and _TO_LAST.fullmatch(node.kind) else worked


def _places(node: Node, held: Held) -> Iterable[int]:
    """Of what moves over the places of a picture: channels and places."""
    rank = held[0].rank if held else None
    if rank is None:
        return ()
    places = range(2 - rank, 0)
    if _OVER_ALL_PLACES.fullmatch(node.kind):
        return places
    if node.kind == "GroupNormalization":
        return range(1 - rank, 0)
    if _POOLS.fullmatch(node.kind):
        return _wider(node.numbers.get("kernel_shape"), places)
    if _CONVOLVES.fullmatch(node.kind):
        weights = held[3 if node.kind == "QLinearConv" else 1].sizes
        kernel = node.numbers.get("kernel_shape", weights and weights[2:])
        channels = () if node.numbers.get("group", (1,)) != (1,) else (1 - rank,)
        return (*channels, *_wider(kernel, places))
    return ()


def _wider(kernel: tuple[int, ...] | None, places: range) -> Iterator[int]:
    if kernel is not None and len(kernel) == len(places):
        yield from (place for place, size in zip(places, kernel, strict=True) if size != 1)


def _summed(node: Node, held: Held) -> _Mixed:
    terms, result = _equation(node, held)
    for one, term in zip(held, terms, strict=True):
        yield one, [at - len(term) for at, axis in enumerate(term) if axis not in result]


def _equation(node: Node, held: Held) -> tuple[list[str], str]:
    """The letters of each input and of the output; none where they do not tell all."""
    left, arrow, result = node.equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in node.equation or len(terms) != len(held):
        return [""] * len(held), ""
    return terms, result


def carried(node: Node, held: Held, constants: Constants) -> RowAxes:
    """What is known of each of its outputs."""
    if not held:
        return NOT_KNOWN
    if _ONE_BY_ONE.fullmatch(node.kind):
        return _broadcast(held)
    if _is_along(node) or _AS_THE_FIRST.fullmatch(node.kind) or _ATTENDS.fullmatch(node.kind):
        return RowAxes(held[0].rank, held[0].axes)
    if _REDUCES.fullmatch(node.kind) or node.kind in ("ArgMax", "ArgMin"):
        return _reduced(node, held[0], axes_of(node, constants))
    if _MULTIPLIES.fullmatch(node.kind):
        return _multiplied(held[0], held[3 if node.kind == "QLinearMatMul" else 1])
    if _CONVOLVES.fullmatch(node.kind) or _POOLS.fullmatch(node.kind) or _over_places(node):
        rank = held[0].rank
        return RowAxes(rank, held[0].axes - {1 - rank} if rank else frozenset())
    how = _HOW.get(node.kind)
    return how(node, held, constants) if how is not None else NOT_KNOWN


def _is_along(node: Node) -> bool:
    return _ALONG_LAST.fullmatch(node.kind) is not None


def _over_places(node: Node) -> bool:
    return _OVER_ALL_PLACES.fullmatch(node.kind) is not None


def _broadcast(held: Held) -> RowAxes:
    ranks = [one.rank for one in held if one.rank is not None]
    axes = frozenset[int]().union(*(one.axes for one in held))
    return RowAxes(max(ranks) if len(ranks) == len(held) else None, axes)


def _reduced(node: Node, one: RowAxes, along: tuple[int, ...] | None) -> RowAxes:
    keeps = node.numbers.get("keepdims", (1,)) != (0,)
    if along is None:
        return RowAxes(one.rank if keeps else None)
    gone = _from_end(along, one.rank)
    if len(gone) != len(along) or not along:
        return NOT_KNOWN
    left = one.axes - set(gone)
    if keeps:
        return RowAxes(one.rank, left)
    rank = None if one.rank is None else one.rank - len(gone)
    return RowAxes(rank, frozenset(at + sum(place > at for place in gone) for at in left))


def _multiplied(left: RowAxes, right: RowAxes) -> RowAxes:
    """As of matrices, not of vectors."""
    if 1 in (left.rank, right.rank):
        return NOT_KNOWN
    ranks = [one.rank for one in (left, right) if one.rank is not None]
    axes = (left.axes - {-1}) | (right.axes - {-2})
    return RowAxes(max(ranks) if len(ranks) == 2 else None, axes)


def _gemm(node: Node, held: Held, _: Constants) -> RowAxes:
    rows = -1 if _is_set(node, "transA") else -2
    columns = -2 if _is_set(node, "transB") else -1
    axes = {-2} if rows in held[0].axes else set()
    return RowAxes(2, frozenset(axes | ({-1} if columns in held[1].axes else set())))


def _transposed(node: Node, held: Held, _: Constants) -> RowAxes:
    rank = held[0].rank
    order = node.numbers.get("perm", tuple(reversed(range(rank or 0))))
    if not order:
        return NOT_KNOWN
    size = len(order)
    axes = (to - size for to, origin in enumerate(order) if origin - size in held[0].axes)
    return RowAxes(size, frozenset(axes))


def _reshaped(node: Node, held: Held, constants: Constants) -> RowAxes:
    sizes = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if not sizes:
        return NOT_KNOWN
    rank = held[0].rank
    if rank is None:
        return RowAxes(len(sizes), frozenset({-1} if sizes == (-1,) and held[0].axes else ()))
    kept = next((at for at, size in enumerate(sizes) if size != 0), len(sizes))
    axes = {at - len(sizes) for at in range(kept) if at - rank in held[0].axes}
    others = [at for at in range(kept, len(sizes)) if sizes[at] != 1]
    merged = [at + rank for at in held[0].axes if at + rank >= kept]
    if merged and others and sizes[others[0]] == -1 and (len(others) == 1 or min(merged) == kept):
        axes.add(others[0] - len(sizes))
    return RowAxes(len(sizes), frozenset(axes))


def _flattened(node: Node, held: Held, _: Constants) -> RowAxes:
    cut = _from_end(node.numbers.get("axis", (1,)), held[0].rank)
    if not cut:
        return RowAxes(2)
    return RowAxes(2, frozenset(-1 if at >= cut[0] else -2 for at in held[0].axes))


def _squeezed(node: Node, held: Held, constants: Constants) -> RowAxes:
    along = _stated(node, constants)
    gone = _from_end(along or (), held[0].rank)
    if along is None or len(gone) != len(along):
        return NOT_KNOWN
    rank = None if held[0].rank is None else held[0].rank - len(gone)
    axes = held[0].axes - set(gone)
    return RowAxes(rank, frozenset(at + sum(place > at for place in gone) for at in axes))


def _unsqueezed(node: Node, held: Held, constants: Constants) -> RowAxes:
    along, rank = _stated(node, constants), held[0].rank
    if along is None or rank is None:
        return NOT_KNOWN
    size = rank + len(along)
    new = {at % size for at in along}
    old = [at for at in range(size) if at not in new]
    axes = (at - size for origin, at in enumerate(old) if origin - rank in held[0].axes)
    return RowAxes(size, frozenset(axes))


def _stated(node: Node, constants: Constants) -> tuple[int, ...] | None:
    if len(node.inputs) > 1:
        return constants.get(node.inputs[1])
    return node.numbers.get("axes")


def _expanded(node: Node, held: Held, constants: Constants) -> RowAxes:
    sizes = constants.get(node.inputs[1])
    known = sizes is not None and held[0].rank is not None
    return RowAxes(max(held[0].rank or 0, len(sizes or ())) if known else None, held[0].axes)


def _gathered(node: Node, held: Held, _: Constants) -> RowAxes:
    data, places = held[:2]
    along = _from_end(node.numbers.get("axis", (0,)), data.rank)
    if not along or places.rank is None:
        return NOT_KNOWN
    axes = {at if at > along[0] else at + 1 - places.rank for at in data.axes - {along[0]}}
    axes |= {at + along[0] + 1 for at in places.axes}
    return RowAxes(None if data.rank is None else data.rank - 1 + places.rank, frozenset(axes))


def _one_hot(node: Node, held: Held, _: Constants) -> RowAxes:
    if node.numbers.get("axis", (-1,)) != (-1,):
        return NOT_KNOWN
    rank = None if held[0].rank is None else held[0].rank + 1
    return RowAxes(rank, frozenset(at - 1 for at in held[0].axes))


def _recurred(node: Node, held: Held, _: Constants) -> RowAxes:
    return RowAxes(None, held[0].axes & ({-2} if not _is_set(node, "layout") else set()))


def _einsum(node: Node, held: Held, _: Constants) -> RowAxes:
    terms, result = _equation(node, held)
    rows = {
        term[at]
        for one, term in zip(held, terms, strict=True)
        for at in one.axes
        if -at <= len(term)
    }
    axes = (at - len(result) for at, axis in enumerate(result) if axis in rows)
    return RowAxes(len(result) if result else None, frozenset(axes))


_HOW: Mapping[str, Callable[[Node, Held, Constants], RowAxes]] = {
    "Gemm": _gemm,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Flatten": _flattened,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Expand": _expanded,
    "Gather": _gathered,
    "OneHot": _one_hot,
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurred),
}


def _from_end(axes: Iterable[int], rank: int | None) -> tuple[int, ...]:
    """Those of them that are known, from the end."""
    if rank is None:
        return tuple(axis for axis in axes if axis < 0)
    return tuple(axis if axis < 0 else axis - rank for axis in axes)


def _is_set(node: Node, name: str) -> bool:
    return node.numbers.get(name, (0,)) != (0,)
