"""Tiny real packages: `double` computes, `words` passes texts on, `talk` writes the alphabet."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper

from isochrone.edge_agent.runtime.package.manifest import (
    Declared,
    Generate,
    Manifest,
    Sample,
    SampleTensor,
)
from isochrone.edge_agent.runtime.package.package import described, write_package

settings.register_profile("here", deadline=None)  # a busy machine changes no verdict
settings.load_profile("here")

ALPHABET = "_abcdefghij"


def model_bytes(nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write(
    store: Path, data: bytes, *, name, inputs, outputs, sample, version="1", others=(), **more
):
    variant = described(data, name="fp32", engine="onnx", file="model.onnx")
    manifest = Manifest(
        name=name,
        version=version,
        inputs=inputs,
        outputs=outputs,
        warm_up=(Sample((sample, *others)),),
        variants=(variant,),
        **more,
    )
    return write_package(store, manifest, {"model.onnx": data})


def write_double(store: Path, name="double", version="1"):
    rows: list[str | int | None] = ["n", 2]
    data = model_bytes(
        [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Sqrt", ["x"], ["root"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, rows) for out in ("y", "root")],
    )
    return write(
        store,
        data,
        name=name,
        version=version,
        inputs=(Declared("x", "FP32", (-1, 2)),),
        outputs=(Declared("y", "FP32", (-1, 2)), Declared("root", "FP32", (-1, 2))),
        sample=SampleTensor("x", (1, 2)),
        labels=("no", "yes"),
    )


def write_words(store: Path):
    data = model_bytes(
        [helper.make_node("Identity", ["text"], ["same"])],
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("same", TensorProto.STRING, ["n"])],
    )
    return write(
        store,
        data,
        name="words",
        inputs=(Declared("text", "BYTES", (-1,)),),
        outputs=(Declared("same", "BYTES", (-1,)),),
        sample=SampleTensor("text", (1,), ("a",)),
    )


def write_talk(store: Path):
    size = len(ALPHABET)
    following = np.roll(np.eye(size, dtype=np.float32), 1, axis=1)
    data = model_bytes(
        [
            helper.make_node("Gather", ["ids", "last"], ["id"], axis=1),
            helper.make_node("Gather", ["table", "id"], ["logits"]),
        ],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, size])],
        [
            numpy_helper.from_array(np.array(3), "last"),
            numpy_helper.from_array(following, "table"),
        ],
    )
    return write(
        store,
        data,
        name="talk",
        inputs=(Declared("text_input", "BYTES", (1,)),),
        outputs=(Declared("text_output", "BYTES", (1,)),),
        sample=SampleTensor("text_input", (1,), ("a",)),
        generate=Generate(alphabet=ALPHABET, context=4),
    )


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A directory of sound packages; tests only read it."""
    path = tmp_path_factory.mktemp("packages")
    write_double(path)
    write_words(path)
    write_talk(path)
    return path
