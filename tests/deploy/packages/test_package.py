"""`isochrone package` on real files."""

import argparse
import json
import shlex
import subprocess

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from isochrone.deploy.packages import package as command
from isochrone.deploy.packages.onnx_package import Wanted, build
from isochrone.edge_agent.config import check
from isochrone.edge_agent.runtime.package.package import PackageError, open_package
from isochrone.router.errors import ConfigError


def _file(path, nodes, inputs, outputs, constants=()):
    tensors = [numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def _value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def onnx(tmp_path):
    """A linear model of four numbers and three classes."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return _file(
        tmp_path / "mine.onnx",
        nodes,
        [_value("x", ["n", 4])],
        [_value("y", ["n", 3])],
        [("w", weights)],
    )


@pytest.fixture
def run():
    """The command with some arguments."""

    def ran(*arguments):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args([str(one) for one in arguments]))

    return ran


def test_ones_own_model_becomes_a_package_in_one_command(tmp_path, onnx, run, capsys):
    store = tmp_path / "models"
    arguments = ("build", "--onnx", onnx, "--name", "mine", "--labels", "a,b,c")
    assert run(*arguments, "--output", store) == 0
    manifest = open_package(store / "mine" / "1").manifest
    assert [(one.name, one.datatype, one.shape) for one in manifest.inputs] == [
        ("x", "FP32", (-1, 4))
    ]
    assert [(one.name, one.shape) for one in manifest.outputs] == [("y", (-1, 3))]
    assert manifest.labels == ("a", "b", "c")
    said = capsys.readouterr().out
    assert str(store / "mine" / "1") in said
    assert "isochrone agent --config agent.yaml" in said
    assert run(*arguments, "--output", store) == 0, "the same again changes nothing"


def test_the_printed_configuration_is_one(tmp_path, onnx, run, capsys):
    run("build", "--onnx", onnx, "--name", "mine", "--output", tmp_path / "models")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "printf" in line]
    words = shlex.split(line)
    (tmp_path / "agent.yaml").write_text("\n".join(words[2 : words.index(">")]))
    settings = check(tmp_path / "agent.yaml")
    assert settings.packages == tmp_path / "models"
    assert settings.keep_warm == ("mine",)


def test_the_printed_configuration_is_quoted_for_shell_and_yaml(tmp_path, onnx, run, capsys):
    store = tmp_path / "we ird's #d: $HOME"
    run("build", "--onnx", onnx, "--name", "123", "--output", store)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "printf" in line]
    subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, check=True)
    settings = check(tmp_path / "agent.yaml")
    assert settings.packages == store
    assert settings.keep_warm == ("123",)


@pytest.mark.parametrize(
    ("option", "value"), [("--name", "Bad Name!"), ("--name", "../up"), ("--version", "v 1/2")]
)
def test_a_name_that_is_none_is_told_by_its_option(onnx, run, option, value):
    names = {"--name": "mine", option: value}
    with pytest.raises(ConfigError) as refused:
        run("build", "--onnx", onnx, *(word for pair in names.items() for word in pair))
    assert refused.value.message.startswith(f"{option} {value}: must be letters, digits")
    assert "regex" not in refused.value.message


def test_a_file_of_labels_that_is_not_there_is_told(onnx, run):
    with pytest.raises(ConfigError, match=r"--labels nofile\.txt: there is no such file"):
        run("build", "--onnx", onnx, "--name", "mine", "--labels", "nofile.txt")


def test_a_model_without_its_version_is_told_with_it(tmp_path, onnx, run, capsys):
    run("build", "--onnx", onnx, "--name", "mine", "--output", tmp_path)
    assert run("inspect", tmp_path / "mine") == 1
    assert f"holds no package (NAME/VERSION/); give {tmp_path}/mine/1" in capsys.readouterr().out


def test_labels_may_stand_in_a_file(tmp_path, onnx, run):
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    arguments = ("--labels", tmp_path / "labels.txt", "--output", tmp_path / "models")
    assert run("build", "--onnx", onnx, "--name", "mine", *arguments) == 0
    assert open_package(tmp_path / "models/mine/1").manifest.labels == ("one", "two", "three")


def test_a_long_list_of_labels_is_a_list(tmp_path, run):
    labels = [f"class number {number}" for number in range(40)]
    weights = ("w", np.ones((4, 40), np.float32))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [_value("x", ["n", 4])], [_value("y", ["n", 40])]
    path = _file(tmp_path / "many.onnx", [node], *values, [weights])
    arguments = ("--labels", ",".join(labels), "--output", tmp_path / "models")
    assert run("build", "--onnx", path, "--name", "many", *arguments) == 0
    assert open_package(tmp_path / "models/many/1").manifest.labels == tuple(labels)


@pytest.mark.parametrize("labels", ["a" * 300, "."], ids=["too long a name", "a directory"])
def test_labels_that_cannot_be_read_are_told(onnx, run, labels):
    with pytest.raises(ConfigError, match="--labels"):
        run("build", "--onnx", onnx, "--name", "mine", "--labels", labels)


def test_a_long_fixed_dimension_can_be_packaged(tmp_path):
    shape = [1, 160_000]
    node = helper.make_node("Neg", ["x"], ["y"])
    path = _file(tmp_path / "audio.onnx", [node], [_value("x", shape)], [_value("y", shape)])
    made = build(path, tmp_path / "models", Wanted("audio"))
    assert made.manifest.warm_up[0].inputs[0].shape == (1, 160_000)


def test_an_input_that_fills_a_machine_is_told(tmp_path):
    shape = [1 << 20, 1 << 20]
    node = helper.make_node("Neg", ["x"], ["y"])
    path = _file(tmp_path / "vast.onnx", [node], [_value("x", shape)], [_value("y", shape)])
    with pytest.raises(PackageError, match="takes 4398046511104 bytes"):
        build(path, tmp_path / "models", Wanted("vast"))


def test_a_network_that_needs_room_gets_a_larger_sample(tmp_path):
    kernel = ("w", np.ones((2, 1, 5, 5), np.float32))
    path = _file(
        tmp_path / "conv.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [_value("x", ["n", 1, "h", "w_"])],
        [_value("y", ["n", 2, "a", "b"])],
        [kernel],
    )
    made = build(path, tmp_path / "models", Wanted("conv"))
    assert made.manifest.warm_up[0].inputs[0].shape == (1, 1, 224, 224)


def test_an_output_without_a_stated_rank_takes_that_of_an_answer(tmp_path):
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    inputs = [_value("x", ["n"]), _value("shape", ["k"], TensorProto.INT64)]
    path = _file(tmp_path / "r.onnx", [node], inputs, [_value("y", None)])
    made = build(path, tmp_path / "models", Wanted("reshape"))
    assert [one.shape for one in made.manifest.outputs] == [(-1,)]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        pytest.param(Wanted("mine", labels=("a", "b")), "2 are given", id="too few labels"),
        pytest.param(Wanted("mine", labels=("a", "b", "a")), "twice", id="a label twice"),
        pytest.param(Wanted("../mine"), "name", id="a name that leaves the store"),
        pytest.param(Wanted("mine", version="1/2"), "version", id="a version that does"),
    ],
)
def test_a_wish_that_cannot_be_met_leaves_nothing(tmp_path, onnx, wanted, says):
    with pytest.raises(PackageError, match=says):
        build(onnx, tmp_path / "models", wanted)
    assert not (tmp_path / "models").exists()


def test_a_file_that_is_no_model_is_told(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"{}")
    with pytest.raises(PackageError, match=r"no\.onnx"):
        build(tmp_path / "no.onnx", tmp_path / "models", Wanted("no"))
    with pytest.raises(ConfigError, match="No such file"):
        build(tmp_path / "none.onnx", tmp_path / "models", Wanted("none"))


def test_inspect_tells_people_and_programs(tmp_path, onnx, run, capsys):
    package = build(onnx, tmp_path / "models", Wanted("mine"))
    assert run("inspect", package.path, "--json", tmp_path / "out.json") == 0
    assert "takes x: FP32 [-1, 4]" in capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["schema"], result["ok"]) == ("isochrone.package/1", True)
    (told,) = result["packages"]
    assert (told["name"], told["variants"][0]["engine"]) == ("mine", "onnx")


def test_verify_finds_a_flipped_byte(tmp_path, onnx, run, capsys):
    package = build(onnx, tmp_path / "models", Wanted("mine"))
    for path in (package.path, tmp_path / "models"):
        assert run("verify", path) == 0
    assert "verified" in capsys.readouterr().out
    file = package.file(package.manifest.variants[0])
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    for path in (package.path, tmp_path / "models"):
        assert run("verify", path) == 1
        assert "sha256" in capsys.readouterr().out


def test_a_place_without_packages_is_a_problem(tmp_path, run, capsys):
    assert run("verify", tmp_path) == 1
    assert run("inspect", tmp_path / "nowhere", "--json", "-") == 1
    assert '"ok": false' in capsys.readouterr().out
