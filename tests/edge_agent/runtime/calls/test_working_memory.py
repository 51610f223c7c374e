"""Runs that take much memory: counted before they begin, given back when they are over."""

import asyncio
import time
from contextlib import asynccontextmanager
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.calls import working_memory
from isochrone.edge_agent.runtime.calls.call import Ask, Calls
from isochrone.edge_agent.runtime.calls.model import Feed
from isochrone.edge_agent.runtime.calls.working_memory import WorkingMemory
from isochrone.edge_agent.runtime.engines.onnx_engine import OnnxModel
from isochrone.edge_agent.runtime.memory import process_memory as memory
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import NoSpace, Unavailable
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import ModelState
from isochrone.router.wire.tensor import Tensor, TensorSpec
from tests.edge_agent.runtime.sized import write_sized
from tests.edge_agent.runtime.wide import write_wide

MIB = 1 << 20
SIDE = 480
"""Of a picture; its run takes about 60 MiB."""


@asynccontextmanager
async def opened(store, *others, left_bytes=None, budget_bytes=80 * MIB):
    pool = Pool([write_wide(store), *others], slots=2, upkeep=Upkeep(budget_bytes=budget_bytes))
    gate = SlotGate(2, 64, time.monotonic, lambda: 0.01)
    counted = WorkingMemory(pool.residents, lambda: left_bytes, lambda: 0, time.monotonic)
    calls = Calls(pool, gate, time.monotonic, lambda *_: None, memory=counted)
    try:
        yield calls, pool, counted
    finally:
        async with asyncio.timeout(30):
            await pool.close()


def pictures(side=SIDE, seed=1):
    return np.random.default_rng(seed).random((1, 3, side, side), np.float32)


def ask(data, within_s=60.0):
    request = InferRequest((Tensor("x", "FP32", data),))
    return Ask("wide", None, request, time.monotonic() + within_s, 1)


def footprint_of(pool):
    return pool._find("wide", None)._footprint


@pytest.fixture
def at_once(monkeypatch):
    """How many runs of large pictures went on at once, for each that began."""
    running, most = set(), []
    compute = OnnxModel.compute

    def counted(model, feed):
        if working_memory.size_bytes(feed.arrays) >= 3 * SIDE * SIDE * 4:
            running.add(id(feed))
            most.append(len(running))
        try:
            return compute(model, feed)
        finally:
            running.discard(id(feed))

    monkeypatch.setattr(OnnxModel, "compute", counted)
    return most


async def test_large_runs_take_turns_under_the_budget_and_give_back(tmp_path, at_once):
    async with opened(tmp_path) as (calls, pool, counted):
        await calls.answer(ask(pictures(16)))
        before_bytes = memory._status_bytes("VmRSS")
        given_pictures = [pictures(seed=seed) for seed in range(4)]
        answers = await asyncio.gather(*(calls.answer(ask(one)) for one in given_pictures))
        taken_bytes = footprint_of(pool).expected_bytes(given_pictures[0].nbytes)
        assert 40 * MIB < taken_bytes < 120 * MIB
        assert max(at_once) == 1, "two would not fit into 80 MiB"
        assert len(at_once) == 4
        assert counted.running == 0
        assert memory._status_bytes("VmRSS") - before_bytes < 24 * MIB
        model = pool.lend("wide").model
        for data, answer in zip(given_pictures, answers, strict=True):
            (alone,) = model.compute(Feed({"x": data}, model.gives))
            np.testing.assert_array_equal(answer.part.outputs[0].data, alone.data)
        pool._find("wide", None)._running -= 1


async def test_two_run_at_once_where_the_budget_has_room(tmp_path, at_once):
    async with opened(tmp_path, budget_bytes=1 << 40) as (calls, _, _):
        await calls.answer(ask(pictures()))
        at_once.clear()
        await asyncio.gather(*(calls.answer(ask(pictures())) for _ in range(4)))
        assert max(at_once) == 2


