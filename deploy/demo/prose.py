"""A small model that writes text: which character follows which two, counted in Python's own help.

Its graph is one table look-up, so that streaming can be shown without a large model.
"""

import pydoc_data.topics
from pathlib import Path

import numpy as np
from onnx import helper

from isochrone.deploy.packages.onnx_graph import model_bytes
from isochrone.edge_agent.runtime.package.manifest import (
    TEXT_INPUT,
    TEXT_OUTPUT,
    Declared,
    Generate,
    Manifest,
    Sample,
    SampleTensor,
)
from isochrone.edge_agent.runtime.package.package import Package, described, write_package
from isochrone.router.wire.tensor import Array

PROSE = "prose"
ALPHABET = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
_ORDER = 2
_UNSEEN = 1e-3
"""Counted for what never followed: small against one, so that it stays rare."""


def write_prose(store: Path) -> Package:
    """The package `prose`, version 1, below a directory.

    Raises:
        PackageError: it cannot be written.
    """
    generate = Generate(alphabet=ALPHABET, context=_ORDER)
    (takes,), (gives,) = generate.takes(), generate.gives()
    node = helper.make_node("GatherND", ["table", takes.name], [gives.name])
    data = model_bytes([node], takes, gives, {"table": _table()})
    variant = described(data, name="onnx-fp32", engine="onnx", file="prose.onnx")
    manifest = Manifest(
        name=PROSE,
        version="1",
        inputs=(Declared(TEXT_INPUT, "BYTES", (1,)),),
        outputs=(Declared(TEXT_OUTPUT, "BYTES", (1,)),),
        generate=generate,
        warm_up=(Sample((SampleTensor(TEXT_INPUT, (1,), ("The ",)),), {"max_tokens": 4}),),
        variants=(variant,),
    )
    return write_package(store, manifest, {variant.file: data})


def _table() -> Array:
    """Log counts of every three characters in a row, FP32 [first, second, third]."""
    text = "\n".join(pydoc_data.topics.topics.values())
    place = {character: index for index, character in enumerate(ALPHABET)}
    ids = np.array([place[character] for character in text if character in place])
    counts = np.full([len(ALPHABET)] * (_ORDER + 1), _UNSEEN, np.float32)
    np.add.at(counts, (ids[:-2], ids[1:-1], ids[2:]), 1)
    table: Array = np.log(counts)
    return table
