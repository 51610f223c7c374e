"""Which variant runs best here, and that it is measured no more than once."""

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from onnx import helper

from isochrone.deploy.packages.onnx_graph import model_bytes
from isochrone.edge_agent.runtime.loading import kept_note
from isochrone.edge_agent.runtime.loading.choice import Choices, contenders, likely
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import (
    PackageError,
    described,
    open_package,
    write_package,
)
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.tensor import TensorSpec

TAKES, GIVES = TensorSpec("x", "FP32", (-1, 64)), TensorSpec("y", "FP32", (-1, 64))


def _file(width: int) -> bytes:
    """A network that takes the longer the wider it is."""
    rng = np.random.default_rng(1)
    weights = {
        "a": rng.random((64, width), np.float32),
        "b": rng.random((width, 64), np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    return model_bytes(nodes, TAKES, GIVES, weights)


@pytest.fixture
def package(tmp_path):
    """Write a package with one ONNX variant for each width."""

    def written(**widths: int):
        files = {f"{name}.onnx": _file(width) for name, width in widths.items()}
        manifest = Manifest(
            name="net",
            version="1",
            inputs=(Declared.of(TAKES),),
            outputs=(Declared.of(GIVES),),
            warm_up=(Sample((SampleTensor("x", (1, 64)),)),),
            variants=tuple(
                described(files[f"{name}.onnx"], name=name, engine="onnx", file=f"{name}.onnx")
                for name in widths
            ),
        )
        return write_package(tmp_path, manifest, files)

    return written


def _never() -> float:
    pytest.fail("the clock was read: something was measured")


def _still() -> float:
    return 0.0


def test_the_fastest_is_chosen_wherever_it_stands(package):
    assert Choices(monotonic).choose(package(wide=20_000, narrow=8)).name == "narrow"


def test_equals_go_to_the_manifests_order(package):
    assert Choices(_still).choose(package(second=8, first=8)).name == "second"


def test_one_variant_alone_is_not_measured(package):
    assert Choices(_never).choose(package(only=8)).name == "only"


def test_the_next_process_does_not_measure_again(package):
    made = package(wide=20_000, narrow=8)
    Choices(monotonic).choose(made)
    later = Choices(_never)
    assert later.choose(made).name == "narrow"
    assert later.chosen(made) == "narrow"
    assert [one.path for one in [open_package(made.path)]] == [made.path]


def test_a_store_that_cannot_be_written_is_remembered_in_memory(package, monkeypatch):
    made = package(wide=20_000, narrow=8)
    here = Choices(monotonic)
    monkeypatch.setattr("pathlib.Path.write_bytes", _full)
    assert here.choose(made).name == "narrow"
    here._clock = _never
    assert here.choose(made).name == "narrow"


def _full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: b"", id="cut short by a power failure"),
        pytest.param(lambda _: b'{"variant": 3}', id="not ours"),
        pytest.param(lambda note: note.replace(b'"wide"', b'"gone"'), id="of a variant that went"),
        pytest.param(lambda note: note.replace(b'holds_for":"', b'holds_for":"x'), id="elsewhere"),
    ],
)
def test_a_note_that_does_not_hold_is_made_again(package, spoil):
    made = package(wide=20_000, narrow=8)
    Choices(monotonic).choose(made)
    (note,) = made.path.parent.glob(".*.json")
    wrong = note.read_bytes().replace(b'"variant":"narrow"', b'"variant":"wide"')
    note.write_bytes(spoil(wrong))
    assert Choices(monotonic).choose(made).name == "narrow"
    assert msgspec.json.decode(note.read_bytes())["variant"] == "narrow"


def test_other_cores_are_another_case(package):
    made = package(a=8, b=16)
    Choices(monotonic).choose(made)
    with pytest.raises(pytest.fail.Exception):
        Choices(_never).choose(made, threads=2)


def test_a_variant_that_cannot_be_loaded_leaves_the_others(package):
    made = package(wide=2000, narrow=8)
    file = made.path / "narrow.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert Choices(monotonic).choose(made).name == "wide"
    assert not list(made.path.parent.glob(".*.json")), "mended, it is measured"


def test_where_none_can_be_loaded_the_first_is_to_say_why(package):
    made = package(one=8, two=8)
    for file in made.path.glob("*.onnx"):
        file.write_bytes(bytes(file.stat().st_size))
    assert Choices(monotonic).choose(made).name == "one"


class _Watched:
    """A model that takes its name off a list when it is shut down."""

    def __init__(self, model, name, alive):
        self.request, self._model, self._name, self._alive = model.request, model, name, alive

    def shutdown(self):
        self._model.shutdown()
        self._alive.discard(self._name)


