"""`package build` of models whose exporter wrote the weights beside them."""

import os
import shutil

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from isochrone.deploy.packages import external_data
from isochrone.deploy.packages.external_data import read_whole
from isochrone.deploy.packages.onnx_package import Wanted, build
from isochrone.edge_agent.runtime.package.onnx_file import (
    ExternalData,
    has_external_data,
    with_data_inside,
)
from isochrone.edge_agent.runtime.package.package import PackageError
from isochrone.router.errors import ConfigError

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def _model():
    """A sum of two tables, one of them in a branch."""
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "in_branch"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHTS * 2, "in_branch")],
    )
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["b"], then_branch=inner, else_branch=inner),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _saved(folder, *, location="m.onnx.data", together=True):
    folder.mkdir(exist_ok=True)
    model = _model()
    options = {"all_tensors_to_one_file": together, "location": location if together else None}
    convert_model_to_external_data(model, size_threshold=0, convert_attribute=True, **options)
    onnx.save_model(model, folder / "m.onnx")
    return folder / "m.onnx"


def _renamed(file, **entries):
    """The same, but its table says something else of where its data are."""
    model = onnx.load(file, load_external_data=False)
    table = model.graph.initializer[0]
    told = {entry.key: entry.value for entry in table.external_data} | entries
    del table.external_data[:]
    for key, value in told.items():
        if value is not None:
            table.external_data.add(key=key, value=value)
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize("together", [True, False], ids=["one file", "a file for each"])
def test_data_beside_the_model_are_packed_and_digested_with_it(tmp_path, together):
    file = _saved(tmp_path / "export", together=together)
    package = build(file, tmp_path / "models", Wanted("m"))
    shutil.rmtree(tmp_path / "export")
    (variant,) = package.manifest.variants
    data = package.read(variant)
    assert not has_external_data(data)
    held = onnx.load_from_string(data)
    np.testing.assert_array_equal(numpy_helper.to_array(held.graph.initializer[0]), WEIGHTS)
    onnx.checker.check_model(held)


def test_data_in_a_folder_beside_the_model_are_found(tmp_path):
    file = _saved(tmp_path / "export")
    (tmp_path / "export/weights").mkdir()
    (tmp_path / "export/m.onnx.data").rename(tmp_path / "export/weights/a.bin")
    model = onnx.load(file, load_external_data=False)
    data = model.SerializeToString().replace(b"m.onnx.data", b"weights/abc")
    (tmp_path / "export/weights/a.bin").rename(tmp_path / "export/weights/abc")
    file.write_bytes(data)
    assert build(file, tmp_path / "models", Wanted("m")).name == "m"


def test_without_a_length_the_data_go_on_to_the_end_of_the_file(tmp_path):
    file = _saved(tmp_path / "export", together=False)
    _renamed(file, offset=None, length=None)
    assert not has_external_data(read_whole(file))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_torch_exports_by_default_becomes_a_package(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2))
    file = tmp_path / "cnn.onnx"
    image = torch.randn(2, 3, 5, 5)
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(net.eval(), (image,), file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert list(tmp_path.glob("*.data")), "the exporter writes weights beside the model"
    package = build(file, tmp_path / "models", Wanted("cnn"))
    assert package.manifest.inputs[0].shape == (-1, 3, 5, 5)


def _link(folder):
    (folder / "m.onnx.data").rename(folder.parent / "data")
    (folder / "m.onnx.data").symlink_to(folder.parent / "data")


def _hard_link(folder):
    os.link(folder / "m.onnx.data", folder.parent / "data")


def _pipe(folder):
    (folder / "m.onnx.data").unlink()
    os.mkfifo(folder / "m.onnx.data")


def _gone(folder):
    (folder / "m.onnx.data").unlink()


def _cut(folder):
    (folder / "m.onnx.data").write_bytes(b"too short")


def _folder(folder):
    (folder / "m.onnx.data").unlink()
    (folder / "m.onnx.data").mkdir()


def _pointer(folder):
    (folder / "m.onnx.data").write_bytes(POINTER)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(_link, "is a link", id="a link"),
        pytest.param(_hard_link, "no file of that folder alone", id="a hard link"),
        pytest.param(_pipe, "no file of that folder alone", id="a pipe"),
        pytest.param(_folder, "no file of that folder alone", id="a folder"),
        pytest.param(_pointer, "is a Git LFS pointer, .* run git lfs pull", id="a Git LFS pointer"),
        pytest.param(_gone, "is not there; copy it with the model", id="gone"),
        pytest.param(_cut, "it has 9; copy all of it", id="cut short"),
    ],
)
def test_data_that_are_not_a_plain_whole_file_beside_the_model_are_refused(tmp_path, harm, says):
    file = _saved(tmp_path / "export")
    harm(tmp_path / "export")
    with pytest.raises(PackageError, match=says) as refused:
        build(file, tmp_path / "models", Wanted("m"))
    assert "'m.onnx.data'" in refused.value.message
    assert not (tmp_path / "models").exists()


