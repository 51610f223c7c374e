"""Data sets: what fits a package, and what is said of one that does not."""

import msgspec
import numpy as np
import pytest

from isochrone.deploy.packages.dataset import carried, made_up, read
from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import Package, PackageError, described
from isochrone.router.errors import ConfigError
from isochrone.router.wire.tensor import TensorSpec


def every(_request):
    return True


X, Y = TensorSpec("x", "FP32", (-1, 3)), TensorSpec("y", "FP32", (-1, 4))


def _package(tmp_path, *takes):
    variant = described(b"w", name="v", engine="onnx", file="v.onnx")
    takes = takes or (X,)
    sizes = [tuple(2 if size == -1 else size for size in spec.shape) for spec in takes]
    sample = Sample(tuple(map(SampleTensor, (spec.name for spec in takes), sizes)))
    manifest = Manifest(
        name="m",
        version="1",
        inputs=tuple(map(Declared.of, takes)),
        outputs=(Declared.of(Y),),
        warm_up=(sample,),
        variants=(variant,),
    )
    return Package(tmp_path, manifest)


@pytest.fixture
def saved(tmp_path):
    def written(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return written


def test_items_go_into_requests_in_their_order(tmp_path, saved):
    x = np.arange(120).reshape(40, 3)
    data = read(saved(x=x.astype(np.float64), labels=np.zeros(40, int)), _package(tmp_path), "--d")
    assert (data.items_count, data.evaluation) == (40, "labels")
    parts = [request.inputs[0].data for request in data.requests()]
    assert [part.dtype for part in parts] == [np.float32] * 2
    assert np.array_equal(np.concatenate(parts), x)
    assert data.first().inputs[0].shape == (1, 3)


def test_a_model_of_one_input_takes_a_plain_array(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((6, 3), np.float32))
    data = read(tmp_path / "x.npy", _package(tmp_path), "--d")
    assert (data.items_count, data.evaluation) == (6, "agreement")


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_a_fixed_batch_takes_whole_batches_only(tmp_path, saved, batch):
    package = _package(tmp_path, TensorSpec("x", "FP32", (batch, 3)))
    data = read(saved(x=np.ones((3 * batch - 1, 3), np.float32)), package, "--d")
    assert [request.inputs[0].shape for request in data.requests()] == [(batch, 3)] * 2
    assert data.first().inputs[0].shape == (batch, 3)
    assert {one.inputs[0].shape for one in made_up(package, every).asked} == {(batch, 3)}


def test_every_fifth_item_is_held_out(tmp_path, saved):
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    learnt, held_out = read(saved(x=x), _package(tmp_path), "--d").split()
    assert held_out.inputs["x"][:, 0].tolist() == [12, 27]
    assert learnt.items_count == 8


def test_made_up_inputs_are_the_same_every_time(tmp_path):
    first, second = (made_up(_package(tmp_path), every) for _ in range(2))
    assert np.array_equal(first.asked[5].inputs[0].data, second.asked[5].inputs[0].data)
    assert first.evaluation == "made-up inputs"
    assert first.items_count == 64


BERT = tuple(TensorSpec(name, "INT64", (-1, -1)) for name in ("input_ids", "attention_mask"))


def test_made_up_inputs_differ_in_values_and_in_every_open_size(tmp_path):
    asked = made_up(_package(tmp_path, *BERT), every).asked
    shapes = {request.inputs[0].shape for request in asked}
    assert {rows for rows, _ in shapes} == {1, 2, 3}
    assert len({length for _, length in shapes}) >= 4
    ids = [set(request.inputs[0].data.ravel().tolist()) for request in asked]
    assert len(set.union(*ids)) > 500
    assert len({request.inputs[0].data.tobytes() for request in asked}) == len(asked)
    assert all((request.inputs[1].data == 1).all() for request in asked)


def test_made_up_ids_are_those_that_the_model_has(tmp_path):
    asked = made_up(_package(tmp_path, *BERT), lambda one: one.inputs[0].data.max() < 300).asked
    highest = max(request.inputs[0].data.max() for request in asked)
    assert 90 <= highest < 300


def test_a_model_that_answers_nothing_made_up_is_not_judged(tmp_path):
    with pytest.raises(PackageError, match="give --evaluation"):
        made_up(_package(tmp_path), lambda _: False)


@pytest.mark.parametrize(("count", "carries"), [(8, True), (7, False)])
def test_what_a_package_carries_counts_from_eight_samples_on(tmp_path, count, carries):
    package = _package(tmp_path)
    sample = Sample((SampleTensor("x", (1, 3), (0.5, 1.0, 2.0)),), real=True)
    manifest = msgspec.structs.replace(package.manifest, warm_up=(sample,) * count)
    assert bool(carried(Package(tmp_path, manifest))) == carries
    assert not carried(package), "made-up data are none that it carries"
    drawn = msgspec.structs.replace(sample, real=False)
    manifest = msgspec.structs.replace(package.manifest, warm_up=(drawn,) * count)
    assert not carried(Package(tmp_path, manifest))


ONES = np.ones((6, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        pytest.param({"z": ONES}, "no array 'x'.*it has 'z'", id="another name"),
        pytest.param({"x": ONES[:, :2]}, r"\[6, 2\], the model takes \['items', 3\]", id="shape"),
        pytest.param({"x": ONES * 1j}, "complex64", id="datatype"),
        pytest.param({"x": ONES * np.nan}, "no finite", id="not a number"),
        pytest.param({"x": ONES[:0]}, "too few", id="nothing"),
        pytest.param({"x": ONES, "labels": np.zeros(5, int)}, "equally many", id="counts"),
        pytest.param({"x": ONES, "labels": np.zeros(6)}, "classes from 0", id="labels of floats"),
        pytest.param({"x": ONES, "labels": np.full(6, 4)}, "from 0 to 3", id="a class too many"),
        pytest.param({"x": np.array([{}], object)}, "plain numbers", id="pickled objects"),
    ],
)
def test_what_does_not_fit_is_told_with_option_and_file(tmp_path, saved, arrays, says):
    path = saved(**arrays)
    with pytest.raises(ConfigError, match=rf"(?s)--d {path}: .*{says}"):
        read(path, _package(tmp_path), "--d")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"], ids=str)
def test_what_is_no_data_set_is_told(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--d .*bad\.npz: is no \.npz"):
        read(tmp_path / "bad.npz", _package(tmp_path), "--d")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.npz", _package(tmp_path), "--d")


def test_too_few_items_are_not_held_out(tmp_path, saved):
    with pytest.raises(ConfigError, match="too few to hold some out"):
        read(saved(x=ONES[:3]), _package(tmp_path), "--d").split()


def test_inputs_without_items_are_refused(tmp_path, saved):
    with pytest.raises(PackageError, match="no first dimension in common"):
        read(saved(x=ONES[:, 0]), _package(tmp_path, TensorSpec("x", "FP32", ())), "--d")
