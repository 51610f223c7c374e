"""Data sets: inputs of a model, items along the first axis, and what is right for each."""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np

from isochrone.edge_agent.runtime.loading import warmup
from isochrone.edge_agent.runtime.loading.made_up import (
    TOP_IDS,
    Shape,
    arrays,
    has_ids,
    other_sizes,
)
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.errors import ConfigError
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec, fits

LABELS = "labels"
_MADE_UP_COUNT = 64
LEAST_CARRIED = 8
"""Fewer samples than these are too few to judge on."""
_SEED = 11
_HELD_OUT = 5
"""Every fifth item."""
_STEP = 32
"""Items in one request, where the model leaves it open."""

Evaluation = Literal["labels", "agreement", "made-up inputs"]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Inputs by name, in the model's own datatypes.

    `batch`: how many items the model takes in one request; None where it takes any number.
    """

    inputs: Mapping[str, Array]
    datatypes: Mapping[str, str]
    labels: Array | None
    batch: int | None

    @property
    def items_count(self) -> int:
        """How many items there are."""
        return len(next(iter(self.inputs.values())))

    @property
    def evaluation(self) -> Evaluation:
        """What being right means on these data."""
        return "agreement" if self.labels is None else "labels"

    def requests(self, most: int = _STEP) -> Iterator[InferRequest]:
        """All items, `most` of them at a time where the model takes any number."""
        step = self.batch or most
        for start in range(0, self.items_count, step):
            chosen = slice(start, start + step)
            yield InferRequest(
                tuple(
                    Tensor(name, self.datatypes[name], np.ascontiguousarray(data[chosen]))
                    for name, data in self.inputs.items()
                )
            )

    def first(self) -> InferRequest:
        """One item, or as few as the model takes."""
        return next(self.requests(1))

    def chosen(self, places: Sequence[int] | Array) -> "Dataset":
        """Some of the items."""
        inputs = {name: data[places] for name, data in self.inputs.items()}
        labels = None if self.labels is None else self.labels[places]
        return Dataset(inputs, self.datatypes, labels, self.batch)

    def split(self) -> tuple["Dataset", "Dataset"]:
        """Four fifths to learn from, and every fifth item to judge on; whole requests of each."""
        requests = np.arange(self.items_count) // (self.batch or 1)
        held_out = requests % _HELD_OUT == _HELD_OUT - 1
        if not held_out.any():
            raise ConfigError(
                f"{self.items_count} items are too few to hold some out; give more, or --evaluation"
            )
        places = np.arange(self.items_count)
        return self.chosen(places[~held_out]), self.chosen(places[held_out])


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Requests as they are asked, each of its own size; what the original answers is right."""

    asked: tuple[InferRequest, ...]
    evaluation: Evaluation
    labels: None = None

    @property
    def items_count(self) -> int:
        """How many there are."""
        return len(self.asked)

    def requests(self) -> Iterator[InferRequest]:
        """All of them."""
        return iter(self.asked)

    def first(self) -> InferRequest:
        """The first one."""
        return self.asked[0]


def read(path: Path, package: Package, option: str) -> Dataset:
    """The data set in an .npz or .npy file.

    Raises:
        ConfigError: it does not fit the package; the message names option, file and remedy.
    """
    where = f"{option} {path}"
    arrays = _arrays(path, where, package)
    labels = arrays.pop(LABELS, None) if LABELS not in _names(package) else None
    inputs = {spec.name: _input(where, arrays, spec) for spec in package.takes}
    counts = {name: len(data) for name, data in inputs.items()}
    if labels is not None:
        _check_labels(where, labels, package)
        counts[LABELS] = len(labels)
    if len(set(counts.values())) != 1:
        raise ConfigError(f"{where}: its arrays hold {counts} items; they must be equally many")
    batch = _batch(package)
    whole = min(counts.values()) // (batch or 1) * (batch or 1)
    if not whole:
        raise ConfigError(f"{where}: holds too few items; the model takes {batch or 1} at once")
    return _whole(inputs, package, labels, batch, whole)


def carried(package: Package) -> tuple[InferRequest, ...]:
    """The warm-up samples that were given for a package, where they are enough to judge on."""
    pairs = zip(package.manifest.warm_up, warmup.samples(package.manifest, package), strict=True)
    given = tuple(request for sample, request in pairs if sample.real)
    return given if len(given) >= LEAST_CARRIED and not package.manifest.generate else ()


