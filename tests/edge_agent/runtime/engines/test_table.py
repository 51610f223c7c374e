"""Both engines on the same weights, and what they make of wrong files."""

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from isochrone.deploy.packages.onnx_graph import model_bytes
from isochrone.edge_agent.runtime.engines import onnx_engine
from isochrone.edge_agent.runtime.engines import table as engines
from isochrone.edge_agent.runtime.engines.ort import onnxruntime as ort
from isochrone.edge_agent.runtime.engines.ort import state as ort_state
from isochrone.edge_agent.runtime.loading import verify
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.memory import process_memory as memory
from isochrone.edge_agent.runtime.package.manifest import (
    Declared,
    Linear,
    Manifest,
    Sample,
    SampleTensor,
)
from isochrone.edge_agent.runtime.package.onnx_file import has_external_data
from isochrone.edge_agent.runtime.package.package import PackageError, described, write_package
from isochrone.router.errors import BadRequest, Unavailable
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Tensor, TensorSpec


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def _answer(model, request):
    (answer,) = [part async for part in model.request(request)]
    return answer.outputs[0].data


def _replaced(package, data, **changes):
    """The same package with other bytes in its first file, their digest right."""
    variant = package.manifest.variants[0]
    package.file(variant).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    variant = msgspec.structs.replace(variant, bytes=len(data), sha256=digest, **changes)
    manifest = msgspec.structs.replace(package.manifest, variants=(variant,))
    return type(package)(package.path, manifest)


def _start(package, executor):
    return start(package, package.manifest.variants[0], executor)


def test_engines_agree_on_the_same_weights(write):
    assert verify.problems(write("onnx", "torch")) == []


def test_variants_that_disagree_are_found(write, files):
    package = write("onnx", "torch")
    weights = safetensors.numpy.load(files["small.safetensors"])
    weights["4.bias"] += np.array([0, 1, 0], np.float32)
    data = safetensors.numpy.save(weights)
    onnx_variant, torch_variant = package.manifest.variants
    package.file(torch_variant).write_bytes(data)
    other = msgspec.structs.replace(
        torch_variant, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    manifest = msgspec.structs.replace(package.manifest, variants=(onnx_variant, other))
    (problem,) = verify.problems(type(package)(package.path, manifest))
    assert "differ by more than tolerance" in problem


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("the engine\n broke")])
def test_whatever_an_engine_raises_is_a_problem(write, monkeypatch, error):
    def broken(*_):
        raise error

    package = write("onnx", "torch")
    monkeypatch.setattr(verify, "start", broken)
    problems = verify.problems(package)
    assert len(problems) == 2
    assert str(package.file(package.manifest.variants[0])) in problems[0]
    assert type(error).__name__ in problems[0]


def test_a_file_that_onnxruntime_fails_on_is_tried_once_and_silently(
    write, executor, capsys, monkeypatch
):
    tried = []

    def fail(*_):
        tried.append(1)
        raise RuntimeError("out of arena")

    session = ort.InferenceSession
    monkeypatch.setattr(session, "_create_inference_session", fail)
    with pytest.raises(PackageError, match="out of arena"):
        _start(write(), executor)
    assert (len(tried), capsys.readouterr().out) == (1, "")


