"""Random inputs for a model, as realistic as the names and datatypes of its inputs allow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from isochrone.router.wire.tensor import DATATYPES, Array, Form, TensorSpec

Shape = tuple[int, ...]
TOP_IDS = (20_000, 1_000, 100, 9, 1, 0)
"""To be tried in this order: a table refuses ids that it lacks, and its size is not declared."""
_RATE_HZ = 16_000
_BLACK_TO_WHITE = 255
CHANNELS = (1, 3, 4)
_MASK = re.compile("mask")
_SEGMENT = re.compile("token_?type|segment")
_LENGTH = re.compile("len(gth)?s?$|^x?len|length")
_POSITION = re.compile("position")
_RATE = re.compile("^sr$|sampl(e|ing)_?rate")
_IMAGE = re.compile("image|pixel|img|picture|frame")
_WORDS = "the weather today 7 42 1999 yes why how many people write a short answer please é 東京"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the open dimensions come to.

    `rows` is that of each first one, `rest` that of all others; `named` goes over both, by the
    names that a graph gives to its dimensions.
    """

    rows: int = 1
    rest: int = 16
    named: Mapping[str, int] = field(default_factory=dict)


def shapes(
    specs: Sequence[TensorSpec], sizes: Sizes, names: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Shape]:
    """By input, its shape; `names` gives a name for each dimension of an input, "" where none."""
    return {spec.name: _shape(spec, sizes, (names or {}).get(spec.name, ())) for spec in specs}


def arrays(
    specs: Sequence[TensorSpec],
    chosen: Mapping[str, Shape],
    chance: np.random.Generator,
    top_id: int = TOP_IDS[-2],
) -> dict[str, Array]:
    """By input, an array of the chosen shape.

    Ids are 0 to `top_id`, masks 1, segments 0, pictures 0 to 1 (UINT8: 0 to 255), a sampling rate
    16000, lengths the largest open size, texts a few words, other numbers -1 to 1.
    """
    length = _length(specs, chosen)
    return {spec.name: _array(spec, chosen[spec.name], chance, top_id, length) for spec in specs}