def test_a_git_lfs_pointer_is_told_from_a_model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(POINTER)
    with pytest.raises(PackageError, match="is a Git LFS pointer, not the model; run git lfs pull"):
        build(tmp_path / "m.onnx", tmp_path / "models", Wanted("m"))


@pytest.mark.parametrize("location", ["../data", "/etc/passwd", "a/../../data", ".."])
def test_data_outside_the_folder_are_refused(tmp_path, location):
    file = _renamed(_saved(tmp_path / "export"), location=location)
    (tmp_path / "data").write_bytes(bytes(48))
    with pytest.raises(PackageError, match="outside the model's folder"):
        build(file, tmp_path / "models", Wanted("m"))


def test_a_linked_folder_on_the_way_is_refused(tmp_path):
    file = _renamed(_saved(tmp_path / "export"), location="away/data")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/data").write_bytes(bytes(48))
    (tmp_path / "export/away").symlink_to(tmp_path / "other")
    with pytest.raises(PackageError, match="is a link, or leads over one"):
        build(file, tmp_path / "models", Wanted("m"))


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({"location": "a\0b"}, id="a zero byte in the name"),
        pytest.param({"location": ""}, id="no name"),
        pytest.param({"offset": "-1"}, id="before the file"),
        pytest.param({"length": "9" * 30}, id="beyond all numbers"),
        pytest.param({"length": "9" * 15}, id="beyond the file"),
        pytest.param({"length": "8"}, id="too few for the shape"),
        pytest.param({"location": "*/_ORT_MEM_ADDR_/*"}, id="the runtime's own memory"),
    ],
)
def test_a_lie_about_the_place_is_refused_in_words(tmp_path, entries):
    file = _renamed(_saved(tmp_path / "export"), **entries)
    with pytest.raises(PackageError, match=r"m\.onnx"):
        build(file, tmp_path / "models", Wanted("m"))


def test_more_than_an_onnx_file_can_hold_is_said(tmp_path, monkeypatch):
    file = _saved(tmp_path / "export")
    monkeypatch.setattr(external_data, "MOST_BYTES", file.stat().st_size + 60)
    with pytest.raises(PackageError, match="export it in 16 bits, or quantise it"):
        build(file, tmp_path / "models", Wanted("m"))
    monkeypatch.setattr(external_data, "MOST_BYTES", 10)
    with pytest.raises(PackageError, match="an ONNX file can have 10"):
        build(file, tmp_path / "models", Wanted("m"))


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_whole(tmp_path / "none.onnx")


@given(st.binary(max_size=64))
def test_any_bytes_are_a_model_or_refused(data):
    def read(_where: ExternalData) -> bytes:
        return b"1234"

    try:
        found = with_data_inside(data, read)
    except ValueError:
        return
    assert not has_external_data(found)
