"""Whether calls may share a run: proven when a package is made, held to by `verify`."""

from argparse import Namespace

import pytest

from isochrone.deploy.packages import quantize
from isochrone.deploy.packages.onnx_package import Wanted, build
from isochrone.deploy.packages.package import run
from isochrone.edge_agent.runtime.calls.lanes import Sharing
from isochrone.edge_agent.runtime.loading import proven
from isochrone.edge_agent.runtime.loading.coupling import coupled_by
from isochrone.edge_agent.runtime.loading.proven import Proofs
from isochrone.edge_agent.runtime.package.package import open_package
from isochrone.router.process.clock import monotonic
from tests.edge_agent.runtime.loading.graphs import MIXED, ROWS, WISE, graph_bytes, write_graph


def built(tmp_path, nodes, shape):
    onnx = tmp_path / "given.onnx"
    onnx.write_bytes(graph_bytes(nodes, shape))
    return build(onnx, tmp_path / "store", Wanted("graph"))


@pytest.mark.parametrize(
    ("name", "verdict", "told"),
    [
        ("mlp", "rows", "batch rows: calls may share runs of up to 32 (made-up rows, onnxruntime"),
        ("backwards", "none", "batch none: calls share no run (a row"),
        ("filter over rows", "none", "(its graph holds Conv over an axis of rows)"),
        ("attention between rows", "none", "(its graph holds Softmax over an axis of rows)"),
    ],
)
def test_build_proves_and_says_it(tmp_path, capsys, name, verdict, told):
    package = built(tmp_path, *{**WISE, **MIXED}[name])
    assert package.manifest.variants[0].batch == verdict
    assert run(Namespace(action="inspect", path=package.path, json=None)) == 0
    assert told in capsys.readouterr().out


def test_verify_finds_a_variant_out_that_says_rows(tmp_path, capsys):
    data = graph_bytes(*MIXED["cumulated"])
    package = write_graph(tmp_path, data, ROWS, batch="rows")
    args = Namespace(action="verify", path=package.path, json=None, trusted_key=[])
    assert run(args) == 1
    assert "says batch: rows, but its graph holds CumSum over axis 0" in capsys.readouterr().out


def test_a_variant_is_proven_on_its_own(tmp_path):
    """The MLP may share runs, what dynamic quantisation makes of it may not: not even unread."""
    package = built(tmp_path, *WISE["mlp"])
    args = Namespace(
        path=package.path,
        variant=None,
        called="eight",
        evaluation=None,
        data=None,
        mode="dynamic",
        keep_if={"accuracy_loss": 1, "speed_up": 0, "compression": 0},
        keep_unproven=True,
        json=None,
    )
    assert quantize.run(args) == 0
    whole, eight = open_package(package.path).manifest.variants
    assert (whole.batch, eight.batch) == ("rows", "none")
    with (package.path / eight.file).open("rb") as file:
        assert coupled_by(file.read()) == "DynamicQuantizeLinear"
    proofs = Proofs(monotonic, Sharing())
    package = open_package(package.path)
    assert [proofs.most_rows(package, one) for one in (whole, eight)] == [32, 1]


def test_an_outlier_finds_it_out_unread(tmp_path, monkeypatch):
    package = built(tmp_path, *WISE["mlp"])
    source = package.path / "model.onnx"
    quantize._dynamic(source, tmp_path / "eight.onnx")
    eight = write_graph(tmp_path, (tmp_path / "eight.onnx").read_bytes(), ROWS, name="eight")
    monkeypatch.setattr(proven, "coupled_by", lambda _: None)
    found = proven.proof(eight, eight.manifest.variants[0], proven._AT_BUILD, monotonic)
    assert found.refuted
