"""`package build` of graphs as exporters write them: sizes left open, shapes that are wrong."""

import argparse
import json
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from isochrone.deploy import cli
from isochrone.deploy.packages import package as command
from isochrone.deploy.packages.onnx_package import Wanted, build
from isochrone.edge_agent.runtime.calls.model import DirectModel
from isochrone.edge_agent.runtime.loading import warmup
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.loading.stopwatch import Stopwatch
from isochrone.edge_agent.runtime.package.package import PackageError, open_package
from isochrone.router.errors import BadRequest, ConfigError
from isochrone.router.process.clock import monotonic
from isochrone.router.wire import codec
from isochrone.router.wire.json_codec import BINARY_WISHES
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.tensor import Tensor
from tests.deploy import onnx_suite


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(folder, nodes, inputs, outputs, constants=(), *, opset=21, ir=10, metadata=()):
    tensors = [numpy_helper.from_array(array, name) for name, array in constants]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    helper.set_model_props(model, dict(metadata))
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def built(path, *, samples=(), said=None):
    notes = [] if said is None else said
    store = path.parent / "models"
    return build(path, store, Wanted("net", samples=tuple(samples)), notes.append)


def started(package):
    model = start(package, package.manifest.variants[0], Stopwatch(monotonic))
    assert isinstance(model, DirectModel)
    return model


@pytest.fixture
def serve():
    """The answer of a package to arrays by name, through the binary form of the wire."""

    def served(package, **arrays):
        model = started(package)
        kinds = {spec.name: spec.datatype for spec in package.takes}
        tensors = tuple(Tensor(name, kinds[name], data) for name, data in arrays.items())
        fields, body = codec.encode_request(InferRequest(tensors, parameters={BINARY_WISHES: True}))
        try:
            request = codec.decode_request(fields, body, package.takes)
            outputs = model.compute(model.feed(request))
        finally:
            model.shutdown()
        answer = codec.encode_response(request, InferResponse("net", "1", outputs))
        return {one.name: one.data for one in codec.decode_response(*answer).outputs}

    return served


def shapes(package):
    return [{one.name: one.shape for one in sample.inputs} for sample in package.manifest.warm_up]


def test_a_batch_is_one_and_other_open_sizes_are_typical(tmp_path):
    node = helper.make_node("Add", ["x", "y"], ["z"])
    inputs = [value("x", ["batch_size", "seq", 4]), value("y", ["batch_size", "seq", 4])]
    package = built(save(tmp_path, [node], inputs, [value("z", ["batch_size", "seq", 4])]))
    first, second = shapes(package)
    assert first == {"x": (1, 32, 4), "y": (1, 32, 4)}
    assert second == {"x": (1, 16, 4), "y": (1, 16, 4)}
    assert package.manifest.inputs[0].shape == (-1, -1, 4)


def test_equal_names_are_equal_sizes_and_a_name_may_be_a_sum(tmp_path):
    nodes = [
        helper.make_node("Concat", ["past", "new"], ["all"], axis=1),
        helper.make_node("Mul", ["all", "mask"], ["z"]),
    ]
    inputs = [
        value("past", ["N", "past_len"]),
        value("new", ["N", "len"]),
        value("mask", ["N", "past_len + len"]),
    ]
    package = built(save(tmp_path, nodes, inputs, [value("z", ["N", "k"])]))
    assert shapes(package)[0] == {"past": (1, 32), "new": (1, 32), "mask": (1, 64)}