@pytest.mark.parametrize(("together", "most"), [(1 << 30, 2), (1, 1)], ids=["small", "large"])
def test_large_variants_are_never_in_memory_together(package, together, most):
    alive: set[str] = set()
    seen: list[int] = []

    def begin(package, variant, *rest):
        alive.add(variant.name)
        seen.append(len(alive))
        return _Watched(start(package, variant, *rest), variant.name, alive)

    made = package(wide=20_000, narrow=8)
    assert Choices(monotonic, together).choose(made, 1, begin).name == "narrow"
    assert (max(seen), alive) == (most, set())


def test_torch_is_not_begun_with_where_onnx_will_do(write):
    made = write("torch", "onnx")
    code = (
        "import sys; from pathlib import Path;"
        "from isochrone.edge_agent.runtime.loading.choice import Choices, likely;"
        "from isochrone.edge_agent.runtime.package.package import open_package;"
        "from isochrone.router.process.clock import monotonic;"
        f"package = open_package(Path({str(made.path)!r}));"
        "print(likely(package).name, Choices(monotonic).choose(package).name,"
        " 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["onnx", "onnx", "False"] or kept_note.has_gpu()


def test_a_pinned_variant_is_not_measured(package):
    made = package(wide=20_000, narrow=8)
    assert Choices(_never, pinned={"net": "wide"}).choose(made).name == "wide"
    assert Choices(monotonic, pinned={"other": "wide"}).choose(made).name == "narrow"
    with pytest.raises(PackageError, match="has no variant gone, which is pinned; it has wide, na"):
        Choices(_never, pinned={"net": "gone"}).choose(made)


def test_torch_alone_is_used(write):
    made = write("torch")
    assert [one.name for one in contenders(made)] == ["torch"]
    assert likely(made).name == "torch"


def test_what_cannot_run_here_is_named(write):
    package = write("torch", "onnx")
    variants = tuple(
        msgspec.structs.replace(one, accelerator="gpu") for one in package.manifest.variants
    )
    if kept_note.has_gpu():
        pytest.skip("this machine has a GPU")
    manifest = msgspec.structs.replace(package.manifest, variants=variants)
    with pytest.raises(
        PackageError, match=r"variant torch wishes a GPU.*variant onnx wishes a GPU"
    ):
        Choices(monotonic).choose(type(package)(package.path, manifest))


MIB = 1 << 20


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        pytest.param({}, sum, id="side by side"),
        pytest.param({"together_bytes": MIB}, max, id="one after another"),
        pytest.param({"most_bytes": 10_500_000}, max, id="side by side is more than may be taken"),
        pytest.param({"most_bytes": MIB}, min, id="only one may be taken"),
        pytest.param({"most_bytes": 1}, max, id="none may, which the budget will say"),
        pytest.param({"pinned": {"net": "narrow"}}, min, id="pinned"),
    ],
)
def test_a_load_needs_what_is_measured_at_once(package, options, needs):
    made = package(wide=20_000, narrow=1_000)
    sizes = [one.bytes for one in made.manifest.variants]
    assert Choices(_never, **options).needs_bytes(made) == needs(sizes)


def test_what_was_measured_before_is_all_that_a_load_needs(package):
    made = package(wide=20_000, narrow=8)
    Choices(monotonic).choose(made)
    narrow = made.manifest.variants[1]
    assert Choices(_never).needs_bytes(made) == narrow.bytes


def test_what_does_not_fit_is_not_measured(package):
    made = package(wide=20_000, narrow=8, small=8)
    seen: list[str] = []

    def begin(package, variant, executor, threads):
        seen.append(variant.name)
        return start(package, variant, executor, threads)

    assert Choices(_still, most_bytes=MIB).choose(made, begin=begin).name == "narrow"
    assert seen == ["narrow", "small"]


async def test_variants_that_are_measured_count_in_the_budget(package):
    made = package(wide=20_000, narrow=8)
    taken: list[int] = []
    pool = Pool([made], on_event=lambda _: taken.append(pool.residents.taken_bytes))
    await pool.load("net")
    assert taken[0] == sum(one.bytes for one in made.manifest.variants)
    assert taken[-1] < taken[0], "measured, and of one"
    await pool.close()


async def test_a_pool_says_which_variant_it_loaded(package):
    heard: list[ModelMoved] = []
    pool = Pool([package(wide=20_000, narrow=8)], on_event=heard.append)
    await pool.load("net")
    assert [event.variant for event in heard if event.cold_start is not None] == ["narrow"]
    await pool.close()
