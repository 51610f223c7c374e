"""A variant with fewer rows and channels, proven to be the original without what was cut."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import onnx

from isochrone.deploy.packages import arguments, cut_layers
from isochrone.deploy.packages.cut import Joint, cut, unread
from isochrone.deploy.packages.cut_graph import Graph
from isochrone.deploy.packages.dataset import Requests
from isochrone.deploy.packages.draft import Draft, Source, as_torch
from isochrone.deploy.packages.judge import judged
from isochrone.deploy.packages.measure import Answers, answers, deviation, made_up_for
from isochrone.deploy.packages.teach import Lesson, Teaching, teach
from isochrone.deploy.packages.write import only
from isochrone.edge_agent.runtime.package.manifest import Architecture, Variant
from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import BadRequest, ConfigError
from isochrone.router.wire.tensor import Array

HELP = "add a variant with fewer rows and channels"
_TOLD = """Cuts out whole rows and channels, those of the smallest norm (Li et al. 2017), and all
that reads them in the next layer. Follows chains of dense layers and convolutions; what it cannot
follow it leaves alone, and says so. A torch variant can be tuned afterwards to answer as the
original does (--data)."""
_CLOSE = 1e-3
"""Sums over fewer numbers are rounded differently; cut wrongly, answers differ by far more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every variant needs; what to cut, and how to tune what is left."""
    arguments.add_arguments(parser, _TOLD)
    parser.add_argument(
        "--share",
        type=arguments.share,
        default=0.5,
        help="of each layer's rows to cut out (%(default)s)",
    )
    parser.add_argument("--norm", choices=("l1", "l2"), default="l1", help=arguments.DEFAULT)
    parser.add_argument("--data", type=Path, metavar="FILE", help="data set to tune on afterwards")
    arguments.add_training(parser, epochs=30, rate=1e-3)


def run(args: argparse.Namespace) -> int:
    """Make and judge it; 3 where it is not kept."""
    return judged(args, make, _called)


def make(source: Source, args: argparse.Namespace) -> Draft:
    """The smaller network, tuned where there are data.

    Raises:
        ConfigError: data were given for a variant that cannot be tuned.
        PackageError: nothing in it can be followed.
    """
    if source.variant.engine == "onnx":
        if source.data is not None:
            raise ConfigError(
                f"--data: {source.variant.name} is an ONNX file, and only torch variants are"
                " tuned; leave --data away, or distill a smaller network"
            )
        return _pruned_graph(source, args)
    return _pruned_layers(source, args)


def _pruned_graph(source: Source, args: argparse.Namespace) -> Draft:
    try:
        graph = Graph(onnx.load_from_string(source.package.read(source.variant)))
    except PackageError:
        raise
    except Exception as error:  # onnx raises what protobuf and numpy do
        raise PackageError(f"{source.where}: onnx cannot read it: {error}") from error
    joints, left = graph.joints()
    _check_any(source, joints, left)
    data = graph.written(cut(graph.arrays, joints, args.share, args.norm))
    full = graph.written(unread(graph.arrays, joints, args.share, args.norm))
    draft = Draft("onnx", data, _by(args), notes=(*_cuts(joints), *left))
    _check_same(source, draft, Draft("onnx", full, _by(args)))
    return draft


def _pruned_layers(source: Source, args: argparse.Namespace) -> Draft:
    architecture, weights = source.layers(), source.weights()
    joints, left = cut_layers.joints(architecture)
    _check_any(source, joints, left)
    smaller = cut(weights, joints, args.share, args.norm)
    notes = (*_cuts(joints), *left)
    draft = _torch(source, args, smaller, notes)
    masked = unread(weights, joints, args.share, args.norm)
    _check_same(source, draft, _torch(source, args, masked, ()))
    if source.data is None:
        return draft
    lesson = Lesson.of(source.package, source.variant, source.data)
    teaching = Teaching.of(args, source.progress)
    tuned = teach(cut_layers.resized(architecture, smaller), smaller, lesson, teaching)
    return _torch(source, args, tuned, (*notes, f"tuned on {source.data.items_count} items"))


def _torch(
    source: Source, args: argparse.Namespace, weights: Mapping[str, Array], notes: tuple[str, ...]
) -> Draft:
    architecture: Architecture = cut_layers.resized(source.layers(), weights)
    return Draft(
        "torch",
        as_torch(weights),
        _by(args),
        architecture=architecture,
        notes=notes,
    )


def _check_any(source: Source, joints: list[Joint], left: list[str]) -> None:
    if not joints:
        reasons = "; ".join(left) or "it has no layer whose outputs another one reads"
        raise PackageError(f"{source.where}: nothing in it can be cut: {reasons}")


def _check_same(source: Source, draft: Draft, full: Draft) -> None:
    """The cut network answers as the whole one in which nobody reads what was cut.

    Raises:
        PackageError: it does not, so the graph is not what it was taken for.
    """
    data = made_up_for(source.package, source.variant)
    said = [_said(source, each, data) for each in (draft, full)]
    scale = max(1.0, *(float(abs(one).max()) for outputs in said[1] for one in outputs))
    if not deviation(*said) <= _CLOSE * scale:
        raise PackageError(f"{source.where}: could not be cut without changing what is left")


def _said(source: Source, draft: Draft, data: Requests) -> Answers:
    try:
        with only(source.package, draft, "cut") as (package, variant):
            return answers(package, variant, data)
    except (PackageError, BadRequest) as error:
        raise PackageError(f"{source.where}: cannot be run once cut: {error.message}") from error


def _cuts(joints: list[Joint]) -> tuple[str, ...]:
    return (f"cut: {', '.join(joint.name for joint in joints)}",)


def _by(args: argparse.Namespace) -> str:
    return f"prune {args.share:g} {args.norm}"


def _called(source: Variant, args: argparse.Namespace) -> str:
    return f"{source.name}-pruned-{args.share * 100:g}".replace(".", "_")