def test_a_recurrent_state_has_the_batch_second(tmp_path):
    nodes = [
        helper.make_node("Squeeze", ["state", "zero"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["z"]),
    ]
    inputs = [value("x", [None, 8]), value("state", [1, None, 8])]
    zero = ("zero", np.array([0], np.int64))
    package = built(save(tmp_path, nodes, inputs, [value("z", [None, 8])], [zero]))
    assert shapes(package)[0] == {"x": (1, 8), "state": (1, 1, 8)}


def test_an_output_shape_that_the_exporter_got_wrong_is_open(tmp_path, serve):
    """NonMaxSuppression gives as many rows as it finds, whatever the file says."""
    node = helper.make_node(
        "NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["at"]
    )
    inputs = [
        value("boxes", [1, 6, 4]),
        value("scores", [1, 1, 6]),
        value("most", [1], TensorProto.INT64),
        value("iou", [1]),
        value("least", [1]),
    ]
    package = built(save(tmp_path, [node], inputs, [value("at", [3, 3], TensorProto.INT64)]))
    assert package.manifest.outputs[0].shape == (-1, 3)
    boxes = np.array([[[9.0 * n, 0, 9 * n + 1, 1] for n in range(6)]], np.float32)
    found = serve(
        package,
        boxes=boxes,
        scores=np.ones((1, 1, 6), np.float32),
        most=np.array([5]),
        iou=np.array([0.5], np.float32),
        least=np.array([0.0], np.float32),
    )
    assert found["at"].shape == (5, 3)


def test_a_fixed_output_size_is_kept(tmp_path):
    weights = ("w", np.ones((4, 3), np.float32))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    package = built(save(tmp_path, [node], [value("x", ["n", 4])], [value("y", [5, 3])], [weights]))
    assert package.manifest.outputs[0].shape == (-1, 3)


def test_an_input_whose_rank_is_not_written_down_gets_one_and_a_scalar_stays_one(tmp_path):
    weights = ("w", np.ones((4, 3), np.float32))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Mul", ["z", "rate"], ["y"]),
    ]
    inputs = [value("x", None), value("rate", [])]
    package = built(save(tmp_path, nodes, inputs, [value("y", None)], [weights]))
    assert [one.shape for one in package.manifest.inputs] == [(-1, -1), ()]


def test_ids_are_those_that_the_table_has(tmp_path):
    table = ("table", np.ones((101, 2), np.float32))
    node = helper.make_node("Gather", ["table", "input_ids"], ["y"])
    takes = [value("input_ids", ["batch", "seq"], TensorProto.INT64)]
    package = built(save(tmp_path, [node], takes, [value("y", ["batch", "seq", 2])], [table]))
    (ids,) = warmup.samples(package.manifest, package)[0].inputs
    assert ids.shape == (1, 32)
    assert len(set(ids.data.ravel().tolist())) > 5, "they vary"


def test_scalars_zero_lengths_and_texts_are_served(tmp_path, serve):
    nodes = [
        helper.make_node("Concat", ["x", "none"], ["all"], axis=0),
        helper.make_node("Mul", ["all", "rate"], ["y"]),
        helper.make_node("Identity", ["text"], ["said"]),
    ]
    inputs = [
        value("x", ["n", 2]),
        value("none", [0, 2]),
        value("rate", []),
        value("text", [], TensorProto.STRING),
    ]
    outputs = [value("y", ["m", 2]), value("said", [], TensorProto.STRING)]
    package = built(save(tmp_path, nodes, inputs, outputs))
    assert [one.shape for one in package.manifest.outputs] == [(-1, 2), ()]
    found = serve(
        package,
        x=np.ones((3, 2), np.float32),
        none=np.ones((0, 2), np.float32),
        rate=np.array(2, np.float32),
        text=np.array(b"hello", object),
    )
    assert found["y"].tolist() == [[2.0, 2.0]] * 3
    assert found["said"].tolist() == b"hello"


INT64 = TensorProto.INT64
FITTING: dict[str, tuple[str, dict[str, Any], list[tuple[str, Any]], list[list[Any]]]] = {
    "parts": (
        "Split",
        {"axis": 1},
        [("x", [2, 6]), ("split", [2])],
        [["a", [2, 2]], ["b", [2, 4]]],
    ),
    "a cut": (
        "Slice",
        {},
        [("x", [20, 10, 5]), ("starts", [3]), ("ends", [3]), ("axes", [3]), ("steps", [3])],
        [["y", None]],
    ),
    "a shape": ("Reshape", {}, [("x", [2, 3, 4]), ("shape", [2])], [["y", None]]),
    "patches": (
        "Col2Im",
        {},
        [("x", [1, 5, 5]), ("image_shape", [2]), ("block_shape", [2])],
        [["y", None]],
    ),
}


@pytest.mark.parametrize("case", FITTING)
def test_numbers_that_cut_or_shape_another_input_are_made_up_to_fit_it(tmp_path, case):
    operator, attributes, takes, gives = FITTING[case]
    (data, shape), *vectors = takes
    node = helper.make_node(operator, [n for n, _ in takes], [n for n, _ in gives], **attributes)
    inputs = [value(data, shape), *(value(name, size, INT64) for name, size in vectors)]
    package = built(save(tmp_path, [node], inputs, [value(name, size) for name, size in gives]))
    assert [one.name for one in package.manifest.inputs] == [name for name, _ in takes]


