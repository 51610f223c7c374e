"""A package that writes text, made as docs/packages.md says."""

import asyncio
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from isochrone.edge_agent.runtime.loading import verify
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.package.package import PackageError, open_package
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Tensor

MANUAL = Path(__file__).parents[3] / "docs/packages.md"
ALPHABET = "\n abc"


def _graph() -> bytes:
    """After a letter comes the next one of the alphabet."""
    table = np.zeros([len(ALPHABET)] * 3, np.float32)
    for last in range(len(ALPHABET)):
        table[:, last, (last + 1) % len(ALPHABET)] = 9
    graph = helper.make_graph(
        [helper.make_node("GatherND", ["table", "ids"], ["logits"])],
        "letters",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(ALPHABET)])],
        [numpy_helper.from_array(table, "table")],
    )
    opsets = [helper.make_opsetid("", 21)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return data


@pytest.fixture
def letters(tmp_path):
    """The manual's own manifest, size and digest filled in as it says."""
    section = MANUAL.read_text("utf-8").partition("## Models that write text")[2]
    (text,) = re.findall(r"```yaml\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    data = _graph()
    text = re.sub(r"bytes: \S+", f"bytes: {len(data)}", text)
    text = re.sub(r"sha256: \S+", f"sha256: {hashlib.sha256(data).hexdigest()}", text)
    folder = tmp_path / "letters/1"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(text)
    (folder / "model.onnx").write_bytes(data)
    return folder


def test_the_manual_s_package_is_right_and_writes(letters):
    package = open_package(letters)
    assert not verify.problems(package)
    asked = InferRequest(
        (Tensor("text_input", "BYTES", np.array([b"a"], object)),),
        parameters={"max_tokens": 4, "temperature": 0},
    )
    with ThreadPoolExecutor(1) as executor:
        model = start(package, package.manifest.variants[0], executor)
        try:
            parts = asyncio.run(_parts(model, asked))
        finally:
            model.shutdown()
    assert b"".join(part.outputs[0].data[0] for part in parts) == b"bc\n "


async def _parts(model, asked):
    return [part async for part in model.request(asked)]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param("context: 2", "context: 3", "the manifest says INT64", id="context"),
        pytest.param(" abc", " abcd", "the manifest says FP32", id="alphabet"),
        pytest.param("data: [ab]", "data: [xy]", "does not know 'x'", id="a warm-up letter"),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_told(letters, old, new, says):
    manifest = letters / "model.yaml"
    manifest.write_text(manifest.read_text().replace(old, new))
    (problem,) = verify.problems(open_package(letters))
    assert says in problem


def test_other_inputs_than_text_are_refused(letters):
    manifest = letters / "model.yaml"
    manifest.write_text(manifest.read_text().replace("text_input, datatype", "prompt, datatype"))
    with pytest.raises(PackageError, match="takes text_input and gives text_output"):
        open_package(letters)
