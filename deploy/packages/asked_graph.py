"""What a graph takes and gives, found out by asking it with made-up inputs of several sizes.

Exporters leave sizes open, and write down wrong ones for outputs: what counts is what comes back.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from isochrone.edge_agent.runtime.engines.onnx_engine import (
    declared,
    open_session,
    optional,
    run_session,
)
from isochrone.edge_agent.runtime.engines.ort import onnxruntime as ort
from isochrone.edge_agent.runtime.engines.ort_reason import reason
from isochrone.edge_agent.runtime.loading import made_up
from isochrone.edge_agent.runtime.loading.made_up import TOP_IDS, Sizes
from isochrone.edge_agent.runtime.loading.warmup import MAX_BYTES, stand_ins
from isochrone.edge_agent.runtime.package.manifest import MAX_TENSOR_NAME
from isochrone.edge_agent.runtime.package.onnx_file import unranked_inputs
from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import BadRequest, Unavailable
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec

Arrays = Mapping[str, Array]

_SIZES = (32, 16, 64, 128, 224, 512, 8, 4, 3, 2, 1)
"""What an open size beside the rows may be, the likeliest first."""
_PICTURE_SIZES = (224, 320, 64, 32, 16, 8, 1)
_MOST_ELEMENTS = 1 << 25
"""Of one input whose size is open: a graph that needs more is tried with what it is given."""
_SMALL_IDS = tuple(top for top in TOP_IDS if top < 10)
_SEED = 7
_MORE_SEEDS = 3
_ROWS = re.compile(r"batch|^(bs|b|n)$", re.IGNORECASE)
_NO_ROWS = re.compile(
    r"seq|len|time|token|frame|step|sample|word|char|point|height|width|^[tslhw]$", re.IGNORECASE
)
_IDS = re.compile(r"id|tok|ind(ex|ices)|word|code", re.IGNORECASE)
_AXES = re.compile(r"ax[ei]s", re.IGNORECASE)
_STARTS = re.compile(r"start|begin", re.IGNORECASE)
_THE_ROWS = "batch"
Fills = Callable[[Sequence[TensorSpec], Mapping[str, made_up.Shape]], Iterator[Arrays]]
_RANKS = (2, 1, 3, 4, 0)
"""Of an input whose rank is not stated, the likeliest first: a scalar would fit too much."""


@dataclass(frozen=True, slots=True)
class Graph:
    """An open ONNX file; `names` has what it calls the sizes of its inputs, "" where nothing.

    Of the inputs that are `unranked` it does not say how many sizes they have.
    """

    where: str
    session: ort.InferenceSession
    takes: tuple[TensorSpec, ...]
    optional: frozenset[str]
    unranked: frozenset[str]
    gives: tuple[TensorSpec, ...]
    names: Mapping[str, tuple[str, ...]]

    def answer(self, arrays: Arrays) -> tuple[Tensor, ...]:
        """What it gives for some inputs.

        Raises:
            BadRequest: it cannot compute them; the message says why.
        """
        specs = (*self.takes, *self.gives)
        bfloats = [spec.name for spec in specs if spec.datatype == "BF16"]
        try:
            return run_session(self.session, arrays, self.gives, bfloats)
        except (BadRequest, Unavailable) as error:
            cause = error.__cause__
            said = reason(cause) if isinstance(cause, Exception) else error.message
            raise BadRequest(said) from error


@dataclass(frozen=True, slots=True)
class Asked:
    """What was found: the inputs with their ranks, samples that it answers, and its answers.

    The first sample is one of a typical size; another may be of another size.
    """

    takes: tuple[TensorSpec, ...]
    samples: tuple[Arrays, ...]
    answers: tuple[tuple[Tensor, ...], ...]


def graph(where: str, data: bytes) -> Graph:
    """What a file says of itself; `where` begins what is said of it.

    Raises:
        PackageError: it cannot be loaded, or takes or gives what no request can carry.
    """
    session = open_session(data, where, threads=1)
    nodes = session.get_inputs()
    takes = tuple(declared(nodes, where))
    if not takes:
        raise PackageError(f"{where}: takes no input; export it with at least one")
    names = {node.name: _names(node.shape) for node in nodes}
    for spec in (*takes, *declared(session.get_outputs(), where)):
        if len(spec.name) > MAX_TENSOR_NAME:
            raise PackageError(
                f"{where}: tensor {spec.name[:32]!r}... has a name of {len(spec.name)} characters,"
                f" at most {MAX_TENSOR_NAME} are possible; rename it, and export the model again"
            )
    gives = tuple(declared(session.get_outputs(), where))
    unranked = unranked_inputs(data)
    return Graph(where, session, takes, optional(nodes), unranked, gives, names)


def asked(graph: Graph) -> Asked:
    """Inputs that the graph answers.

    Raises:
        PackageError: there are none among those that were tried.
    """
    told = ""
    for takes in _ranked(graph):
        for tried, fills in product(_tried(takes, graph), (_likely, _unlikely, _fitting)):
            for sizes in _all_sizes(tried, graph):
                refusals: list[str] = []
                found = _first(graph, tried, sizes, fills, refusals)
                if found is not None:
                    return replace(_more(graph, tried, sizes, found), takes=takes)
                told = told or "".join(refusals[-1:])  # earlier ones are of ids that were too large
    raise PackageError(
        f"{graph.where}: answers no made-up input. {told}. Give real inputs with --sample FILE,"
        " or export the model again, with its sizes fixed or with all of them left open"
    )


def given(graph: Graph, samples: Sequence[Arrays]) -> Asked:
    """The same of given inputs.

    Raises:
        PackageError: the graph does not answer them.
    """
    takes = tuple(
        replace(spec, shape=(-1,) * samples[0][spec.name].ndim)
        if spec.name in graph.unranked and spec.name in samples[0]
        else spec
        for spec in graph.takes
    )
    answers = []
    for sample in samples:
        try:
            answers.append(graph.answer(sample))
        except BadRequest as error:
            raise PackageError(
                f"{graph.where}: does not answer --sample: {_told(sample)}: {error.message};"
                " correct the sample"
            ) from error
    return Asked(takes, tuple(samples), tuple(answers))


def outputs(graph: Graph, answers: Sequence[Sequence[Tensor]]) -> tuple[TensorSpec, ...]:
    """The outputs as the answers have them: a size that differs from the declared one is open."""
    shapes = [[tensor.shape for tensor in answer] for answer in answers]
    found = zip(graph.gives, zip(*shapes, strict=True), strict=True)
    return tuple(replace(spec, shape=_common(spec.shape, list(each))) for spec, each in found)


def _common(shape: tuple[int, ...], found: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    rank = len(found[0])
    if len(shape) != rank:
        return (-1,) * rank
    alike = [one for one in found if len(one) == rank]
    columns = zip(shape, zip(*alike, strict=True), strict=True)
    return tuple(size if set(column) == {size} else -1 for size, column in columns)


def _names(shape: Sequence[int | str | None]) -> tuple[str, ...]:
    """What a graph calls the sizes of an input; the state of a recurrent net has rows second."""
    names = [size if isinstance(size, str) else "" for size in shape]
    if len(shape) == 3 and isinstance(shape[0], int) and not isinstance(shape[1], int):
        names[1] = names[1] or _THE_ROWS
    return tuple(names)


def _ranked(graph: Graph) -> Iterator[tuple[TensorSpec, ...]]:
    """The inputs, where their number of sizes is not known with every one that is likely."""
    for rank in _RANKS if graph.unranked else (0,):
        yield tuple(
            replace(spec, shape=(-1,) * rank) if spec.name in graph.unranked else spec
            for spec in graph.takes
        )


def _tried(takes: Sequence[TensorSpec], graph: Graph) -> Iterator[tuple[TensorSpec, ...]]:
    """All inputs; then those only that no call can leave out."""
    yield tuple(takes)
    if graph.optional:
        yield tuple(spec for spec in takes if spec.name not in graph.optional)


def _all_sizes(takes: Sequence[TensorSpec], graph: Graph) -> Iterator[Sizes]:
    pictures = any(made_up.is_image(spec) and -1 in spec.shape[1:] for spec in takes)
    return (_sized(graph, 1, rest) for rest in (_PICTURE_SIZES if pictures else _SIZES))


def _sized(graph: Graph, rows: int, rest: int) -> Sizes:
    """Equal names are equal sizes; a name may be a sum of others."""
    first = {names[0] for names in graph.names.values() if names}
    named = {}
    for name in {name for names in graph.names.values() for name in names if name}:
        parts = [part.strip() for part in name.split("+")]
        named[name] = sum(
            int(part) if part.isdigit() else rows if _is_rows(part, first) else rest
            for part in parts
        )
    return Sizes(rows, rest, named)


def _is_rows(name: str, first: set[str]) -> bool:
    return bool(_ROWS.search(name)) or (name in first and not _NO_ROWS.search(name))


def _first(
    graph: Graph, takes: Sequence[TensorSpec], sizes: Sizes, fills: Fills, refusals: list[str]
) -> tuple[Arrays, tuple[Tensor, ...]] | None:
    """The first inputs of some sizes that the graph answers."""
    shapes = made_up.shapes(takes, sizes, graph.names)
    for spec in takes:
        size_bytes = prod(shapes[spec.name]) * DATATYPES[spec.datatype].dtype.itemsize
        if size_bytes > (_MOST_ELEMENTS * 4 if -1 in spec.shape else MAX_BYTES):
            refusals.append(
                f"Input {spec.name!r} {list(shapes[spec.name])} takes {size_bytes} bytes,"
                f" at most {MAX_BYTES} are possible"
            )
            return None
    for arrays in fills(takes, shapes):
        try:
            return arrays, graph.answer(arrays)
        except BadRequest as error:
            refusals.append(f"To {_told(arrays)} it says: {error.message}")
    return None


def _likely(takes: Sequence[TensorSpec], shapes: Mapping[str, made_up.Shape]) -> Iterator[Arrays]:
    """What to ask in some shapes: large ids only where a table is likely, else they are sizes."""
    plain = stand_ins(takes, shapes)
    ids = [spec for spec in takes if made_up.holds_ids(spec)]
    has_table = any(len(spec.shape) > 1 or _IDS.search(spec.name) for spec in ids)
    for top in TOP_IDS if has_table else _SMALL_IDS if ids else ():
        drawn = made_up.arrays(takes, shapes, np.random.default_rng(_SEED), top)
        yield {**plain, **{spec.name: drawn[spec.name] for spec in ids}}
    yield plain


def _unlikely(takes: Sequence[TensorSpec], shapes: Mapping[str, made_up.Shape]) -> Iterator[Arrays]:
    """Numbers that axes, sizes, counts and scales may be."""
    plain = stand_ins(takes, shapes)
    for seed in range(1, _MORE_SEEDS):
        yield made_up.arrays(takes, shapes, np.random.default_rng(_SEED + seed), 1)
    for value in (1, 2, -1, None):
        yield {
            **plain,
            **{spec.name: _constant(spec, shapes, value) for spec in takes if _is_whole(spec)},
        }
        constants = [spec for spec in takes if _is_whole(spec) or len(spec.shape) == 1]
        yield {**plain, **{spec.name: _constant(spec, shapes, value) for spec in constants}}


def _fitting(takes: Sequence[TensorSpec], shapes: Mapping[str, made_up.Shape]) -> Iterator[Arrays]:
    """Vectors of whole numbers that cut another input into parts, or give it another shape."""
    plain = stand_ins(takes, shapes)
    vectors = [spec for spec in takes if _is_whole(spec) and len(shapes[spec.name]) == 1]
    whole = next((shapes[spec.name] for spec in takes if spec not in vectors), ())
    if not vectors or not whole:
        return
    ones = {spec.name: _constant(spec, shapes, 1) for spec in vectors}
    axes = {spec.name: _constant(spec, shapes, None) for spec in vectors if _AXES.search(spec.name)}
    yield {**plain, **ones, **axes, **{n: ones[n] * 0 for n in ones if _STARTS.search(n)}}
    for spec in vectors:
        count, dtype = shapes[spec.name][0], DATATYPES[spec.datatype].dtype
        for numbers in _vectors(whole, count):
            yield {**plain, **ones, spec.name: np.array(numbers, dtype)}


def _vectors(shape: made_up.Shape, count: int) -> Iterator[list[int]]:
    """So many numbers whose sum or product is a size of a shape, or that are a shape like it."""
    for size in dict.fromkeys((*shape, prod(shape))):
        rest = [1] * (count - 1)
        yield [size // count] * (count - 1) + [size - size // count * (count - 1)]
        yield [size, *rest]
        yield [*rest, size]
    if count == len(shape):
        yield list(shape)
        yield [*shape[:2], *(2 * size for size in shape[2:])]


def _is_whole(spec: TensorSpec) -> bool:
    """It holds whole numbers, and what they mean is not known by its name alone."""
    unknown = made_up.holds_ids(spec) or made_up.is_image(spec) or len(spec.shape) <= 1
    return unknown and DATATYPES[spec.datatype].form is Form.INT


def _constant(spec: TensorSpec, shapes: Mapping[str, made_up.Shape], value: int | None) -> Array:
    """One number everywhere; or those from 0 on."""
    shape, dtype = shapes[spec.name], DATATYPES[spec.datatype].dtype
    if DATATYPES[spec.datatype].form is Form.TEXT:
        return np.full(shape, b"1", object)
    if DATATYPES[spec.datatype].form is not Form.INT:
        return made_up.as_datatype(spec.datatype, np.ones(shape))
    counted = np.arange(prod(shape)).reshape(shape) if value is None else np.full(shape, value)
    return counted.astype(dtype)


def _more(
    graph: Graph,
    takes: tuple[TensorSpec, ...],
    sizes: Sizes,
    found: tuple[Arrays, tuple[Tensor, ...]],
) -> Asked:
    """The same with answers to other rows, other sizes and other numbers, as far as there are."""
    samples, answers = [found[0]], [found[1]]
    shapes = {name: array.shape for name, array in found[0].items()}
    for other in (_sized(graph, 2, sizes.rest), *_all_sizes(takes, graph)):
        if made_up.shapes(takes, other, graph.names) == shapes or len(samples) > 1:
            continue
        more = _first(graph, takes, other, _likely, [])
        if more is not None:
            answers.append(more[1])
            samples += [more[0]] if other.rows == 1 and _ranks(more[1]) == _ranks(found[1]) else []
    for seed in (1, 2):
        numbers = made_up.arrays(takes, shapes, np.random.default_rng(_SEED + seed))
        kept = {spec.name: found[0][spec.name] for spec in takes if _is_whole(spec)}
        try:
            answers.append(graph.answer({**numbers, **kept}))
        except BadRequest:
            continue
    return Asked(takes, tuple(samples), tuple(answers))


def _ranks(answer: Sequence[Tensor]) -> list[int]:
    return [len(tensor.shape) for tensor in answer]


def _told(arrays: Arrays) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