def test_a_scalar_is_made_up_as_an_array(tmp_path):
    node = helper.make_node("Mul", ["x", "rate"], ["y"])
    inputs = [value("x", ["n"]), value("rate", [])]
    package = built(save(tmp_path, [node], inputs, [value("y", ["n"])]))
    (_, rate) = warmup.samples(package.manifest, package)[0].inputs
    assert isinstance(rate.data, np.ndarray)
    assert [tensor.data for tensor in package.manifest.warm_up[0].inputs] == [None, None]


def test_bf16_goes_in_and_out_as_its_bits(tmp_path, serve):
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["wide"], ["y"]),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.BFLOAT16),
    ]
    takes = [value("x", ["n", 2], TensorProto.BFLOAT16)]
    gives = [value("z", ["n", 2], TensorProto.BFLOAT16), value("y", ["n", 2])]
    package = built(save(tmp_path, nodes, takes, gives))
    found = serve(package, x=np.array([[0x3F80, 0x4000]], np.uint16))
    assert found["z"].tolist() == [[0xBF80, 0xC000]]
    assert found["y"].tolist() == [[-1.0, -2.0]]
    none = serve(package, x=np.empty((0, 2), np.uint16))
    assert none["z"].shape == (0, 2)


def test_an_optional_input_may_be_left_out(tmp_path, serve):
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]))
    node = helper.make_node("OptionalHasElement", ["maybe"], ["is_there"])
    path = save(
        tmp_path,
        [node, helper.make_node("Neg", ["x"], ["y"])],
        [value("x", ["n"]), helper.make_value_info("maybe", kind)],
        [value("is_there", [], TensorProto.BOOL), value("y", ["n"])],
    )
    package = built(path)
    assert [one.optional for one in package.manifest.inputs] == [False, True]
    x = np.ones(2, np.float32)
    assert not serve(package, x=x)["is_there"]
    assert serve(package, x=x, maybe=x)["is_there"]
    with pytest.raises(BadRequest, match="'x' is missing"):
        serve(package, maybe=x)
    model = started(package)
    request = InferRequest((Tensor("x", "FP32", x), Tensor("other", "FP32", x)))
    with pytest.raises(BadRequest, match="'other' is unknown"):
        model.feed(request)
    model.shutdown()


def test_an_optional_input_keeps_the_shape_that_the_file_states(tmp_path, serve):
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [4]))
    node = helper.make_node("OptionalGetElement", ["bias"], ["b"])
    nodes = [node, helper.make_node("Add", ["x", "b"], ["y"])]
    inputs = [value("x", ["batch", 4]), helper.make_value_info("bias", kind)]
    package = built(save(tmp_path, nodes, inputs, [value("y", ["batch", 4])]))
    assert package.manifest.inputs[1].shape == (4,)
    x, bias = np.ones((2, 4), np.float32), np.arange(4, dtype=np.float32)
    assert serve(package, x=x, bias=bias)["y"].tolist() == [[1, 2, 3, 4]] * 2


def test_an_optional_input_that_is_never_answered_is_left_out_of_the_samples(tmp_path):
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [4]))
    has = helper.make_node("OptionalHasElement", ["bias"], ["there"])
    get = helper.make_node("OptionalGetElement", ["bias"], ["b"])
    two = numpy_helper.from_array(np.array([2, 2, 2], np.int64), "two")
    with_it = helper.make_graph(
        [
            helper.make_node("Constant", [], ["to"], value=two),
            get,
            helper.make_node("Reshape", ["b", "to"], ["w"]),
        ],
        "with",
        [],
        [value("w", None)],
    )
    without = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["v"])], "without", [], [value("v", None)]
    )
    either = helper.make_node("If", ["there"], ["y"], then_branch=with_it, else_branch=without)
    inputs = [value("x", ["batch", 4]), helper.make_value_info("bias", kind)]
    package = built(save(tmp_path, [has, either], inputs, [value("y", None)]))
    assert [set(sample) for sample in shapes(package)] == [{"x"}]
    assert package.manifest.inputs[1].optional


