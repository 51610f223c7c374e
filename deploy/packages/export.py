"""A torch variant's layers and weights as an ONNX file; the same weights give the same bytes."""

import argparse

from isochrone.deploy.packages import arguments
from isochrone.deploy.packages.draft import Draft, Source, as_onnx
from isochrone.deploy.packages.judge import judged
from isochrone.edge_agent.runtime.package.manifest import Variant

HELP = "add an ONNX variant of a torch one"
_TOLD = """An edge agent starts an ONNX file in a third of the memory that torch takes. Its answers
must equal torch's within the package's tolerance."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every variant needs."""
    arguments.add_arguments(parser, _TOLD)


def run(args: argparse.Namespace) -> int:
    """Make and judge it; 3 where it is not kept."""
    return judged(args, make, _called, engine="torch")


def make(source: Source, _args: argparse.Namespace) -> Draft:
    """The ONNX file.

    A package's network is a list of layers, which is written out node by node: nothing is traced,
    and torch need not be there.

    Raises:
        PackageError: the variant's file is wrong.
    """
    data = as_onnx(source.package, source.layers(), source.weights(), source.where)
    return Draft("onnx", data, by="export", exact=True)


def _called(source: Variant, _args: argparse.Namespace) -> str:
    return f"onnx-{source.name.removeprefix('torch-')}"
