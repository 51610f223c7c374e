"""Which calls may share a run is proven for each variant, by its structure and by trying it out."""

import asyncio
import time
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.calls.call import Ask, Calls
from isochrone.edge_agent.runtime.calls.lanes import Lanes, Sharing
from isochrone.edge_agent.runtime.loading import proven
from isochrone.edge_agent.runtime.loading.coupling import coupled_by
from isochrone.edge_agent.runtime.loading.proven import Proofs, proof, stamped
from isochrone.edge_agent.runtime.loading.row_proof import Bounds, prove
from isochrone.edge_agent.runtime.package.manifest import Declared
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import BadRequest
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Array, Tensor, TensorSpec
from tests.edge_agent.runtime.loading.graphs import (
    MIXED,
    ROWS,
    TYPED_MIXED,
    TYPED_WISE,
    WIDTH,
    WISE,
    graph_bytes,
    node,
    typed_bytes,
    write_graph,
)

BOUNDS = Bounds(32, most_s=60.0, most_bytes=1 << 30)
SHARING = Sharing(inline_s=0.0)


def proof_of(tmp_path, nodes, shape):
    package = write_graph(tmp_path, graph_bytes(nodes, shape), shape)
    return proof(package, package.manifest.variants[0], BOUNDS, monotonic)


def by_trying(data, takes, bounds=BOUNDS, clock=monotonic, runs=None):
    """As `proof`, but of the graph nothing is looked at; `runs` get the inputs of each run."""
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])

    def compute(arrays):
        if runs is not None:
            runs.append(arrays[takes.name])
        try:
            return (Tensor("y", "FP32", session.run(["y"], dict(arrays))[0]),)
        except Exception as error:  # of onnxruntime's own kinds: an id that a table lacks
            raise BadRequest(str(error)) from error

    sample = {takes.name: (1, *(6 if size == -1 else size for size in takes.shape[1:]))}
    return prove(compute, (takes,), [sample], 1e-3, bounds, clock)


@pytest.mark.parametrize("name", WISE)
def test_rows_that_are_independent_share_runs(tmp_path, name):
    found = proof_of(tmp_path, *WISE[name])
    assert (found.rows, found.refuted, found.reason) == (32, False, "")


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_depend_on_each_other_share_none(tmp_path, name):
    found = proof_of(tmp_path, *MIXED[name])
    assert found.rows == 1
    assert found.refuted
    assert found.reason


@pytest.mark.parametrize("name", MIXED)
def test_trying_it_out_is_enough(name):
    nodes, shape = MIXED[name]
    found = by_trying(graph_bytes(nodes, shape), TensorSpec("x", "FP32", shape))
    assert found.rows == 1
    assert found.refuted


@pytest.mark.parametrize("name", TYPED_MIXED)
def test_ids_and_pictures_are_tried_as_callers_send_them(name):
    nodes, takes, gives = TYPED_MIXED[name]
    data = typed_bytes(nodes, takes, gives)
    found = by_trying(data, takes)
    assert (found.rows, found.refuted) == (1, True)
    assert coupled_by(data) == "TopK over an axis of rows"


@pytest.mark.parametrize("name", TYPED_WISE)
def test_padding_alone_forbids_nothing(name):
    nodes, takes, gives = TYPED_WISE[name]
    data = typed_bytes(nodes, takes, gives)
    found = by_trying(data, takes)
    assert (found.rows, found.reason) == (32, "")
    assert coupled_by(data) is None


def counts_of_runs(seconds_of_a_run):
    now = [0.0]
    runs: list[Array] = []

    def clock():
        now[0] += seconds_of_a_run / 3  # each run asks the time about so often
        return now[0]

    data = graph_bytes(*WISE["mlp"])
    found = by_trying(data, TensorSpec("x", "FP32", ROWS), Bounds(32, 1e9, 1 << 30), clock, runs)
    assert found.rows == 32
    return [len(one) for one in runs]


def test_a_quick_model_is_tried_in_every_number_of_rows_and_in_crowds_of_every_row():
    counts = counts_of_runs(1e-6)
    assert set(counts) == set(range(1, 33))
    assert counts.count(32) == 10