def test_an_unstated_rank_is_that_of_rows_and_said_to_be_a_guess(tmp_path):
    said: list[str] = []
    nodes = [helper.make_node("Add", ["x", "y"], ["z"])]
    path = save(tmp_path, nodes, [value("x", None), value("y", None)], [value("z", None)])
    package = built(path, said=said)
    assert [one.shape for one in package.manifest.inputs] == [(-1, -1), (-1, -1)]
    assert [text.partition(":")[0] for text in said] == ["input 'x'", "input 'y'"]
    assert all("does not state its rank" in text and "--sample FILE" in text for text in said)


def test_an_input_with_a_default_keeps_it_and_that_is_said(tmp_path):
    said: list[str] = []
    constants = [(name, np.ones(1, np.float32)) for name in "abcde"]
    nodes = [helper.make_node("Sum", ["x", *"abcde"], ["y"])]
    inputs = [value("x", ["n"]), *(value(name, [1]) for name in "abcde")]
    package = built(save(tmp_path, nodes, inputs, [value("y", ["n"])], constants), said=said)
    assert [one.name for one in package.manifest.inputs] == ["x"]
    (told,) = said
    assert told.startswith("calls cannot set 'a', 'b', 'c' and 2 more: the file gives a default")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        pytest.param(
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2])),
            "take the tensors out of the sequence",
            id="a sequence",
        ),
        pytest.param(
            helper.make_tensor_type_proto(TensorProto.FLOAT8E4M3FN, [2]),
            "cast it to a plain number type",
            id="eight bits",
        ),
    ],
)
def test_what_no_request_can_carry_is_refused_with_a_remedy(tmp_path, kind, says):
    inputs = [helper.make_value_info("x", kind)]
    path = save(
        tmp_path,
        [helper.make_node("Identity", ["x"], ["y"])],
        inputs,
        [helper.make_value_info("y", kind)],
    )
    with pytest.raises(PackageError, match=says) as refused:
        built(path)
    assert "'x'" in refused.value.message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"ir": 99}, "its IR version is 99, onnxruntime .* takes up to", id="IR"),
        pytest.param(
            {"opset": 99}, "its opset is 99, .* export it with opset_version=", id="opset"
        ),
    ],
)
def test_a_file_that_is_too_new_is_told_what_is_taken(tmp_path, changes, says):
    node = helper.make_node("Neg", ["x"], ["y"])
    path = save(tmp_path, [node], [value("x", ["n"])], [value("y", ["n"])], **changes)
    with pytest.raises(PackageError, match=says) as refused:
        built(path)
    assert "onnxruntime_src" not in refused.value.message


@pytest.mark.parametrize("which", ["input", "output"])
def test_a_name_that_is_too_long_is_told(tmp_path, which):
    x, y = ("x" * 300, "y") if which == "input" else ("x", "x" * 300)
    node = helper.make_node("Neg", [x], [y])
    path = save(tmp_path, [node], [value(x, ["n"])], [value(y, ["n"])])
    with pytest.raises(PackageError, match="has a name of 300 characters, at most 256") as refused:
        built(path)
    assert len(refused.value.message) < len(str(path)) + 200


def test_metadata_that_clients_need_are_kept_before_others(tmp_path):
    told = {f"key {number:03}": "x" for number in range(90)} | {"labels": "a,b", "names": "{}"}
    node = helper.make_node("Neg", ["x"], ["y"])
    path = save(tmp_path, [node], [value("x", ["n"])], [value("y", ["n"])], metadata=told.items())
    said: list[str] = []
    metadata = built(path, said=said).manifest.metadata
    assert len(metadata) == 64
    assert {"labels", "names", "key 000", "key 061"} <= set(metadata)
    (text,) = said
    assert "'key 062' of 1 characters, 'key 063' of 1 characters" in text
    assert text.endswith("and 25 more")


def test_a_locale_that_is_missing_is_said_to_be_installed(tmp_path):
    node = helper.make_node(
        "StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="xx_XX.UTF-8"
    )
    text = TensorProto.STRING
    path = save(tmp_path, [node], [value("x", ["n"], text)], [value("y", ["n"], text)])
    with pytest.raises(PackageError, match=r"needs the locale xx_XX\.UTF-8,") as refused:
        built(path)
    assert "install that locale here and on every agent" in refused.value.message
    assert "export" not in refused.value.message


