"""What a package on disk may be, and that nothing else is ever handed to an engine."""

import hashlib
import pickle
import shutil

import msgspec
import pytest

from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.edge_agent.runtime.package.package import (
    MANIFEST,
    PackageError,
    open_package,
    packages_in,
    write_package,
)


def test_what_was_written_is_what_is_read(write, files):
    package = write("onnx", "torch")
    assert open_package(package.path).manifest == package.manifest
    assert [package.read(variant) for variant in package.manifest.variants] == list(files.values())


def test_the_same_content_gives_the_same_bytes_and_may_be_written_again(write):
    package = write()
    before = {path.name: path.read_bytes() for path in package.path.iterdir()}
    write()
    assert {path.name: path.read_bytes() for path in package.path.iterdir()} == before
    shutil.rmtree(package.path)
    assert {path.name: path.read_bytes() for path in write().path.iterdir()} == before


def test_a_version_is_never_overwritten_with_other_content(write):
    package = write()
    with pytest.raises(PackageError, match="another version"):
        write(labels=("x", "y", "z"))
    assert open_package(package.path).manifest.labels == ("a", "b", "c")


def test_a_failed_write_leaves_nothing(tmp_path, write):
    package = write()
    manifest = msgspec.structs.replace(package.manifest, version="2")
    with pytest.raises(PackageError, match="cannot be written"):
        write_package(tmp_path, manifest, {"no/such/folder.onnx": b"x"})
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["1"]


def test_a_name_that_leaves_the_store_is_not_written(tmp_path, write):
    manifest = msgspec.structs.replace(write().manifest, name="../elsewhere")
    with pytest.raises(PackageError, match="name"):
        write_package(tmp_path / "store", manifest, {})
    assert not (tmp_path / "elsewhere").exists()


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _to_link(path):
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(_flip, "sha256 is", id="a flipped byte"),
        pytest.param(lambda p: p.write_bytes(p.read_bytes()[:-9]), "promised", id="truncated"),
        pytest.param(lambda p: p.write_bytes(p.read_bytes() + b"x"), "promised", id="too long"),
        pytest.param(lambda p: p.unlink(), "No such file", id="gone"),
        pytest.param(_to_link, "cannot be read", id="a link out of the directory"),
    ],
)
def test_bytes_that_are_not_the_promised_ones_are_not_handed_out(write, spoil, says):
    package = write()
    variant = package.manifest.variants[0]
    spoil(package.file(variant))
    with pytest.raises(PackageError, match=says) as told:
        package.read(variant)
    assert str(package.file(variant)) in told.value.message
    assert "again" in told.value.message


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda p: p.write_bytes(p.read_bytes()[:-9]), id="truncated"),
        pytest.param(lambda p: p.unlink(), id="gone"),
        pytest.param(_to_link, id="a link"),
    ],
)
def test_a_package_with_a_wrong_file_does_not_open(write, spoil):
    package = write()
    spoil(package.file(package.manifest.variants[0]))
    with pytest.raises(PackageError, match="build or copy the package again"):
        open_package(package.path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param("sha256: ", "sha1: ", r"model.yaml:\d+:\d+: .*sha1.*not a key", id="typo"),
        pytest.param("engine: onnx", "engine: tensorrt", "must be onnx or torch", id="engine"),
        pytest.param("name: small", "name: other", "move the directory", id="foreign directory"),
        pytest.param("file: small.onnx", "file: ../small.onnx", "file", id="path escape"),
        pytest.param("file: small.onnx", "file: /etc/small.onnx", "file", id="absolute path"),
        pytest.param("file: small.onnx", "file: small.pkl", "must end in .onnx", id="pickle"),
        pytest.param("datatype: FP32", "datatype: FLOAT", "datatype", id="unknown datatype"),
        pytest.param("labels: [a, b, c]", "labels: [a, b]", "2 are given", id="labels"),
        pytest.param("labels: [a, b, c]", "labels: [a, b, a]", "twice", id="label twice"),
        pytest.param("name: image", "name: picture", "must hold exactly", id="sample"),
        pytest.param("name: small\n", "", "name is missing", id="missing key"),
        pytest.param("name: small", "name: [small", r"model.yaml:\d+", id="no YAML"),
        pytest.param("engine: onnx", "engine: torch", "file", id="weights of another engine"),
    ],
)
def test_a_wrong_manifest_is_told_with_its_place(write, edit, old, new, says):
    package = write()
    edit(package.path, old, new)
    with pytest.raises(PackageError, match=says) as told:
        open_package(package.path)
    assert str(package.path / MANIFEST) in told.value.message


def test_a_pickle_is_never_unpickled(write):
    ran: list[str] = []

    class Trap:
        def __reduce__(self):
            return ran.append, ("code of the package",)

    package = write()
    package.file(package.manifest.variants[0]).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(PackageError):
        open_package(package.path)
    assert ran == []


def test_one_bad_package_does_not_hide_the_others(tmp_path, write, edit):
    good, bad = write(version="1"), write(version="2")
    edit(bad.path, "engine: onnx", "engine: onyx")
    (tmp_path / "small" / ".3-half-written").mkdir()
    packages, errors = packages_in(tmp_path)
    assert [package.path for package in packages] == [good.path]
    assert [str(bad.path) in error.message for error in errors] == [True]


def test_a_store_that_is_not_there_is_told(tmp_path):
    packages, (error,) = packages_in(tmp_path / "nowhere")
    assert packages == []
    assert "nowhere" in error.message


def test_digests_are_those_of_the_files(write, files):
    (variant,) = write().manifest.variants
    assert variant.sha256 == hashlib.sha256(files["small.onnx"]).hexdigest()
    assert variant.bytes == len(files["small.onnx"])


def test_others_may_read_what_was_written(write):
    package = write()
    assert package.path.stat().st_mode & 0o055 == 0o055


def test_the_manifest_has_a_closed_shape():
    assert Manifest.__struct_config__.forbid_unknown_fields
    assert Manifest.__struct_config__.frozen