def test_a_slow_model_is_tried_little_more_than_it_must():
    quick, slow = counts_of_runs(1e-6), counts_of_runs(10.0)
    assert len(slow) < 0.8 * len(quick)
    assert {2, 3, 5, 8, 17, 32} <= set(slow)
    assert sum(slow) < 1.3 * 250


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("softmax over rows", "Softmax over axis 0"),
        ("cumulated", "CumSum over axis 0"),
        ("filter over rows", "Conv over an axis of rows"),
        ("time first", "LSTM over an axis of rows"),
        ("attention between rows", "Softmax over an axis of rows"),
        ("experts with room for 28", "CumSum over an axis of rows"),
        ("shared among more than 24 of one class", "ReduceSum over an axis of rows"),
        ("shared among more than 12 that point the same way", "ReduceSum over an axis of rows"),
        ("a picture's scale if the largest is in a range", "TopK over an axis of rows"),
        ("by the largest if rows are a multiple of six", "TopK over an axis of rows"),
        ("cut at the longest", "TopK over an axis of rows"),
        ("nothing for what came before", "ReduceSum over an axis of rows"),
        ("by how they vary together", "MatMul over an axis of rows"),
        ("normed over all rows as places", "InstanceNormalization over an axis of rows"),
        ("sorted", "TopK over an axis of rows"),
        ("row after row with a state", "Scan over an axis of rows"),
        ("normed by the largest", "ReduceMax over all axes"),
        ("batch norm in training", "BatchNormalization in training mode"),
        ("chance", "RandomNormalLike"),
        ("eight bits", "DynamicQuantizeLinear"),
        ("mlp", None),
        ("mean", None),
        ("softmax", None),
        ("cnn", None),
        ("attention inside a row", None),
        ("time before rows", None),
        ("a layer as a filter of one place", None),
        ("tokens of all rows in one matrix", None),
        ("places in a row", None),
        ("row after row without a state", None),
        ("experts with room for all", None),
    ],
)
def test_the_graph_tells_some_without_being_run(name, found):
    assert coupled_by(graph_bytes(*{**WISE, **MIXED}[name])) == found


@asynccontextmanager
async def opened(package, sharing=SHARING):
    pool = Pool([package], sharing=sharing)
    gate = SlotGate(1, 256, time.monotonic, lambda: 0.001)
    calls = Calls(pool, gate, time.monotonic, lambda *_: None, sharing=sharing)
    runs = []
    try:
        await pool.load(package.name)
        loan = pool.lend(package.name)
        assert loan is not None
        compute = loan.model.compute

        def counted(feed):
            runs.append(len(feed.arrays["x"]))
            time.sleep(0.002)  # so that others come meanwhile
            return compute(feed)

        vars(loan.model)["compute"] = counted
        yield calls, runs, loan.model
        loan.give_back()
    finally:
        await pool.close()


def ask(data, tenant=""):
    request = InferRequest((Tensor("x", "FP32", data),))
    return Ask("graph", None, request, time.monotonic() + 20, 5, tenant)


async def together(package, requests):
    """What each of these gets, asked for all at once by two tenants; the rows of the runs."""
    async with opened(package) as (calls, runs, model):
        asked = [ask(data, f"tenant-{n % 2}") for n, data in enumerate(requests)]
        answers = await asyncio.gather(*(calls.answer(one) for one in asked))
        shared = model.most_rows > 1
    return [one.part.outputs[0].data for one in answers], runs, shared


def bare(data, requests):
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return [session.run(["y"], {"x": one})[0] for one in requests]


async def test_an_mlp_shares_runs(tmp_path):
    data = graph_bytes(*WISE["mlp"])
    requests = [np.full((1, WIDTH), n, np.float32) for n in range(32)]
    answers, runs, _ = await together(write_graph(tmp_path, data, ROWS), requests)
    assert len(runs) < len(requests) / 2
    for answer, right in zip(answers, bare(data, requests), strict=True):
        np.testing.assert_allclose(answer, right, rtol=1e-4, atol=1e-4)