def test_a_newer_opset_of_another_domain_is_named(tmp_path):
    node = helper.make_node("Neg", ["x"], ["y"])
    path = save(tmp_path, [node], [value("x", ["n"])], [value("y", ["n"])])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 77))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=r"its opset of ai\.onnx\.ml is 77") as refused:
        built(path)
    assert "target_opset={'ai.onnx.ml': " in refused.value.message
    assert "opset_version" not in refused.value.message


def test_a_refusal_is_of_ids_that_the_table_has(tmp_path):
    """A table of 200 rows refuses large ids; what then fails is a size."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Reshape", ["rows", "to"], ["y"], name="/head/Reshape"),
    ]
    constants = [
        ("table", np.ones((200, 4), np.float32)),
        ("to", np.array([1, 7, 4], np.int64)),
    ]
    inputs = [value("input_ids", ["batch", "seq"], TensorProto.INT64)]
    path = save(tmp_path, nodes, inputs, [value("y", [1, 7, 4])], constants)
    with pytest.raises(PackageError) as refused:
        built(path)
    told = refused.value.message
    assert "/head/Reshape" in told
    assert "out of data bounds" not in told


def test_a_refusal_names_the_input_the_size_and_the_remedy(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"], name="/head/Reshape")]
    to = ("to", np.array([7, 7], np.int64))
    path = save(tmp_path, nodes, [value("x", ["batch", "seq"])], [value("y", [7, 7])], [to])
    with pytest.raises(PackageError) as refused:
        built(path)
    told = refused.value.message
    assert all(part in told for part in ("x [1, 32]", "/head/Reshape", "--sample FILE", str(path)))
    assert not any(part in told for part in (".cc", ".h:", "::", "isochrone-", "/dev/fd"))


@pytest.mark.parametrize(
    ("array", "called"),
    [
        (np.ones((4, 2), np.float16), "fp16"),
        (np.ones((4, 2), np.int8), "int8"),
        (np.ones((4, 2), np.float32), "fp32"),
    ],
)
def test_a_variant_is_called_by_its_precision(tmp_path, array, called):
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    path = save(tmp_path, nodes, [value("x", ["n", 4])], [value("y", ["n", 2])], [("w", array)])
    (variant,) = built(path).manifest.variants
    assert (variant.name, variant.precision) == (f"onnx-{called}", called)


def test_what_a_file_says_of_itself_is_kept_and_shown(tmp_path, capsys):
    told = {"names": "{0: 'person'}", "character": "\n".join("äöü東京é"), "vast": "x" * 300_000}
    node = helper.make_node("Neg", ["x"], ["y"])
    path = save(tmp_path, [node], [value("x", ["n"])], [value("y", ["n"])], metadata=told.items())
    said: list[str] = []
    package = built(path, said=said)
    assert dict(package.manifest.metadata) == {key: told[key] for key in ("names", "character")}
    assert any("'vast' of 300000 characters" in text for text in said)
    assert open_package(package.path).manifest == package.manifest
    command.run(_arguments("inspect", package.path))
    assert "metadata names: {0: 'person'}" in capsys.readouterr().out


def _arguments(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_nan_in_the_answer_to_a_sample_is_said_at_build(tmp_path, capsys):
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["none"]),
        helper.make_node("Div", ["none", "none"], ["scores"]),
    ]
    zero = ("zero", np.array(0, np.float32))
    path = save(tmp_path, nodes, [value("x", ["n"])], [value("scores", ["n"])], [zero])
    words = ("build", "--onnx", path, "--name", "net", "--output", tmp_path / "models")
    assert command.run(_arguments(*words)) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert "'scores' holds NaN or infinity" in said
    assert "binary_data" in said


@pytest.fixture
def picture_net(tmp_path):
    node = helper.make_node("GlobalAveragePool", ["image"], ["mean"])
    inputs = [value("image", ["batch", 3, "height", "width"])]
    return save(tmp_path, [node], inputs, [value("mean", ["batch", 3, 1, 1])])


def test_a_picture_may_be_the_sample(tmp_path, picture_net):
    Image.new("RGB", (100, 70), (255, 0, 51)).save(tmp_path / "red.png")
    package = built(picture_net, samples=[tmp_path / "red.png"])
    (sample,) = package.manifest.warm_up
    assert sample.real
    (tensor,) = warmup.samples(package.manifest, package)[0].inputs
    assert tensor.shape == (1, 3, 64, 96)
    assert tensor.data[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    (kept,) = package.manifest.kept()
    assert (package.path / kept.file).stat().st_size == kept.bytes == 3 * 64 * 96 * 4


def test_several_samples_are_kept_in_their_order(tmp_path, picture_net):
    large = np.random.default_rng(1).random((1, 3, 40, 30), np.float32)
    np.savez(tmp_path / "a.npz", image=large)
    body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 1, 2]}]}
    body["inputs"][0]["data"] = [0.5] * 6
    (tmp_path / "b.json").write_text(json.dumps(body))
    package = built(picture_net, samples=[tmp_path / "a.npz", tmp_path / "b.json"])
    first, second = warmup.samples(package.manifest, package)
    np.testing.assert_array_equal(first.inputs[0].data, large)
    assert second.inputs[0].data.tolist() == np.full((1, 3, 1, 2), 0.5).tolist()
    without_files = warmup.samples(package.manifest)
    assert without_files[0].inputs[0].shape == large.shape


def test_a_spoiled_sample_is_found(tmp_path, picture_net):
    np.savez(tmp_path / "a.npz", image=np.ones((1, 3, 40, 30), np.float32))
    package = built(picture_net, samples=[tmp_path / "a.npz"])
    (kept,) = package.manifest.kept()
    file = package.path / kept.file
    file.write_bytes(bytes(kept.bytes))
    assert command.run(_arguments("verify", package.path)) == 1
    file.write_bytes(b"")
    with pytest.raises(PackageError, match="bytes were promised"):
        open_package(package.path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param("a.json", b'{"inputs": []}', "'image' is missing", id="none"),
        pytest.param("a.json", b"{", "no inference message", id="no JSON"),
        pytest.param("a.npz", b"PK", "no .npz of plain arrays", id="no npz"),
        pytest.param("a.png", b"\x89PNG", "no picture that Pillow reads", id="no picture"),
    ],
)
def test_a_sample_that_cannot_be_used_is_told(tmp_path, picture_net, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says) as refused:
        built(picture_net, samples=[tmp_path / name])
    assert f"--sample {tmp_path / name}" in refused.value.message


def test_a_sample_of_another_shape_is_told(tmp_path, picture_net):
    np.savez(tmp_path / "a.npz", image=np.ones((1, 4, 8, 8), np.float32))
    with pytest.raises(ConfigError, match=r"'image' must have shape \[-1, 3, -1, -1\], not \[1, 4"):
        built(picture_net, samples=[tmp_path / "a.npz"])
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        built(picture_net, samples=[tmp_path / "none.npz"])


def test_a_picture_without_pillow_is_told(tmp_path, picture_net, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "isochrone.deploy.packages.picture", raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "a.png").write_bytes(b"")
    words = ("build", "--onnx", picture_net, "--name", "net", "--sample", tmp_path / "a.png")
    assert cli.main(["package", *map(str, words)]) == 2
    assert "pip install 'isochrone[demo]'" in capsys.readouterr().err


def test_a_sample_shows_what_made_up_inputs_cannot(tmp_path, serve):
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"])]
    to = ("to", np.array([7, 7], np.int64))
    path = save(tmp_path, nodes, [value("x", ["batch", "seq"])], [value("y", [7, 7])], [to])
    np.savez(tmp_path / "a.npz", x=np.ones((1, 49)))
    package = built(path, samples=[tmp_path / "a.npz"])
    assert serve(package, x=np.ones((1, 49), np.float32))["y"].shape == (7, 7)


STORED = list(onnx_suite.stored_cases())


@pytest.mark.parametrize("case", STORED[::4], ids=lambda case: case.name)
def test_onnx_own_graphs_answer_as_bare_onnxruntime_does(case):
    found, why = onnx_suite.verdict(case)
    if found == "refused":
        assert "seq(tensor" in why
    else:
        assert found in ("alike", "not run by onnxruntime"), why


def test_enough_of_onnx_own_graphs_are_tried():
    assert len(STORED[::4]) > 30
    assert all(isinstance(case.model, onnx.ModelProto) for case in STORED)
    assert ort.get_available_providers()