async def test_one_that_the_machine_cannot_hold_is_refused_with_the_numbers(tmp_path, at_once):
    async with opened(tmp_path, left_bytes=30 * MIB) as (calls, _, counted):
        with pytest.raises(NoSpace, match=r"needs about \d+ bytes .* has 31457280 left") as caught:
            await calls.answer(ask(pictures()))
        assert caught.value.retry_after_s is None
        assert at_once == [], "it was not tried: smaller parts of it told"
        await calls.answer(ask(pictures(64)))
        assert counted.running == 0


async def test_memory_that_calls_hold_is_waited_for(tmp_path, monkeypatch):
    async with opened(tmp_path, left_bytes=30 * MIB) as (calls, _, counted):
        monkeypatch.setattr(counted, "_held_bytes", lambda: 1 << 30)
        with pytest.raises(Unavailable, match=r"calls hold \d+") as caught:
            await calls.answer(ask(pictures(), within_s=0.5))
        assert caught.value.retry_after_s is not None


async def test_idle_models_leave_for_a_run_that_needs_their_memory(tmp_path, monkeypatch):
    other = write_sized(tmp_path, "other", 16)
    async with opened(tmp_path, other, budget_bytes=1 << 40) as (calls, pool, counted):
        await calls.answer(ask(pictures()))
        await pool.load("other")

        def left_bytes():
            return 30 * MIB if pool.state("other") is not ModelState.COLD else 1 << 40

        monkeypatch.setattr(counted, "_left_bytes", left_bytes)
        await calls.answer(ask(pictures()))
        assert pool.state("other") is ModelState.COLD


async def test_where_others_have_the_memory_a_call_waits_until_its_deadline(tmp_path):
    async with opened(tmp_path) as (calls, pool, counted), asyncio.TaskGroup() as group:
        await calls.answer(ask(pictures()))
        loan = pool.lend("wide")
        feed = loan.model.feed(ask(pictures()).request)
        release = await counted.reserve(loan.model, feed, time.monotonic() + 30.0)
        with pytest.raises(Unavailable, match=r"needs \d+ bytes .* other runs have \d+") as caught:
            await calls.answer(ask(pictures(), within_s=0.3))
        assert caught.value.retry_after_s is not None
        waiting, leaving = (group.create_task(calls.answer(ask(pictures()))) for _ in range(2))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        leaving.cancel()
        release()
        loan.give_back()
        await waiting
        assert counted.running == 0


async def test_small_runs_are_counted_by_nobody(tmp_path, monkeypatch):
    async with opened(tmp_path) as (calls, _, counted):
        await calls.answer(ask(pictures(32)))
        monkeypatch.setattr(memory, "forget_peak", lambda: pytest.fail("looked at again"))
        for _ in range(3):
            await calls.answer(ask(pictures(32)))
        assert counted.granted == 0


@given(st.integers(2, 2000), st.integers(2, 2000), st.integers(1, 8), st.floats(0.01, 0.9))
def test_a_part_keeps_what_is_equal_and_what_divides(height, width, rows, share):
    specs = (TensorSpec("a", "UINT8", (-1, 3, -1, -1)), TensorSpec("m", "UINT8", (-1, -1)))
    whole = np.broadcast_to(np.uint8(1), (rows, 3, height, width))
    arrays = {"a": whole, "m": whole[:, 0, :, 0]}
    total = sum(one.nbytes for one in arrays.values())
    part = working_memory._part(Feed(arrays, ()), specs, int(share * total))
    if part is None:
        return
    rows_left, channels, height_left, width_left = part.arrays["a"].shape
    assert part.arrays["m"].shape == (rows_left, height_left)
    assert channels == 3
    assert prod(part.arrays["a"].shape) < prod(whole.shape)
    assert height % 32 or height_left % 32 == 0
    assert width_left <= width