BODY = {
    "MatMul w": lambda a, b: [node("MatMul", f"{a} w", b)],
    "Relu": lambda a, b: [node("Relu", a, b)],
    "Tanh": lambda a, b: [node("Tanh", a, b)],
    "Add": lambda a, b: [node("Add", f"{a} zeros", b)],
    "Softmax 1": lambda a, b: [node("Softmax", a, b, axis=1)],
    "Softmax 0": lambda a, b: [node("Softmax", a, b, axis=0)],
    "CumSum": lambda a, b: [node("CumSum", f"{a} first", b)],
    "Centred 1": lambda a, b: [
        node("ReduceMean", f"{a} one", f"{b}m", keepdims=1),
        node("Sub", f"{a} {b}m", b),
    ],
    "Centred 0": lambda a, b: [
        node("ReduceMean", f"{a} zero", f"{b}m", keepdims=1),
        node("Sub", f"{a} {b}m", b),
    ],
    "Largest": lambda a, b: [
        node("Reshape", f"{a} all", f"{b}f"),
        node("ReduceMax", f"{b}f zero", f"{b}m"),
        node("Max", f"{b}m five", f"{b}n"),
        node("Div", f"{a} {b}n", b),
    ],
    "Eight bits": lambda a, b: [
        node("DynamicQuantizeLinear", a, f"{b}q {b}s {b}z"),
        node("DequantizeLinear", f"{b}q {b}s {b}z", b),
    ],
    "Backwards": lambda a, b: [node("Slice", f"{a} from to zero back", b)],
    "Attention": lambda a, b: [
        node("Transpose", a, f"{b}t", perm=[1, 0]),
        node("MatMul", f"{a} {b}t", f"{b}r"),
        node("Softmax", f"{b}r", f"{b}s", axis=-1),
        node("MatMul", f"{b}s {a}", b),
    ],
    "Room for 28": lambda a, b: [
        *_classes(a, b),
        node("CumSum", f"{b}t one_alone", f"{b}u"),
        node("Transpose", f"{b}u", f"{b}c", perm=[1, 0]),
        node("Mul", f"{b}c {b}o", f"{b}p"),
        node("ReduceSum", f"{b}p one", f"{b}r", keepdims=1),
        node("LessOrEqual", f"{b}r room", f"{b}f"),
        node("MatMul", f"{a} w", f"{b}h"),
        node("Where", f"{b}f {b}h {a}", b),
    ],
    "Shared by 24": lambda a, b: [
        *_classes(a, b),
        node("MatMul", f"{b}o {b}t", f"{b}s"),
        node("ReduceSum", f"{b}s one", f"{b}v", keepdims=1),
        node("Max", f"{b}v twenty_four", f"{b}m"),
        node("Div", f"{a} {b}m", b),
    ],
    "In a range": lambda a, b: [
        node("Reshape", f"{a} all", f"{b}f"),
        node("TopK", f"{b}f one", f"{b}m {b}i"),
        node("Greater", f"{b}m one_and_a_half", f"{b}g"),
        node("Less", f"{b}m three_hundred", f"{b}l"),
        node("And", f"{b}g {b}l", f"{b}w"),
        node("Div", f"{a} 127", f"{b}d"),
        node("Where", f"{b}w {b}d {a}", b),
    ],
    "Multiple of six": lambda a, b: [
        node("Shape", a, f"{b}n", end=1),
        node("Mod", f"{b}n many", f"{b}l"),
        node("Equal", f"{b}l zero", f"{b}e"),
        *_largest(a, b),
        node("Where", f"{b}e {b}m {a}", b),
    ],
    "Cut at the longest": lambda a, b: [
        node("Abs", a, f"{b}a"),
        node("Sign", f"{b}a", f"{b}g"),
        *_largest(f"{b}g", b),
        node("ReduceSum", f"{b}m one", f"{b}s", keepdims=1),
        node("Max", f"{b}s half", f"{b}l"),
        node("Div", f"{a} {b}l", b),
    ],
}
NOT_READ = {"Backwards"}
"""Mixes rows, and is not told by the graph."""
KEEPS_ROWS = {"MatMul w", "Relu", "Tanh", "Add", "Softmax 1", "Centred 1"}


def _classes(a, b):
    """The class of each row, one of eight, as `o` and, turned, `t`."""
    return [
        node("ArgMax", a, f"{b}e", axis=1, keepdims=0),
        node("OneHot", f"{b}e eight off_on", f"{b}o"),
        node("Transpose", f"{b}o", f"{b}t", perm=[1, 0]),
    ]


def _largest(a, b):
    """Of all rows in each column, as `m`."""
    return [
        node("Transpose", a, f"{b}x", perm=[1, 0]),
        node("TopK", f"{b}x one", f"{b}y {b}z", axis=1),
        node("Transpose", f"{b}y", f"{b}m", perm=[1, 0]),
    ]


def drawn_graph(layers):
    names = ["x", *(f"h{n}" for n in range(1, len(layers))), "y"]
    nodes = [one for n, layer in enumerate(layers) for one in BODY[layer](names[n], names[n + 1])]
    return graph_bytes(nodes, ROWS)


@given(layers=st.lists(st.sampled_from(sorted(set(BODY) - NOT_READ)), min_size=1, max_size=5))
@settings(max_examples=150)
def test_a_graph_is_found_out_unrun_where_some_layer_mixes_rows(layers):
    assert (coupled_by(drawn_graph(layers)) is None) == (set(layers) <= KEEPS_ROWS)


