"""A model package from anyone's ONNX file: the graph itself says what it takes and gives."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from isochrone.deploy.packages import asked_graph, given_sample
from isochrone.deploy.packages.asked_graph import Arrays, Asked, Graph
from isochrone.deploy.packages.external_data import read_whole
from isochrone.deploy.packages.given_sample import Given
from isochrone.deploy.packages.kept_sample import Kept, as_sample
from isochrone.edge_agent.runtime.calls.unheard import unheard
from isochrone.edge_agent.runtime.loading import verify
from isochrone.edge_agent.runtime.loading.proven import stamped
from isochrone.edge_agent.runtime.loading.warmup import stand_ins
from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample
from isochrone.edge_agent.runtime.package.onnx_file import precision
from isochrone.edge_agent.runtime.package.package import (
    Package,
    PackageError,
    described,
    write_package,
)
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.tensor import DATATYPES, Form, Tensor, TensorSpec

_FILE = "model.onnx"
_MOST_METADATA_BYTES = 256 << 10
_MOST_METADATA = 64
_MOST_KEY = 256
_MOST_NAMED = 3
_MOST_SHOWN = 64
_NEEDED = {
    key: place
    for place, key in enumerate(
        [
            "labels",
            "names",
            "classes",
            "character",
            "dictionary",
            "vocabulary",
            "license",
            "description",
            "author",
            "task",
            "version",
            "stride",
            "imgsz",
            "date",
            "url",
        ]
    )
}
"""Keys of metadata that are kept before others."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person says of the model that its file does not."""

    name: str
    version: str = "1"
    labels: tuple[str, ...] = ()
    samples: tuple[Path, ...] = ()
    """Files of real requests; without any, they are made up."""


def build(onnx: Path, store: Path, wanted: Wanted, say: Say = unheard) -> Package:
    """A package with one variant, proven to load and to answer before it stands in `store`.

    `say` hears what the person should know, though it is no reason to refuse.

    Raises:
        ConfigError: the file cannot be read.
        PackageError: it cannot be served, or that version is there with other content.
    """
    data = read_whole(onnx)
    graph = asked_graph.graph(str(onnx), data)
    manifest, files = _described(graph, data, wanted, say)
    files = {_FILE: data, **files}
    with tempfile.TemporaryDirectory(prefix="isochrone-") as draft:
        package = write_package(Path(draft), manifest, files)
        for problem in verify.problems(package):
            raise PackageError(problem.replace(f"{draft}/", ""))
        proven = tuple(stamped(package, one, monotonic) for one in manifest.variants)
    manifest = msgspec.structs.replace(manifest, variants=proven)
    return write_package(store, manifest, files)


def _described(graph: Graph, data: bytes, wanted: Wanted, say: Say) -> tuple[Manifest, Kept]:
    kind = precision(data)
    given = [given_sample.read(path, graph) for path in wanted.samples]
    found = (
        asked_graph.given(graph, [one.arrays for one in given])
        if given
        else asked_graph.asked(graph)
    )
    _say_what_json_lacks(found.answers[: len(found.samples)], given, say)
    _say_what_is_assumed(graph, found, given, say)
    samples, kept = _samples(found, given)
    try:
        manifest = Manifest(
            name=wanted.name,
            version=wanted.version,
            inputs=tuple(
                msgspec.structs.replace(Declared.of(spec), optional=spec.name in graph.optional)
                for spec in found.takes
            ),
            outputs=tuple(map(Declared.of, asked_graph.outputs(graph, found.answers))),
            labels=wanted.labels,
            metadata=_metadata(graph, say),
            warm_up=samples,
            variants=(
                described(data, name=f"onnx-{kind}", engine="onnx", file=_FILE, precision=kind),
            ),
        )
    except ValueError as error:
        raise PackageError(f"{graph.where}: {error}") from error
    return manifest, kept


def _samples(found: Asked, given: Sequence[Given]) -> tuple[tuple[Sample, ...], Kept]:
    """Of made-up ones only what is not made up the same way again, as ids that its tables have."""
    samples, files = [], {}
    for index, arrays in enumerate(found.samples):
        again = () if given else _made_again(found.takes, arrays)
        sample, kept = as_sample(index + 1, found.takes, arrays, again)
        if given:
            parameters = dict(given[index].parameters)
            sample = msgspec.structs.replace(sample, real=True, parameters=parameters)
        samples.append(sample)
        files.update(kept)
    return tuple(samples), files


def _made_again(takes: Sequence[TensorSpec], arrays: Arrays) -> list[str]:
    shapes = {name: array.shape for name, array in arrays.items()}
    again = stand_ins([spec for spec in takes if spec.name in shapes], shapes)
    return [name for name, array in arrays.items() if np.array_equal(array, again[name])]


def _metadata(graph: Graph, say: Say) -> dict[str, str]:
    """What the file says of itself, as far as there is room, what clients need first."""
    room = _MOST_METADATA_BYTES
    held = graph.session.get_modelmeta().custom_metadata_map
    kept: dict[str, str] = {}
    lost: list[str] = []
    for key in sorted(held, key=lambda key: (_NEEDED.get(key.lower(), len(_NEEDED)), key)):
        size_bytes = len(held[key].encode())
        if 0 < len(key) <= _MOST_KEY and len(kept) < _MOST_METADATA and size_bytes <= room:
            kept[key] = held[key]
            room -= size_bytes
        else:
            lost.append(f"{key[:_MOST_SHOWN]!r} of {len(held[key])} characters")
    if lost:
        say(
            f"left out of the metadata, where {_MOST_METADATA} keys and"
            f" {_MOST_METADATA_BYTES >> 10} KiB have room: {_named(lost)}"
        )
    return dict(sorted(kept.items()))


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _say_what_is_assumed(graph: Graph, found: Asked, given: Sequence[Given], say: Say) -> None:
    for spec in found.takes:
        if spec.name in graph.unranked and not given:
            say(
                f"input {spec.name!r}: the file does not state its rank; calls must give it with"
                f" {len(spec.shape)} dimensions; if yours has others, give --sample FILE"
            )
    defaults = [node.name for node in graph.session.get_overridable_initializers()]
    if defaults:
        say(
            f"calls cannot set {_named([*map(repr, defaults)])}: the file gives"
            " a default, as some exporters do for weights; without its initializer it is an input"
        )


def _say_what_json_lacks(
    answers: Sequence[Sequence[Tensor]], given: Sequence[Given], say: Say
) -> None:
    for tensor in {one.name: one for answer in answers for one in answer if _lacks(one)}.values():
        remedy = "clients must ask for binary_data"
        said = remedy if given else f"give real inputs with --sample FILE; else {remedy}"
        say(
            f"output {tensor.name!r} holds NaN or infinity in the answer to the"
            f" {'given' if given else 'made-up'} sample, which JSON cannot carry: {said}"
        )


def _lacks(tensor: Tensor) -> bool:
    data = tensor.data
    if tensor.datatype == "BF16":
        data = (data.astype("<u4") << 16).view("<f4")
    is_number = DATATYPES[tensor.datatype].form in (Form.FLOAT, Form.NONE)
    return is_number and not np.isfinite(data).all()