def _graph_without_inputs():
    graph = helper.make_graph([], "g", [], [])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a": 1}', id="JSON"),
        pytest.param(pickle.dumps({"0.weight": [1.0]}), id="pickle"),
        pytest.param(b"x", id="one byte"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"\xff" * 100, id="ones"),
        pytest.param(b"0000ORTM" * 20, id="onnxruntime's own format"),
        pytest.param(_graph_without_inputs(), id="an empty graph"),
        pytest.param(b"PK\x03\x04" + b"\0" * 60, id="zip, as TorchScript"),
    ],
)
def test_a_foreign_file_is_refused(write, executor, engine, data):
    package = _replaced(write(engine), data)
    with pytest.raises(PackageError) as told:
        _start(package, executor)
    assert str(package.file(package.manifest.variants[0])) in told.value.message


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_truncated_file_with_a_right_digest_is_refused(write, executor, engine, files):
    whole = files["small.onnx" if engine == "onnx" else "small.safetensors"]
    for length in range(1, len(whole), len(whole) // 12):
        with pytest.raises(PackageError):
            _start(_replaced(write(engine), whole[:length]), executor)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param(
            {"outputs": (Declared("probabilities", "FP32", (-1, 4)),), "labels": ()},
            "says FP32",
            id="output shape",
        ),
        pytest.param(
            {"outputs": (Declared("logits", "FP32", (-1, 3)),)}, "has no tensor 'logits'", id="name"
        ),
        pytest.param(
            {
                "inputs": (Declared("image", "FP32", (-1, 8, 8)),),
                "warm_up": (Sample((SampleTensor("image", (1, 8, 8)),)),),
            },
            "says FP32",
            id="input rank",
        ),
        pytest.param(
            {"warm_up": (Sample((SampleTensor("image", (1, 1, 4, 4)),)),)},
            "refuses a sample",
            id="sample shape",
        ),
        pytest.param(
            {"warm_up": (Sample((SampleTensor("image", (1, 1, 8, 8), (1, 2)),)),)},
            "do not fit",
            id="sample data",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_refused(write, executor, changes, says):
    with pytest.raises(PackageError, match=says):
        _start(write(**changes), executor)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param(
            {"architecture": (Linear(inputs=64, outputs=3),)}, "architecture", id="other layers"
        ),
        pytest.param(
            {"architecture": (Linear(inputs=1 << 20, outputs=1 << 20),)},
            "architecture",
            id="a terabyte that no file holds",
        ),
        pytest.param({"precision": "int8"}, "no precision int8", id="precision"),
    ],
)
def test_an_architecture_that_does_not_fit_the_weights_is_refused(
    write, executor, files, changes, says
):
    package = _replaced(write("torch"), files["small.safetensors"], **changes)
    with pytest.raises(PackageError, match=says):
        _start(package, executor)


def test_output_sizes_are_held_against_the_manifest_by_running(write, executor):
    package = write("torch", outputs=(Declared("p", "FP32", (-1, 5)),), labels=())
    with pytest.raises(
        PackageError, match=r"declared FP32 \[-1, 5\], the model gives FP32 \[2, 3\]"
    ):
        _start(package, executor)


def _model(graph):
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _outside(name="table"):
    tensor = numpy_helper.from_array(np.ones((3, 4), np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, "../../secret.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def _with_initializer():
    node = helper.make_node("Gather", ["table", "ids"], ["rows"])
    return _model(helper.make_graph([node], "g", [], [], [_outside()]))


def _with_constant():
    node = helper.make_node("Constant", [], ["rows"], value=_outside())
    return _model(helper.make_graph([node], "g", [], []))


def _with_branch():
    inner = helper.make_graph([], "inner", [], [], [_outside()])
    node = helper.make_node("If", ["c"], ["rows"], then_branch=inner, else_branch=inner)
    return _model(helper.make_graph([node], "g", [], []))


@pytest.mark.parametrize("make", [_with_initializer, _with_constant, _with_branch])
def test_weights_in_other_files_are_refused(write, executor, make):
    data = make().SerializeToString()
    assert has_external_data(data)
    with pytest.raises(PackageError, match="package build puts them inside"):
        _start(_replaced(write(), data), executor)


def _varint(number, width=1):
    """A number in protobuf's way, in `width` bytes at least."""
    parts: list[int] = []
    while number >= 0x80 or len(parts) < width - 1:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


_GRAPH = 7 << 3 | 2


@pytest.mark.parametrize(
    "tag",
    [
        pytest.param(_varint(_GRAPH | 1 << 32), id="a bit that others drop"),
        pytest.param(_varint(_GRAPH, width=6), id="six bytes"),
        pytest.param(_varint(2), id="field 0"),
        pytest.param(_varint(7 << 3 | 3), id="group"),
        pytest.param(_varint(7 << 3 | 6), id="no wire type"),
    ],
)
def test_a_tag_that_others_may_read_otherwise_is_refused(write, executor, tag):
    model = _with_initializer()
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    data = model.SerializeToString() + tag + _varint(len(graph)) + graph
    with pytest.raises(ValueError, match=r"does not exist"):
        has_external_data(data)
    with pytest.raises(PackageError, match="onnxruntime cannot load it"):
        _start(_replaced(write(), data), executor)


def test_weights_in_other_files_are_not_found_where_the_walk_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(np.ones((3, 4), np.float32).tobytes())
    monkeypatch.setattr(onnx_engine, "has_external_data", lambda _: False)
    table = _outside()
    table.external_data[0].value = "secret.bin"
    shape = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [3, 4])]
    node = helper.make_node("Identity", ["table"], ["rows"])
    data = _model(helper.make_graph([node], "g", [], shape, [table])).SerializeToString()
    with pytest.raises(PackageError, match="External data"):
        onnx_engine.open_session(data, "here", 1)


