"""A pool of real packages: one load for many, failures that spare the others, draining."""

import asyncio
import subprocess
import sys
from threading import Event

import numpy as np
import pytest

from isochrone.deploy.demo.prose import write_prose
from isochrone.edge_agent.runtime.engines.back_off import FIRST_BACK_OFF_S
from isochrone.edge_agent.runtime.engines.onnx_engine import OnnxModel
from isochrone.edge_agent.runtime.loading import load as loading
from isochrone.edge_agent.runtime.package.package import PackageError, open_package
from isochrone.edge_agent.runtime.package.state import Step
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved
from isochrone.router.errors import BadRequest, NotFound, Unavailable, Unloadable
from isochrone.router.wire.message import InferRequest, RequestedOutput
from isochrone.router.wire.report import ModelState as State
from isochrone.router.wire.tensor import Tensor


class Hand:
    """A clock that stands where it was put."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Hand()


@pytest.fixture
async def open_pool(clock):
    """A pool on some packages, and the list of what happened in it; closed afterwards."""
    pools = []

    def opened(*packages, slots=2):
        events: list[ModelMoved] = []
        pools.append(Pool(packages, slots=slots, clock=clock, on_event=events.append))
        return pools[-1], events

    yield opened
    for pool in pools:
        await pool.close()


async def _answer(pool, question, name="small", version=None):
    (answer,) = [part async for part in pool.request(name, version, question)]
    return answer


def _spoil(package):
    path = package.file(package.manifest.variants[0])
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    return lambda: path.write_bytes(sound)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
async def test_a_cold_model_is_loaded_warmed_and_answers(write, open_pool, question, engine):
    pool, events = open_pool(write(engine))
    assert pool.state("small") is State.COLD
    answer = await _answer(pool, question)
    assert (answer.model_name, answer.model_version, answer.id) == ("small", "1", "four")
    (probabilities,) = answer.outputs
    assert (probabilities.name, probabilities.datatype) == ("probabilities", "FP32")
    np.testing.assert_allclose(probabilities.data.sum(1), np.ones(4), rtol=1e-5)
    assert [event.state for event in events] == [State.LOADING, State.WARMING, State.WARM]


async def test_a_hundred_callers_cause_one_load(write, open_pool, question):
    pool, events = open_pool(write())
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(_answer(pool, question)) for _ in range(100)]
    assert [event.state for event in events].count(State.LOADING) == 1
    assert len({call.result().outputs[0].data.tobytes() for call in calls}) == 1
    assert pool.models_generation == len(events) == 3


async def test_a_waiter_that_leaves_does_not_end_the_load(write, open_pool):
    pool, events = open_pool(write())
    async with asyncio.TaskGroup() as group:
        stays = group.create_task(pool.load("small"))
        leaves = group.create_task(pool.load("small"))
        await asyncio.sleep(0)
        leaves.cancel()
    assert leaves.cancelled()
    assert stays.done()
    assert pool.state("small") is State.WARM
    assert [event.state for event in events].count(State.LOADING) == 1


async def test_a_load_that_nobody_waits_for_still_ends_warm(write, open_pool):
    pool, events = open_pool(write())
    async with asyncio.TaskGroup() as group:
        alone = group.create_task(pool.load("small"))
        await asyncio.sleep(0)
        alone.cancel()
    await pool.load("small")
    assert [event.state for event in events] == [State.LOADING, State.WARMING, State.WARM]


async def test_a_failed_load_is_told_to_all_and_tried_again_later(
    write, open_pool, clock, question
):
    package = write()
    mend = _spoil(package)
    pool, events = open_pool(package)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(_caught(pool.load("small"))) for _ in range(10)]
    for error in (call.result() for call in calls):
        assert isinstance(error, Unavailable)
        assert "/" not in error.message  # a client is told of no path
        assert isinstance(error.__cause__, PackageError)
        assert (error.code, error.retry_after_s) == ("unloadable", None), "asking again is in vain"
    assert [event.state for event in events] == [State.LOADING, State.COLD]
    assert "sha256" in events[-1].error

    mend()
    assert isinstance(await _caught(pool.load("small")), Unavailable)
    assert len(events) == 2, "not tried again so soon"
    clock.now_s += FIRST_BACK_OFF_S
    assert (await _answer(pool, question)).model_version == "1"


async def test_waits_grow_while_a_package_stays_broken(write, open_pool, clock):
    package = write()
    _spoil(package)
    pool, _ = open_pool(package)
    waits = []
    for _ in range(9):
        await _caught(pool.load("small"))
        waits.append(pool._find("small", None)._wait_s)
        clock.now_s += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_a_repair_that_is_pulled_can_be_loaded_at_once(write, open_pool, question):
    package = write()
    mend = _spoil(package)
    pool, events = open_pool(package)
    for _ in range(9):
        assert isinstance(await _caught(pool.load("small")), Unloadable)
    mend()
    pool.add(package)
    assert (await _answer(pool, question)).model_version == "1"
    pool.add(package)
    assert pool.state("small") is State.WARM, "one that serves goes on doing so"
    assert [event.state for event in events].count(State.LOADING) == 2


async def _caught(awaitable):
    try:
        await awaitable
    except Unavailable as error:
        return error


async def test_a_broken_new_version_leaves_the_old_one_serving(write, open_pool, question):
    old, new = write(version="9"), write(version="10")
    _spoil(new)
    pool, _ = open_pool(old, new)
    assert pool.package("small").version == "10"
    await pool.load("small", "9")
    assert isinstance(await _caught(pool.load("small", "10")), Unavailable)
    assert pool.state("small", "9") is State.WARM
    assert (await _answer(pool, question)).model_version == "9"


async def test_a_new_version_that_fails_is_stood_in_for(write, open_pool):
    old, new = write(version="9"), write(version="10")
    _spoil(new)
    pool, _ = open_pool(old, new)
    assert await pool.load("small") == "9"
    assert pool.state("small", "9") is State.WARM


async def test_a_mended_new_version_comes_back_without_anybody_waiting(
    write, open_pool, clock, question
):
    old, new = write(version="9"), write(version="10")
    mend = _spoil(new)
    pool, events = open_pool(old, new)
    await pool.load("small")
    assert pool.choose("small").version == "9"
    assert pool.state("small", "10") is State.COLD, "not tried again so soon"
    mend()
    clock.now_s += FIRST_BACK_OFF_S
    chosen = pool.choose("small")
    assert (chosen.version, chosen.state) == ("9", State.WARM)
    assert pool.state("small", "10") is State.LOADING
    assert pool.choose("small").version == "9", "the warm one answers until the new one can"
    await pool.load("small", "10")
    assert (await _answer(pool, question)).model_version == "10"
    assert [event.state for event in events if event.version == "10"].count(State.LOADING) == 2


async def test_a_broken_only_version_is_eligible_again_after_its_back_off(
    write, open_pool, clock, question
):
    old, new = write(version="9"), write(version="10")
    mends = [_spoil(old), _spoil(new)]
    pool, _ = open_pool(old, new)
    assert isinstance(await _caught(pool.load("small")), Unavailable)
    for mend in mends:
        mend()
    clock.now_s += FIRST_BACK_OFF_S
    assert (await _answer(pool, question)).model_version == "10"


async def test_who_waits_behind_an_unload_is_told_so(write, open_pool):
    pool, _ = open_pool(write())
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(pool.load("small"))
        await asyncio.sleep(0)
        unloading = group.create_task(pool.unload("small"))
        await asyncio.sleep(0)
        behind = group.create_task(_caught(pool.load("small")))
    assert loading.done()
    assert unloading.done()
    assert "is being unloaded" in behind.result().message
    assert behind.result().retry_after_s == 1.0


async def test_unloading_a_name_unloads_every_version(write, open_pool):
    pool, _ = open_pool(write(version="9"), write(version="10"))
    await pool.load("small", "9")
    await pool.load("small", "10")
    await pool.unload("small")
    assert {held.state for held in pool.held()} == {State.COLD}


async def test_closing_waits_no_longer_than_it_is_told_to(write, monkeypatch):
    goes_on = Event()
    monkeypatch.setattr(loading, "start", lambda *_: goes_on.wait(10))
    pool = Pool([write(version="1"), write(version="2")])
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(_caught(pool.load("small", number))) for number in "12"]
        await asyncio.sleep(0.01)
        assert not await pool.close(0.01)
    goes_on.set()
    assert all("cannot be loaded here" in task.result().message for task in waiting)
    assert {model.state for model in pool.held()} == {State.COLD}


async def test_a_warm_up_that_hangs_is_a_failed_load_and_nothing_waits_for_it(
    write, question, monkeypatch, clock
):
    goes_on, compute = Event(), OnnxModel.compute

    def hanging(model, feed):
        if model.version == "2":
            goes_on.wait(30)
        return compute(model, feed)

    monkeypatch.setattr(OnnxModel, "compute", hanging)
    packages = [write(version=number) for number in "123"]
    events: list[ModelMoved] = []
    pool = Pool(
        packages, clock=clock, on_event=events.append, upkeep=Upkeep(load_timeout_s=0.5), slots=1
    )
    await pool.load("small", "1")
    error = await _caught(pool.load("small", "2"))
    assert "load_timeout_s" in str(error.__cause__)
    assert events[-1].step is Step.FAILED
    assert (await _answer(pool, question, version="1")).model_version == "1"
    assert (await _answer(pool, question, version="3")).model_version == "3"

    clock.now_s += 1000.0
    later = await _caught(pool.load("small", "2"))
    assert later.retry_after_s > 0, "one that hangs is not joined by another"
    held = {"small 1", "small 2", "small 3"}
    assert dict(pool.residents.sizes()).keys() == held, "what it took is not free yet"
    goes_on.set()
    while "small 2" in dict(pool.residents.sizes()):  # noqa: ASYNC110  # a thread is to end
        await asyncio.sleep(0.001)
    await pool.load("small", "2")
    assert await pool.close()


async def test_who_ends_while_a_load_hangs_is_told_so(write, monkeypatch):
    goes_on = Event()
    monkeypatch.setattr(loading, "start", lambda *_: goes_on.wait(30))
    pool = Pool([write()], upkeep=Upkeep(load_timeout_s=0.05))
    assert isinstance(await _caught(pool.load("small")), Unavailable)
    assert not await pool.close(), "a thread is still there"
    goes_on.set()


async def test_unloading_waits_for_what_runs(tmp_path, open_pool):
    pool, events = open_pool(write_prose(tmp_path))
    text = Tensor("text_input", "BYTES", np.array([b"The "], object))
    parts = pool.request("prose", None, InferRequest((text,), parameters={"max_tokens": 3}))
    await anext(parts)
    async with asyncio.TaskGroup() as group:
        unloading = group.create_task(pool.unload("prose"))
        await asyncio.sleep(0)
        assert pool.state("prose") is State.DRAINING
        assert isinstance(await _caught(pool.load("prose")), Unavailable)
        assert len([part async for part in parts]) == 2
        assert not unloading.done()
    assert [event.state for event in events][-2:] == [State.DRAINING, State.COLD]


async def test_a_caller_that_leaves_a_stream_lets_the_model_go(tmp_path, open_pool):
    pool, _ = open_pool(write_prose(tmp_path))
    text = Tensor("text_input", "BYTES", np.array([b"The "], object))
    parts = pool.request("prose", None, InferRequest((text,)))
    await anext(parts)
    await parts.aclose()
    await pool.unload("prose")
    assert pool.state("prose") is State.COLD


async def test_an_unloaded_model_can_be_loaded_again(write, open_pool, question):
    pool, _ = open_pool(write())
    await pool.unload("small")
    assert pool.state("small") is State.COLD
    first = await _answer(pool, question)
    await pool.unload("small")
    again = await _answer(pool, question)
    np.testing.assert_array_equal(first.outputs[0].data, again.outputs[0].data)


async def test_what_is_held_is_told(write, open_pool, files):
    pool, _ = open_pool(write(version="1"), write(version="2"))
    await pool.load("small", "1")
    newest, oldest = pool.held()
    assert (newest.version, newest.state, newest.load_s) == ("2", State.COLD, None)
    assert (oldest.version, oldest.state, oldest.load_s) == ("1", State.WARM, 0.0)
    assert oldest.bytes == len(files["small.onnx"])
    metadata = pool.metadata("small")
    assert (metadata.versions, metadata.platform) == (("2", "1"), "onnx_onnxv1")
    assert pool.metadata("small", "1").versions == ("1",)
    assert pool.labels("small") == ("a", "b", "c")
    assert pool.is_healthy()


@pytest.mark.parametrize(("name", "version"), [("none", None), ("small", "7")])
async def test_an_unknown_model_is_not_found(write, open_pool, question, name, version):
    pool, _ = open_pool(write())
    with pytest.raises(NotFound):
        pool.package(name, version)
    with pytest.raises(NotFound):
        await _answer(pool, question, name, version)


async def test_a_closed_pool_takes_nothing(write, open_pool, question):
    pool, _ = open_pool(write())
    await pool.load("small")
    await pool.close()
    assert pool.state("small") is State.COLD
    with pytest.raises(Unavailable):
        await _answer(pool, question)


def test_the_same_version_twice_is_refused(write):
    package = write()
    with pytest.raises(PackageError, match="twice"):
        Pool([package, package])


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        pytest.param((), "'image' is missing", id="none"),
        pytest.param(
            (Tensor("image", "FP64", np.ones((1, 1, 8, 8))),), "must be FP32", id="datatype"
        ),
        pytest.param(
            (Tensor("image", "FP32", np.ones((1, 8, 8), np.float32)),),
            r"must have shape \[-1, 1, 8, 8\]",
            id="rank",
        ),
        pytest.param(
            (Tensor("image", "FP32", np.ones((1, 1, 8, 9), np.float32)),),
            "must have shape",
            id="shape",
        ),
        pytest.param(
            (
                Tensor("image", "FP32", np.ones((1, 1, 8, 8), np.float32)),
                Tensor("other", "FP32", np.ones((1,), np.float32)),
            ),
            "'other' is unknown",
            id="one too many",
        ),
    ],
)
async def test_inputs_that_do_not_fit_are_refused(write, open_pool, engine, inputs, says):
    pool, _ = open_pool(write(engine))
    with pytest.raises(BadRequest, match=says):
        await _answer(pool, InferRequest(inputs))


async def test_an_unknown_output_is_refused(write, open_pool, question):
    pool, _ = open_pool(write())
    request = InferRequest(question.inputs, (RequestedOutput("logits"),))
    with pytest.raises(BadRequest, match="'logits' is unknown"):
        await _answer(pool, request)


async def test_the_first_variant_that_can_run_here_is_taken(write, open_pool, question, edit):
    package = write("torch", "onnx")
    edit(package.path, "engine: torch", "engine: torch\n  accelerator: gpu")
    pool, _ = open_pool(open_package(package.path))
    assert (await _answer(pool, question)).outputs[0].shape == (4, 3)


def test_torch_stays_out_of_a_process_that_serves_onnx(write):
    package = write()
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from isochrone.edge_agent.runtime.package.package import open_package\n"
        "from isochrone.edge_agent.runtime.residence.pool import Pool\n"
        "async def main():\n"
        "    pool = Pool([open_package(Path(sys.argv[1]))])\n"
        "    await pool.load('small')\n"
        "    await pool.close()\n"
        "asyncio.run(main())\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'onnx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(package.path)], check=True, timeout=60)


async def test_a_load_takes_at_least_as_long_as_it_is_told_to(write):
    pool = Pool([write()], min_load_s=0.2)
    await pool.load("small")
    (held,) = pool.held()
    await pool.close()
    assert held.load_s is not None
    assert held.load_s >= 0.2
