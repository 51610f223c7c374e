"""`isochrone package export|quantize|prune|distill` on models that were trained for real."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import helper

from isochrone.deploy import cli
from isochrone.deploy.packages.kept_sample import as_sample
from isochrone.deploy.packages.measure import deviation, right_share
from isochrone.deploy.packages.onnx_graph import onnx_bytes
from isochrone.edge_agent.runtime.loading import verify
from isochrone.edge_agent.runtime.loading.choice import Choices
from isochrone.edge_agent.runtime.package.manifest import (
    Conv2d,
    Declared,
    Flatten,
    KeepIf,
    Linear,
    Manifest,
    Relu,
    Sample,
    SampleTensor,
)
from isochrone.edge_agent.runtime.package.package import (
    SIGNATURE,
    PackageError,
    described,
    open_package,
    write_package,
)
from isochrone.router.errors import ConfigError
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.tensor import TensorSpec

ANY_SPEED = "speed_up=0,compression=0"
X, Y = TensorSpec("x", "FP32", (-1, 512)), TensorSpec("y", "FP32", (-1, 10))
DENSE = (
    Linear(inputs=512, outputs=1536),
    Relu(),
    Linear(inputs=1536, outputs=512),
    Relu(),
    Linear(inputs=512, outputs=10),
)


def _content(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture
def dense(tmp_path):
    """1.6 million parameters, ONNX; variants may lose a tenth of its answers."""
    rng = np.random.default_rng(2)
    weights = {}
    for place, layer in enumerate(DENSE):
        if isinstance(layer, Linear):
            shape = layer.outputs, layer.inputs
            scale = np.sqrt(2 / layer.inputs)
            weights[f"{place}.weight"] = (rng.normal(size=shape) * scale).astype(np.float32)
            weights[f"{place}.bias"] = np.zeros(layer.outputs, np.float32)
    model = onnx.load_from_string(onnx_bytes(DENSE, weights, X, Y))
    for one in model.graph.initializer:  # as torch.onnx writes them
        model.graph.value_info.append(
            helper.make_tensor_value_info(one.name, one.data_type, one.dims)
        )
    data = model.SerializeToString()
    manifest = Manifest(
        name="dense",
        version="1",
        inputs=(Declared.of(X),),
        outputs=(Declared.of(Y),),
        keep_if=KeepIf(accuracy_loss=0.1),
        warm_up=(Sample((SampleTensor("x", (1, 512)),)),),
        variants=(described(data, name="onnx-fp32", engine="onnx", file="dense.onnx"),),
    )
    return write_package(tmp_path / "store", manifest, {"dense.onnx": data}).path


KEEP = ("--keep-unproven",)
ANY_VERDICT = f"accuracy_loss=1,{ANY_SPEED}"


def _with_kept_sample(path, folder):
    """The package with one sample that was given, too large to stand in its manifest."""
    package = open_package(path)
    (spec,) = package.takes
    data = np.random.default_rng(4).random((65, *spec.shape[1:]), np.float32)
    sample, files = as_sample(1, [spec], {spec.name: data}, ())
    sample = msgspec.structs.replace(sample, real=True)
    manifest = msgspec.structs.replace(package.manifest, warm_up=(sample,))
    files.update({one.file: package.read(one) for one in manifest.variants})
    return write_package(folder, manifest, files).path


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(("quantize", "digits"), id="quantize"),
        pytest.param(("prune", "digits"), id="prune onnx"),
        pytest.param(("prune", "digits-large"), id="prune torch"),
        pytest.param(("export", "digits-large"), id="export"),
        pytest.param(("distill", "digits"), id="distill"),
        pytest.param(("distill", "digits", "--name", "small"), id="distill to a package"),
    ],
)
def test_every_maker_takes_the_kept_samples_along(store, run, images, tmp_path, action):
    word, name, *more = action
    path = _with_kept_sample(store / name / "1", tmp_path / "kept")
    if word == "distill":
        more += ["--data", images / "learnt.npz", "--hidden", "8", "--epochs", "1"]
    evaluation = ("--evaluation", images / "held_out.npz")
    code, result, printed = run(word, path, *more, *evaluation, "--keep-if", ANY_VERDICT)
    assert code == 0, printed.out
    package = open_package(Path(result["package"]))
    (kept,) = package.manifest.kept()
    assert package.read(kept)
    assert not verify.problems(package)


def test_a_draft_that_cannot_be_judged_is_told_without_a_temporary_path(dense, run, monkeypatch):
    monkeypatch.setattr(
        "isochrone.edge_agent.runtime.loading.verify.problems",
        lambda package: [f"{package.path}: is wrong"],
    )
    with pytest.raises(PackageError) as refusal:
        run("quantize", dense)
    assert refusal.value.message == "dense/1: is wrong"


def test_a_variant_may_deviate_as_far_as_it_did_on_the_samples(dense, run, tmp_path):
    """`verify` compares the answers to the samples, whatever it was judged on."""
    np.save(tmp_path / "zeros.npy", np.zeros((20, 512), np.float32))
    arguments = ("--evaluation", tmp_path / "zeros.npy", "--keep-if", ANY_VERDICT)
    code, result, printed = run("quantize", dense, *arguments)
    assert code == 0, printed.out
    package = open_package(dense)
    made = package.manifest.variants[1].made
    assert made
    assert made.deviation == result["deviation"] > package.manifest.tolerance
    assert not verify.problems(package)


def test_answers_of_another_shape_are_infinitely_far_apart():
    two, three, none = (np.zeros(count, np.float32) for count in (2, 3, 0))
    assert deviation([[two]], [[three]]) == float("inf")
    assert deviation([[none]], [[none]]) == 0.0
    assert right_share(two, three, 0.1) == 0
    assert right_share(none, none, 0.1) == 1


def test_what_was_judged_on_made_up_inputs_is_kept_only_when_asked(dense, run):
    rule = ("--keep-if", "accuracy_loss=1,speed_up=0")
    before = _content(dense)
    code, result, printed = run("quantize", dense, *rule)
    assert (code, result["ok"], result["evaluation"]) == (3, False, "made-up inputs")
    assert "not kept, because made-up inputs show what it costs" in printed.out
    assert "--evaluation FILE" in printed.out
    assert _content(dense) == before
    code, result, _ = run("quantize", dense, *rule, *KEEP)
    assert (code, result["ok"]) == (0, True)
    assert [one.batch for one in open_package(dense).manifest.variants] == [None, "none"]


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_large_network_is_smaller_and_faster_in_8_bits(dense, run, tmp_path, mode):
    np.save(tmp_path / "typical.npy", np.random.default_rng(3).random((100, 512), np.float32))
    data = ("--calibration", tmp_path / "typical.npy") if mode == "static" else ()
    code, result, printed = run("quantize", dense, "--mode", mode, *data, *KEEP)
    assert code == 0, printed.out
    assert result["ok"]
    assert result["compression"] > 3.5
    assert result["speed_up"] > 1.1
    package = open_package(dense)
    variant = package.manifest.variants[1]
    assert (variant.name, variant.precision) == (f"onnx-int8-{mode}", "int8")
    assert variant.made
    assert (variant.made.source, variant.made.by) == ("onnx-fp32", f"quantize {mode}")
    assert not verify.problems(package)
    assert Choices(monotonic).choose(package) == variant, "the agent runs what is faster"


def test_a_maker_that_is_terminated_leaves_nothing_behind(dense, tmp_path, monkeypatch):
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    monkeypatch.setenv("TMPDIR", str(drafts))
    words = [sys.executable, "-m", "isochrone.deploy.cli", "package", "quantize", str(dense)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not list(drafts.glob("isochrone-*")) and process.poll() is None:
            time.sleep(0.01)
        process.terminate()
        assert process.wait() == 143
    assert not list(drafts.iterdir())


def test_a_network_of_kilobytes_is_not(store, run, images):
    before = _content(store / "digits/1")
    evaluation = ("--evaluation", images / "held_out.npz")
    code, result, printed = run("quantize", store / "digits/1", *evaluation)
    assert (code, result["ok"], result["evaluation"]) == (3, False, "labels")
    assert "not kept, because" in printed.out
    assert result["before"]["right_share"] == pytest.approx(result["after"]["right_share"], abs=0.1)
    assert _content(store / "digits/1") == before


def test_torch_becomes_onnx_and_says_the_same(store, run, images):
    path = store / "digits-large/1"
    (path / SIGNATURE).write_text("of the package as it was")
    evaluation = ("--evaluation", images / "held_out.npz")
    code, result, printed = run("export", path, *evaluation)
    assert code == 0, printed.out
    assert f"isochrone package sign {path}" in printed.out
    assert result["items"] == 540
    assert result["deviation"] < 1e-5
    assert result["accuracy_loss"] == 0
    package = open_package(path)
    assert [one.engine for one in package.manifest.variants] == ["torch", "onnx"]
    assert not verify.problems(package)
    with pytest.raises(ConfigError, match="has a variant onnx-fp32"):
        run("export", path, *evaluation)
    assert open_package(path) == package


def test_a_pruned_network_learns_again_what_it_lost(store, run, images):
    path = store / "digits-large/1"
    evaluation = ("--evaluation", images / "held_out.npz")
    code, lost, _ = run("prune", path, *evaluation, "--keep-if", ANY_SPEED)
    assert (code, lost["compression"] > 3) == (3, True)
    assert lost["accuracy_loss"] > 0.05
    data = ("--data", images / "learnt.npz", "--epochs", "16")
    rule = ("--keep-if", f"accuracy_loss=0.02,{ANY_SPEED}")
    code, tuned, printed = run("prune", path, *evaluation, *data, *rule)
    assert code == 0, printed.out
    assert tuned["accuracy_loss"] <= 0.02
    assert "epoch 16 of 16" in printed.err
    pruned = open_package(path).manifest.variants[1]
    layers = pruned.architecture or ()
    assert [one.outputs for one in layers if isinstance(one, Conv2d | Linear)] == [16, 32, 16, 10]


def test_an_onnx_network_is_pruned_too(dense, run):
    code, result, printed = run(
        "prune", dense, "--share", "0.3", "--keep-if", "accuracy_loss=1", *KEEP
    )
    assert code == 0, printed.out
    assert result["compression"] > 1.5
    assert "cut: Gemm" in printed.out


def test_a_student_becomes_a_package_of_its_own(store, run, images, tmp_path):
    student = tmp_path / "student.yaml"
    student.write_text(
        "architecture: [{layer: flatten}, {layer: linear, inputs: 64, outputs: 24},"
        " {layer: relu}, {layer: linear, inputs: 24, outputs: 10}]"
    )
    evaluation = ("--evaluation", images / "held_out.npz")
    arguments = (
        *("distill", store / "digits-large/1", *evaluation, "--data", images / "learnt.npz"),
        *("--student", student, "--name", "digits-mlp", "--keep-if", "accuracy_loss=0.06"),
    )
    code, result, printed = run(*arguments)
    assert code == 0, printed.out
    assert result["after"]["right_share"] > 0.93
    package = open_package(store / "digits-mlp/1")
    (variant,) = package.manifest.variants
    assert variant.made
    assert variant.made.source == "digits-large/1 torch-fp32"
    assert not verify.problems(package)
    with pytest.raises(ConfigError, match="is there already"):
        run(*arguments)


def test_data_without_an_evaluation_are_split(store, run, images):
    arguments = ("--data", images / "learnt.npz", "--hidden", "8", "--epochs", "1")
    code, result, printed = run("distill", store / "digits/1", *arguments)
    assert code == 3, "one epoch teaches little"
    assert result["items"] == 1257 // 5
    assert "1006 items" in printed.err


def test_what_a_source_had_lost_counts_for_what_is_made_of_it(dense, run):
    run("prune", dense, "--share", "0.05", "--keep-if", "speed_up=0,accuracy_loss=1", *KEEP)
    source = open_package(dense).manifest.variants[1]
    assert source.made
    lost = source.made.right_share_before - source.made.right_share
    assert lost > 0
    _, result, _ = run("quantize", dense, "--variant", source.name)
    fell = result["before"]["right_share"] - result["after"]["right_share"]
    assert result["accuracy_loss"] == pytest.approx(lost + fell)


def test_a_variant_that_fails_on_disk_leaves_the_package_as_it_was(dense, run, monkeypatch):
    before = _content(dense)
    monkeypatch.setattr("pathlib.Path.replace", _full)
    with pytest.raises(PackageError, match="No space left"):
        run("quantize", dense, "--keep-if", "speed_up=0", *KEEP)
    assert _content(dense) == before


def _full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        pytest.param(("export", "digits/1"), ConfigError, "no variant of engine torch", id="onnx"),
        pytest.param(
            ("quantize", "digits-large/1"), ConfigError, r"it has torch-fp32 \(torch\)", id="torch"
        ),
        pytest.param(
            ("quantize", "digits/1", "--mode", "static"), ConfigError, "--calibration", id="blind"
        ),
        pytest.param(
            ("quantize", "digits/1", "--as", "onnx-fp32"), ConfigError, "has a variant", id="taken"
        ),
        pytest.param(
            ("quantize", "digits/1", "--as", "../x"), ConfigError, "--as ../x: must", id="a path"
        ),
        pytest.param(
            ("quantize", "digits/1", "--keep-if", "speed=2"), ConfigError, "its keys are", id="rule"
        ),
        pytest.param(("quantize", "none/1"), PackageError, "none/1/model.yaml", id="no package"),
        pytest.param(
            ("prune", "digits/1", "--data", "IMAGES"), ConfigError, "only torch variants", id="tune"
        ),
        pytest.param(
            ("distill", "digits/1", "--data", "IMAGES", "--student", "STUDENT"),
            ConfigError,
            "STUDENT: the network's layers do not fit",
            id="a student of another shape",
        ),
    ],
)
def test_bad_input_is_told_and_changes_nothing(
    store, run, images, tmp_path, arguments, error, says
):
    student = tmp_path / "STUDENT"
    student.write_text("architecture: [{layer: linear, inputs: 64, outputs: 10}]")
    known = {"IMAGES": images / "learnt.npz", "STUDENT": student}
    action, path, *rest = arguments
    before = {place: _content(store / place) for place in ("digits/1", "digits-large/1")}
    with pytest.raises(error, match=says):
        run(action, store / path, *(known.get(one, one) for one in rest))
    assert {place: _content(store / place) for place in before} == before


def test_a_network_with_one_layer_cannot_be_cut(tmp_path, run):
    layers = (Flatten(), Linear(inputs=512, outputs=10))
    weights = {"1.weight": np.ones((10, 512), np.float32), "1.bias": np.ones(10, np.float32)}
    data = safetensors.numpy.save(weights)
    variant = described(data, name="t", engine="torch", file="t.safetensors", architecture=layers)
    manifest = Manifest(
        name="flat",
        version="1",
        inputs=(Declared.of(X),),
        outputs=(Declared.of(Y),),
        warm_up=(Sample((SampleTensor("x", (1, 512)),)),),
        variants=(variant,),
    )
    package = write_package(tmp_path, manifest, {variant.file: data})
    with pytest.raises(PackageError, match="nothing in it can be cut"):
        run("prune", package.path)


@pytest.mark.parametrize("action", ["export", "quantize", "prune", "distill"])
def test_the_help_says_what_becomes_of_the_variant(action, capsys):
    with pytest.raises(SystemExit):
        cli.main(["package", action, "--help"])
    said = capsys.readouterr().out
    assert "keep_if:" in said
    assert "3 not kept" in said