def test_weights_inside_are_no_other_file(files):
    assert not has_external_data(files["small.onnx"])


async def test_texts_and_indices_beyond_the_table(tmp_path, executor):
    takes, gives = TensorSpec("place", "INT64", (-1,)), TensorSpec("word", "BYTES", (-1,))
    node = helper.make_node("Gather", ["words", "place"], ["word"])
    inputs = [helper.make_tensor_value_info("place", TensorProto.INT64, ["n"])]
    outputs = [helper.make_tensor_value_info("word", TensorProto.STRING, ["n"])]
    words = numpy_helper.from_array(np.array(["one", "zwölf"], object), "words")
    data = _model(helper.make_graph([node], "g", inputs, outputs, [words])).SerializeToString()
    package = write_package(
        tmp_path,
        _words_manifest(takes, gives, described(data, name="o", engine="onnx", file="w.onnx")),
        {"w.onnx": data},
    )
    model = engines.engine("onnx").build(package, package.manifest.variants[0], executor, 1)
    model.startup()
    both = InferRequest((Tensor("place", "INT64", np.array([1, 0])),))
    assert (await _answer(model, both)).tolist() == ["zwölf".encode(), b"one"]
    with pytest.raises(BadRequest, match="cannot compute these inputs"):
        await _answer(model, InferRequest((Tensor("place", "INT64", np.array([2])),)))
    assert model.is_healthy()
    model.shutdown()
    assert not model.is_healthy()


def _words_manifest(takes, gives, variant):
    return Manifest(
        name="words",
        version="1",
        inputs=(Declared.of(takes),),
        outputs=(Declared.of(gives),),
        warm_up=(Sample((SampleTensor("place", (1,)),)),),
        variants=(variant,),
    )


def named(store, node):
    """A package of `x + b`, whose one node is called so; `b` has three elements."""
    bias = numpy_helper.from_array(np.ones(3, np.float32), "b")
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n"]) for end in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "b"], ["y"], node)], "sum", ends[:1], ends[1:], [bias]
    )
    opset = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    manifest = Manifest(
        name="portfolio",
        version="1",
        inputs=(Declared("x", "FP32", (-1,)),),
        outputs=(Declared("y", "FP32", (3,)),),
        warm_up=(Sample((SampleTensor("x", (3,)),)),),
        variants=(described(data, name="onnx", engine="onnx", file="model.onnx"),),
    )
    return write_package(store, manifest, {"model.onnx": data})


@pytest.mark.parametrize("node", ["/portfolio_allocation/Add", "/bad_alloc/Failed to allocate"])
def test_a_word_in_a_nodes_name_is_no_want_of_memory(tmp_path, executor, node):
    model = _start(named(tmp_path, node), executor)
    four = Tensor("x", "FP32", np.ones(4, np.float32))
    with pytest.raises(BadRequest, match="cannot compute"):
        model.compute(model.feed(InferRequest((four,))))


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_want_of_memory_is_told_by_the_memory(write, executor, engine, monkeypatch):
    """A failure of the same type as a wrong size, and nothing can be had any more."""

    def failing(*_):
        raise ort_state.Fail("words") if engine == "onnx" else RuntimeError("words")

    model = _start(write(engine), executor)
    monkeypatch.setattr(memory, "can_take", lambda _bytes: False)
    if engine == "onnx":
        monkeypatch.setattr(model, "_session", type("Session", (), {"run": failing})())
    else:
        monkeypatch.setattr(model._network, "forward", failing)
    image = Tensor("image", "FP32", np.ones((1, 1, 8, 8), np.float32))
    with pytest.raises(Unavailable, match="ran out of memory"):
        model.compute(model.feed(InferRequest((image,))))


def test_sizes_that_torch_cannot_put_together_are_the_callers(write, executor):
    model = _start(write("torch"), executor)
    with pytest.raises(BadRequest, match="do not fit"):
        model._run(np.ones((1, 2, 8, 8), np.float32))


def test_the_same_weights_make_the_same_onnx_bytes():
    takes, gives = TensorSpec("x", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1, 2))
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    assert model_bytes(nodes, takes, gives, {}) == model_bytes(nodes, takes, gives, {})