def made_up(package: Package, answers: Callable[[InferRequest], bool]) -> Requests:
    """Requests from a fixed seed, of several values, rows and sizes, that the model `answers`.

    Raises:
        PackageError: it answers none.
    """
    chance = np.random.default_rng(_SEED)
    generate = package.manifest.generate
    top_ids = TOP_IDS if has_ids(package.takes) else (0,)
    if generate is not None:
        top_ids = (len(generate.alphabet) - 1,)
    held = {one.name for one in package.manifest.warm_up[0].inputs}
    takes = [spec for spec in package.takes if generate is not None or spec.name in held]
    for top_id in top_ids:
        asked: list[InferRequest] = []
        for shapes in islice(cycle(_shapes(package, takes)), 2 * _MADE_UP_COUNT):
            made = arrays(takes, shapes, chance, top_id)
            one = InferRequest(
                tuple(Tensor(spec.name, spec.datatype, made[spec.name]) for spec in takes)
            )
            asked += [one] if answers(one) else []
            if len(asked) == _MADE_UP_COUNT:
                return Requests(tuple(asked), "made-up inputs")
    raise PackageError(
        f"{package.path}: too few made-up inputs are answered to judge on; give --evaluation FILE"
    )


def _shapes(package: Package, takes: Sequence[TensorSpec]) -> Iterator[dict[str, Shape]]:
    """Those of the sample, and others where sizes are left open: one to three rows of each."""
    if package.manifest.generate is not None:
        sample = {spec.name: spec.shape for spec in takes}
    else:
        sample = {one.name: one.shape for one in package.manifest.warm_up[0].inputs}
    for rows in (1, 2, 3):
        for which in range(4):
            yield {spec.name: _resized(spec, sample[spec.name], rows, which) for spec in takes}


def _resized(spec: TensorSpec, sample: Shape, rows: int, which: int) -> Shape:
    return tuple(
        size if declared != -1 else rows if place == 0 else (size, *other_sizes(size))[which]
        for place, (declared, size) in enumerate(zip(spec.shape, sample, strict=True))
    )


def _whole(
    inputs: Mapping[str, Array],
    package: Package,
    labels: Array | None,
    batch: int | None,
    count: int,
) -> Dataset:
    datatypes = {spec.name: spec.datatype for spec in package.takes}
    kept = {name: data[:count] for name, data in inputs.items()}
    return Dataset(kept, datatypes, None if labels is None else labels[:count], batch)


def _arrays(path: Path, where: str, package: Package) -> dict[str, Array]:
    try:
        with path.open("rb") as file:  # numpy leaves open what it cannot read
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{where}: is no .npz or .npy file of plain numbers; save it with numpy.savez"
        ) from error
    names = _names(package)
    if len(names) != 1:
        raise ConfigError(f"{where}: the model takes {_list(names)}; give an .npz of these")
    return {names[0]: loaded}


def _input(where: str, arrays: Mapping[str, Array], spec: TensorSpec) -> Array:
    data = arrays.get(spec.name)
    if data is None:
        raise ConfigError(
            f"{where}: has no array {spec.name!r}, which the model takes;"
            f" it has {_list(sorted(arrays))}"
        )
    datatype = DATATYPES[spec.datatype]
    if not np.can_cast(data.dtype, datatype.dtype, "same_kind"):
        raise ConfigError(f"{where}: {spec.name} is {data.dtype}, the model takes {spec.datatype}")
    if not fits(TensorSpec(spec.name, spec.datatype, (-1, *spec.shape[1:])), data.shape):
        shape = ["items", *spec.shape[1:]]
        raise ConfigError(f"{where}: {spec.name} is {list(data.shape)}, the model takes {shape}")
    if datatype.form is Form.FLOAT and not np.isfinite(data).all():
        raise ConfigError(f"{where}: {spec.name} holds values that are no finite numbers")
    return data.astype(datatype.dtype)


def _check_labels(where: str, labels: Array, package: Package) -> None:
    classes = package.gives[0].shape[-1] if package.gives[0].shape else -1
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"{where}: labels are {labels.dtype}; they must be classes from 0 on")
    if labels.size and (labels.min() < 0 or (classes != -1 and labels.max() >= classes)):
        raise ConfigError(
            f"{where}: labels run from {labels.min()} to {labels.max()};"
            f" the model's classes from 0 to {classes - 1}"
        )


def _batch(package: Package) -> int | None:
    """How many items go into one request; None where that is open.

    Raises:
        PackageError: an input has no dimension for items, or two differ.
    """
    firsts = {spec.shape[0] if spec.shape else 0 for spec in package.takes} - {-1}
    if len(firsts) > 1 or 0 in firsts:
        raise PackageError(
            f"{package.path}: its inputs have no first dimension in common;"
            " variants can be made of models that take items along the first one"
        )
    return next(iter(firsts), None)


def _names(package: Package) -> list[str]:
    return [spec.name for spec in package.takes]


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