def other_sizes(size: int) -> tuple[int, ...]:
    """Sizes that a model of texts or pictures is likely to take as well as this one."""
    if size < 16:
        return 16, 24, 40
    if size % 32 == 0:
        return max(32, size // 64 * 32), size + 32, size * 2
    return size // 2, size + 5, size * 2


def has_ids(specs: Sequence[TensorSpec]) -> bool:
    """Some of the inputs hold what `top_id` bounds."""
    return any(holds_ids(spec) for spec in specs)


def scaled(specs: Sequence[TensorSpec], made: Mapping[str, Array], factor: int) -> dict[str, Array]:
    """The same with numbers so many times larger, and ids and pictures so many times smaller."""
    return {spec.name: _scaled(spec, made[spec.name], factor) for spec in specs}


def _scaled(spec: TensorSpec, made: Array, factor: int) -> Array:
    form = DATATYPES[spec.datatype].form
    if form is Form.INT and (is_image(spec) or holds_ids(spec)):
        return np.asarray(made // factor)
    told = _said(spec.name.lower(), made.shape, 1, whole=False) is not None
    return made if made.dtype.kind != "f" or told else np.asarray(made * factor, made.dtype)


def shortened(
    specs: Sequence[TensorSpec],
    made: Mapping[str, Array],
    chance: np.random.Generator,
    fill: int | None = None,
) -> dict[str, Array]:
    """The same with positive numbers, masks that end earlier, and lengths that are smaller.

    Ids and texts end there too, in `fill` (0: and other numbers with them), unless it is None.
    """
    share = chance.uniform(0.2, 0.8)
    return {spec.name: _shortened(spec, made[spec.name], share, fill) for spec in specs}


def _shortened(spec: TensorSpec, made: Array, share: float, fill: int | None) -> Array:
    form, name = DATATYPES[spec.datatype].form, spec.name.lower()
    if _MASK.search(name) and made.ndim > 1:
        return _cut(made, share, 0)
    if form is Form.INT and _LENGTH.search(name):
        return np.maximum(np.asarray(made, np.float64) * share, 1).astype(made.dtype)
    if form is Form.TEXT:
        return made if fill is None else _cut(made, share, b"")
    if made.dtype.kind == "f":
        return np.asarray(_cut(np.abs(made), share, 0) if fill == 0 else np.abs(made))
    return _cut(made, share, fill) if fill is not None and holds_ids(spec) else made


def _cut(made: Array, share: float, fill: int | bytes) -> Array:
    """Filled from there on, along the last axis; without one beside the rows, as it is."""
    if made.ndim < 2:
        return made
    left = made.copy()
    left[..., max(1, round(share * made.shape[-1])) :] = fill
    return left


def _shape(spec: TensorSpec, sizes: Sizes, names: Sequence[str]) -> Shape:
    by_place = (sizes.rows, *[sizes.rest] * len(spec.shape))
    named = (*names, *[""] * len(spec.shape))
    sized = zip(spec.shape, by_place, named, strict=False)
    return tuple(
        sizes.named.get(name, open_size) if size == -1 else size for size, open_size, name in sized
    )


def _length(specs: Sequence[TensorSpec], chosen: Mapping[str, Shape]) -> int:
    """The largest size beside the rows: of those that are left open, where any are."""
    rest = [
        (declared == -1, size)
        for spec in specs
        for declared, size in zip(spec.shape[1:], chosen[spec.name][1:], strict=True)
    ]
    return max(rest, default=(False, 1))[1]


def _array(
    spec: TensorSpec, shape: Shape, chance: np.random.Generator, top_id: int, length: int
) -> Array:
    form, dtype = DATATYPES[spec.datatype].form, DATATYPES[spec.datatype].dtype
    if form is Form.TEXT:
        return _texts(shape, chance)
    said = _said(spec.name.lower(), shape, length, whole=form in (Form.INT, Form.BOOL))
    if said is not None:
        return as_datatype(spec.datatype, said)
    if form is Form.BOOL:
        return np.array(chance.random(shape) < 0.5 if shape else False)
    if form is Form.INT:
        return _whole(spec, shape, chance, top_id).astype(dtype)
    drawn = chance.random(shape) if is_image(spec) else chance.uniform(-1, 1, shape)
    return as_datatype(spec.datatype, np.asarray(drawn))


def _said(name: str, shape: Shape, length: int, *, whole: bool) -> Array | None:
    """What the name alone tells; None where that is nothing."""
    if _MASK.search(name):
        return np.ones(shape)
    if _SEGMENT.search(name):
        return np.zeros(shape)
    if _RATE.search(name):
        return np.full(shape, _RATE_HZ)
    if _LENGTH.search(name):
        return np.full(shape, length if whole else 1)
    if whole and _POSITION.search(name) and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape)
    return None


def holds_ids(spec: TensorSpec) -> bool:
    """`top_id` bounds what it holds."""
    is_whole = DATATYPES[spec.datatype].form is Form.INT
    return is_whole and not is_image(spec) and _said(spec.name.lower(), (), 1, whole=True) is None


def _whole(spec: TensorSpec, shape: Shape, chance: np.random.Generator, top_id: int) -> Array:
    top = _BLACK_TO_WHITE if is_image(spec) else top_id
    most = np.iinfo(DATATYPES[spec.datatype].dtype.str).max
    return np.asarray(chance.integers(0, min(top, most), size=shape, endpoint=True))


def is_image(spec: TensorSpec) -> bool:
    """By its rank and channels, and where these leave it open its name, it holds pictures."""
    rank = len(spec.shape)
    if rank not in (3, 4) or not {spec.shape[-3], spec.shape[-1]} & set(CHANNELS):
        return False
    return rank == 4 or spec.datatype == "UINT8" or _IMAGE.search(spec.name.lower()) is not None


def _texts(shape: Shape, chance: np.random.Generator) -> Array:
    texts, words = np.empty(prod(shape), object), _WORDS.split()
    for index in range(len(texts)):
        texts[index] = " ".join(chance.choice(words, int(chance.integers(1, 12)))).encode()
    return texts.reshape(shape)


def as_datatype(datatype: str, data: Array) -> Array:
    """Numbers as a datatype has them; BF16 as its bits, cut off."""
    if datatype != "BF16":
        return data.astype(DATATYPES[datatype].dtype)
    return np.asarray(data.astype("<f4").view("<u4") >> 16).astype("<u2")
