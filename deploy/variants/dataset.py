"""Data sets: inputs of a model, items along the first axis, and what is right for each."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edge_agent.runtime import warmup
from edge_agent.runtime.package import Package, PackageError
from router.errors import ConfigError
from router.wire.message import InferRequest
from router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec, fits

LABELS = "labels"
_MADE_UP_COUNT = 64
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
    made_up: bool = False

    @property
    def items_count(self) -> int:
        """How many items there are."""
        return len(next(iter(self.inputs.values())))

    @property
    def evaluation(self) -> Evaluation:
        """What being right means on these data."""
        if self.made_up:
            return "made-up inputs"
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


def made_up(package: Package) -> Dataset:
    """Inputs from a fixed seed, for a package that came without data.

    Raises:
        PackageError: a warm-up sample is wrong.
    """
    rng = np.random.default_rng(_SEED)
    batch = _batch(package)
    count = -(-_MADE_UP_COUNT // (batch or 1)) * (batch or 1)
    inputs = {spec.name: _invented(rng, package, spec, count) for spec in package.takes}
    datatypes = {spec.name: spec.datatype for spec in package.takes}
    return Dataset(inputs, datatypes, None, batch, made_up=True)


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
            f"{where}: is no .npz or .npy file of plain numbers ({error}); save it with numpy.savez"
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


def _invented(rng: np.random.Generator, package: Package, spec: TensorSpec, count: int) -> Array:
    datatype, generate = DATATYPES[spec.datatype], package.manifest.generate
    if generate is not None:
        return rng.integers(0, len(generate.alphabet), (count, *spec.shape[1:]))
    samples = warmup.samples(package.manifest)[0].inputs
    sample = next(one.data for one in samples if one.name == spec.name)
    if datatype.form is Form.FLOAT:
        return rng.random((count, *sample.shape[1:])).astype(datatype.dtype)
    return np.repeat(sample[:1], count, axis=0)  # an index that every table has


def _names(package: Package) -> list[str]:
    return [spec.name for spec in package.takes]


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
