"""A smaller network of the caller's own shape, taught by a package."""

import argparse
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from isochrone.deploy.packages import arguments
from isochrone.deploy.packages.draft import Draft, Source, as_onnx, as_torch
from isochrone.deploy.packages.judge import judged
from isochrone.deploy.packages.teach import Lesson, Teaching, teach
from isochrone.edge_agent.runtime.package.manifest import (
    Architecture,
    Flatten,
    Linear,
    Relu,
    Softmax,
    Variant,
)
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.errors import BadRequest, ConfigError
from isochrone.router.process.settings import Settings, load_settings

HELP = "train a smaller network to answer alike"
_TOLD = """The student learns the package's answers, softened by a temperature (Hinton et al. 2015),
and the labels where the data have some. It becomes a variant of the package that teaches it, or,
with --name, a package of its own."""


class Student(Settings, frozen=True):
    """A file that describes a network as a model.yaml does."""

    architecture: Annotated[Architecture, Meta(min_length=1)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every variant needs; the student, its lessons, and where it goes."""
    arguments.add_arguments(parser, _TOLD)
    parser.add_argument("--data", type=Path, metavar="FILE", required=True, help="data set")
    shape = parser.add_mutually_exclusive_group(required=True)
    shape.add_argument(
        "--student", type=Path, metavar="FILE", help="YAML: architecture, as in a model.yaml"
    )
    shape.add_argument(
        "--hidden",
        type=arguments.widths,
        metavar="A,B,...",
        help="a dense network with these layers",
    )
    parser.add_argument(
        "--engine", choices=("onnx", "torch"), default="onnx", help=arguments.DEFAULT
    )
    parser.add_argument("--name", help="write a package of this name; else a variant")
    parser.add_argument("--version", default="1", help="of that package (%(default)s)")
    parser.add_argument(
        "--output", type=Path, metavar="STORE", help="of that package (the teacher's store)"
    )
    arguments.add_training(parser, epochs=60, rate=1e-2)


def run(args: argparse.Namespace) -> int:
    """Make and judge it; 3 where it is not kept."""
    return judged(args, make, _called)


def make(source: Source, args: argparse.Namespace) -> Draft:
    """The student, trained.

    Raises:
        ConfigError: its layers fit neither each other nor the data.
        PackageError: the package cannot teach.
    """
    data = source.data
    if data is None:
        raise ConfigError("distill needs --data FILE: a data set to learn on")
    lesson = Lesson.of(source.package, source.variant, data)
    option, layers = _student(args, source.package)
    if lesson.probabilities and not isinstance(layers[-1], Softmax):
        layers = (*layers, Softmax())
    teacher = f"{source.package.name} {source.variant.name}"
    source.progress(f"{teacher} teaches {data.items_count} items")
    try:
        weights = teach(layers, None, lesson, Teaching.of(args, source.progress))
    except BadRequest as error:
        raise ConfigError(f"{option}: {error.message}") from error
    by = f"distill {args.temperature:g}"
    if args.engine == "torch":
        return Draft("torch", as_torch(weights), by, architecture=layers)
    return Draft("onnx", as_onnx(source.package, layers, weights, option), by)


def _called(_source: Variant, args: argparse.Namespace) -> str:
    return f"{args.engine}-distilled"


def _student(args: argparse.Namespace, package: Package) -> tuple[str, Architecture]:
    if args.student is not None:
        path: Path = args.student
        return f"--student {path}", load_settings(path, Student).architecture
    return "--hidden", _dense(package, args.hidden)


def _dense(package: Package, hidden: tuple[int, ...]) -> Architecture:
    sizes = [prod(shape) for shape in (package.takes[0].shape[1:], package.gives[0].shape[1:])]
    if min(sizes) < 1 or -1 in (*package.takes[0].shape[1:], *package.gives[0].shape[1:]):
        raise ConfigError("--hidden needs a model whose inputs and outputs have fixed sizes")
    widths = (sizes[0], *hidden, sizes[1])
    dense = [Linear(inputs=inputs, outputs=outputs) for inputs, outputs in pairwise(widths)]
    return (Flatten(), *(layer for one in dense[:-1] for layer in (one, Relu())), dense[-1])