@given(
    layers=st.lists(st.sampled_from(sorted(BODY)), min_size=1, max_size=4),
    scales=st.lists(
        st.sampled_from([0.0, 1.0, -1.0, 2.0, 30.0, 100.0, 1e4]), min_size=2, max_size=20
    ),
    alike=st.booleans(),
    cut=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_whatever_the_graph_everyone_gets_what_it_gets_alone(
    tmp_path_factory, layers, scales, alike, cut, seed
):
    """Also a crowd of one row with a little noise, and rows that end in zeros."""
    data = drawn_graph(layers)
    chance = np.random.default_rng(seed)
    requests = [
        (chance.standard_normal((chance.integers(1, 4), WIDTH)) * scale).astype(np.float32)
        for scale in scales
    ]
    if alike:
        requests = [requests[0][:1] + one / 1e3 for one in requests if abs(one).max() < 1e3]
    for number, one in enumerate(requests if cut else ()):
        one[:, 1 + number % WIDTH :] = 0
    package = write_graph(tmp_path_factory.mktemp("any"), data, ROWS)
    answers, runs, shared = asyncio.run(together(package, requests))
    for answer, right in zip(answers, bare(data, requests), strict=True):
        scale = min(1.0, float(np.abs(right).max()))
        np.testing.assert_allclose(answer, right, rtol=1e-3, atol=1e-3 * scale)
    assert shared or len(runs) == len(requests)


def most_rows(package, sharing=SHARING):
    return Proofs(monotonic, sharing).most_rows(package, package.manifest.variants[0])


def test_what_forbids_sharing_is_believed(tmp_path):
    package = write_graph(tmp_path, graph_bytes(*WISE["mlp"]), ROWS, batch="none")
    assert most_rows(package) == 1


def test_what_allows_sharing_is_tried_out(tmp_path):
    package = write_graph(tmp_path, graph_bytes(*MIXED["cumulated"]), ROWS, batch="rows")
    assert most_rows(package) == 1


def test_what_was_found_is_kept_beside_the_package(tmp_path, monkeypatch):
    package = write_graph(tmp_path, graph_bytes(*WISE["mlp"]), ROWS)
    assert most_rows(package) == 32
    assert (tmp_path / "graph" / ".1.batch-onnx.json").exists()
    monkeypatch.setattr(proven, "proof", lambda *_: pytest.fail("it is known"))
    assert most_rows(package) == 32


def test_another_bound_is_proven_anew(tmp_path):
    package = write_graph(tmp_path, graph_bytes(*WISE["mlp"]), ROWS)
    assert [most_rows(package, Sharing(most)) for most in (1, 4, 64)] == [1, 4, 64]


@pytest.mark.parametrize(("says", "rows"), [(None, 1), ("rows", 32)])
def test_without_time_for_a_proof_the_manifest_counts(tmp_path, monkeypatch, says, rows):
    package = write_graph(tmp_path, graph_bytes(*WISE["mlp"]), ROWS)
    variant = package.manifest.variants[0]
    if says:
        measured = stamped(package, variant, monotonic)
        package = write_graph(
            tmp_path / "b",
            graph_bytes(*WISE["mlp"]),
            ROWS,
            batch=measured.batch,
            batch_measured=measured.batch_measured,
        )
    monkeypatch.setattr(proven, "_AT_LOAD_S", 0.0)
    assert most_rows(package) == rows


def test_memory_bounds_the_rows(tmp_path):
    package = write_graph(tmp_path, graph_bytes(*WISE["mlp"]), ROWS)
    variant = package.manifest.variants[0]
    found = proof(package, variant, Bounds(32, 60.0, -1), monotonic)
    assert (found.rows, found.refuted) == (1, False)


@pytest.mark.parametrize(("name", "batch"), [("mlp", "rows"), ("cumulated", "none")])
def test_a_verdict_says_what_it_was_found_on(tmp_path, name, batch):
    nodes, shape = {**WISE, **MIXED}[name]
    package = write_graph(tmp_path, graph_bytes(nodes, shape), shape)
    variant = stamped(package, package.manifest.variants[0], monotonic)
    assert variant.batch == batch
    measured = variant.batch_measured
    assert measured is not None
    assert "onnxruntime" in measured.on
    assert (measured.rows > 1, measured.runs > 10, measured.reason == "") == (
        (True,) * 3 if batch == "rows" else (False,) * 3
    )


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_network_of_layers_shares_runs_in_both_engines(write, engine):
    package = write(engine)
    assert most_rows(package) == 32


def test_inputs_of_many_bytes_share_no_runs():
    lanes = Lanes(Sharing())
    sizes = {side: {"x": np.zeros((1, 3, side, side), np.float32)} for side in (32, 640, 1600)}
    found = [lanes.find("m", "1", one, 1, 32).most_rows for one in sizes.values()]
    assert found == [32, 3, 1]


def test_calls_that_leave_inputs_out_share_no_runs(tmp_path):
    package = write_graph(tmp_path, graph_bytes(*WISE["mlp"]), ROWS)
    (sample,) = package.manifest.warm_up
    more = Declared("scale", "FP32", (-1,), optional=True)
    manifest = msgspec.structs.replace(package.manifest, inputs=(*package.manifest.inputs, more))
    found = proof(Package(package.path, manifest), manifest.variants[0], BOUNDS, monotonic)
    assert (found.rows, found.refuted, found.runs) == (1, False, 0)
    assert {one.name for one in sample.inputs} == {"x"}
