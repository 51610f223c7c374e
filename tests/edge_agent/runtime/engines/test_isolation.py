"""Engines in processes of their own: killed, hanging, poisoned, out of memory, given back."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isochrone.edge_agent.runtime.engines import process_engine
from isochrone.edge_agent.runtime.engines.frames import Frame, Kind, Start
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved
from isochrone.router.errors import BadRequest, Crashed, Quarantined, Unavailable
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import ModelState as State
from isochrone.router.wire.tensor import Tensor

APART = Upkeep(isolation_of={"small": "process"})


class Hand:
    """A clock that stands where it was put."""

    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Hand()


@pytest.fixture
def workers(monkeypatch):
    """Every process that is started."""
    made = []

    class Noted(process_engine.Worker):
        def __init__(self, connections):
            super().__init__(connections)
            made.append(self)

    monkeypatch.setattr(process_engine, "Worker", Noted)
    yield made
    assert all(worker._process.poll() is not None for worker in made), "a process was left behind"


@asynccontextmanager
async def opened(package, clock, upkeep=APART, **more):
    events: list[ModelMoved] = []
    pool = Pool([package], slots=2, clock=clock, on_event=events.append, upkeep=upkeep, **more)
    try:
        yield pool, events
    finally:
        await pool.close()


async def answer(pool, request):
    (part,) = [part async for part in pool.request("small", None, request)]
    return part


def numbered(number):
    data = np.full((1, 1, 8, 8), number, np.float32)
    return InferRequest((Tensor("image", "FP32", data),), id=str(number))


async def killed_under(pool, worker, *requests):
    """What calls end with whose process is frozen when they begin, then killed."""
    os.kill(worker.pid, signal.SIGSTOP)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(caught(answer(pool, request))) for request in requests]
        await asyncio.sleep(0.1)
        worker.kill()
    return [call.result() for call in calls]


def freeze_new(monkeypatch):
    """Every process that is started is frozen at once."""
    started = process_engine.Worker

    def frozen(connections):
        worker = started(connections)
        os.kill(worker.pid, signal.SIGSTOP)
        return worker

    monkeypatch.setattr(process_engine, "Worker", frozen)


async def caught(awaitable):
    try:
        return await awaitable
    except Exception as error:  # to be looked at
        return error


@pytest.mark.parametrize("engine", ["onnx", "torch"])
async def test_it_answers_as_it_does_inside(write, clock, workers, question, engine):
    package = write(engine)
    async with opened(package, clock, Upkeep()) as (pool, _):
        inside = await answer(pool, question)
    async with opened(package, clock) as (pool, _):
        apart = await answer(pool, question)
        with pytest.raises(BadRequest, match="'image' is missing"):
            await answer(pool, InferRequest(()))
        assert dict(pool.residents.sizes())["small 1"] > 1 << 20, "a whole process"
        assert len(workers) == 1
        await pool.unload("small")
        assert pool.residents.taken_bytes == 0
        assert not workers[0].is_alive()
    assert (apart.model_name, apart.id) == (inside.model_name, inside.id)
    np.testing.assert_array_equal(apart.outputs[0].data, inside.outputs[0].data)


async def test_a_manifest_may_wish_for_it(write, clock, workers, question):
    package = write(isolation="process")
    async with opened(package, clock, Upkeep()) as (pool, _):
        await answer(pool, question)
        assert len(workers) == 1
    async with opened(package, clock, Upkeep(isolation_of={"small": "none"})) as (pool, _):
        await answer(pool, question)
    assert len(workers) == 1, "the agent's configuration goes over it"


async def test_a_crash_costs_one_answer(write, clock, workers, question):
    async with opened(write(), clock) as (pool, events):
        await answer(pool, question)
        (lost,) = await killed_under(pool, workers[0], numbered(1))
        assert isinstance(lost, Crashed)
        assert pool.state("small") is State.COLD
        crashes = [event for event in events if event.step == "crashed"]
        assert len(crashes) == 1
        assert (await answer(pool, question)).id == "four"
        assert len(workers) == 2


async def test_a_death_between_calls_costs_none(write, clock, workers, question):
    async with opened(write(), clock) as (pool, events):
        await answer(pool, question)
        workers[0].kill()
        workers[0]._process.wait()
        assert (await answer(pool, question)).id == "four"
        assert [event.step for event in events].count("crashed") == 1


async def test_crash_after_crash_waits_longer(write, clock, workers):
    async with opened(write(), clock) as (pool, _):
        waits = []
        for number in range(3):
            await answer(pool, numbered(99))
            await killed_under(pool, workers[-1], numbered(number))
            refusal = await caught(pool.load("small"))
            waits.append(refusal.retry_after_s if isinstance(refusal, Unavailable) else 0)
            assert pool.time_to_warm_s("small") >= waits[-1]
            clock.now_s += waits[-1]
        assert waits == [0, 1, 2]


async def test_calls_wait_for_a_restart_within_their_deadlines(write, workers, question):
    async with opened(write(), time.monotonic) as (pool, _):
        for number in range(2):
            await answer(pool, numbered(99))
            await killed_under(pool, workers[-1], numbered(number))
        with pytest.raises(Unavailable, match="cannot be loaded here"):
            await pool.load("small", until_s=time.monotonic() + 0.1)
        async with asyncio.timeout(30):
            parts = pool.request("small", None, question, time.monotonic() + 30)
            assert [part.id async for part in parts] == ["four"]
        assert len(workers) == 3


async def test_a_request_that_was_there_at_two_crashes_is_quarantined(write, clock, workers):
    poisoned: list[Package] = []
    async with opened(write(), clock, on_poison=poisoned.append) as (pool, _):
        for _ in range(2):
            await answer(pool, numbered(99))
            both = await killed_under(pool, workers[-1], numbered(13), numbered(7))
            assert [type(one) for one in both] == [Crashed, Crashed]
            clock.now_s += 100.0
            if len(workers) == 1:
                await answer(pool, numbered(7))  # which clears it
        for _ in range(2):
            assert isinstance(await caught(answer(pool, numbered(13))), Quarantined)
        assert (await answer(pool, numbered(7))).id == "7"
        assert [package.name for package in poisoned] == ["small"]
        assert len(workers) == 3, "the poison one costs no process any more"


async def test_a_crash_with_equal_requests_inside_is_one(write, clock, workers):
    async with opened(write(), clock) as (pool, _):
        await answer(pool, numbered(99))
        both = await killed_under(pool, workers[0], numbered(13), numbered(13))
        assert [type(one) for one in both] == [Crashed, Crashed]
        clock.now_s += 100.0
        assert (await answer(pool, numbered(13))).id == "13"


async def test_a_warm_up_that_kills_its_process_is_tried_with_each_load(
    write, clock, question, monkeypatch
):
    exchange = process_engine.Worker.exchange

    def dies(worker, frame):
        if frame.kind is Kind.ASK:
            worker.kill()
        return exchange(worker, frame)

    poisoned: list[Package] = []
    async with opened(write(), clock, on_poison=poisoned.append) as (pool, _):
        with monkeypatch.context() as patch:
            patch.setattr(process_engine.Worker, "exchange", dies)
            for _ in range(3):
                assert isinstance(await caught(pool.load("small")), Unavailable)
                clock.now_s += 100.0
        assert (await answer(pool, question)).id == "four"
        assert poisoned == []


async def test_a_model_of_its_own_process_is_not_lent(write, clock, question):
    async with opened(write(), clock) as (pool, _):
        await answer(pool, question)
        assert pool.lend("small") is None


async def test_a_kept_model_comes_back_without_a_call(write, clock, workers, question):
    kept = Upkeep(isolation_of=APART.isolation_of, keep_warm=frozenset({"small"}))
    async with opened(write(), clock, kept) as (pool, _):
        await answer(pool, question)
        workers[0].kill()
        workers[0]._process.wait()
        pool.tend()
        assert pool.state("small") is State.LOADING
        await pool.load("small")
        assert pool.state("small") is State.WARM


async def test_a_hanging_process_is_ended_once_nobody_waits(
    write, clock, workers, question, monkeypatch, caplog
):
    monkeypatch.setattr(process_engine, "_HANG_S", 0.05)
    async with opened(write(), clock) as (pool, _):
        await answer(pool, question)
        os.kill(workers[0].pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await answer(pool, numbered(1))
        assert "hangs" in caplog.text
        assert (await answer(pool, question)).id == "four"
        assert len(workers) == 2


async def test_a_process_that_hangs_while_it_loads_is_ended_and_others_are_loaded(
    write, clock, workers, monkeypatch
):
    hasty = replace(APART, load_timeout_s=0.1)
    async with opened(write(), clock, hasty) as (pool, events):
        with monkeypatch.context() as patched:
            freeze_new(patched)
            error = await caught(pool.load("small"))
        assert "load_timeout_s" in str(error.__cause__)
        assert events[-1].step == "failed"
        assert await asyncio.to_thread(workers[0]._process.wait, 10) == -signal.SIGKILL
        while pool.residents.taken_bytes:  # noqa: ASYNC110  # its thread takes note
            await asyncio.sleep(0.001)
        object.__setattr__(hasty, "load_timeout_s", 60.0)
        clock.now_s += 100.0
        await pool.load("small")
        assert len(workers) == 2


async def test_a_process_that_loads_while_the_agent_leaves_is_ended(
    write, clock, workers, monkeypatch
):
    freeze_new(monkeypatch)
    async with opened(write(), clock) as (pool, _), asyncio.TaskGroup() as group:
        group.create_task(caught(pool.load("small")))
        while not workers:  # noqa: ASYNC110  # a thread begins it
            await asyncio.sleep(0.001)
        assert not await pool.close(0.05)
    assert await asyncio.to_thread(workers[0]._process.wait, 10) == -signal.SIGKILL


async def test_a_broken_package_is_told_as_it_is_inside(write, clock, caplog):
    package = write()
    path = package.file(package.manifest.variants[0])
    path.write_bytes(b"x" * path.stat().st_size)
    async with opened(package, clock) as (pool, events):
        error = await caught(pool.load("small"))
        assert isinstance(error, Unavailable)
        assert "sha256" in str(error.__cause__)
    assert logging.ERROR in {record.levelno for record in caplog.records}
    assert events[-1].step == "failed"


def test_the_process_ends_with_the_agent():
    worker = process_engine.Worker(2)
    refusal = worker.exchange(Frame.of(Kind.START, Start("/nowhere/small/1", "onnx", 1)))
    assert refusal.kind is Kind.REFUSAL
    assert worker.close() == 0


def test_the_process_ends_with_the_agent_also_while_it_loads(write, tmp_path, monkeypatch):
    package, marker = write(), tmp_path / "loading"
    slow = tmp_path / "slow" / "onnxruntime.py"  # stands in for an engine that hangs
    slow.parent.mkdir()
    slow.write_text(f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(slow.parent), *sys.path]))
    agent = subprocess.Popen(
        [sys.executable, "-c", LOADING, package.path], stdout=subprocess.PIPE, text=True
    )
    assert agent.stdout
    pid = int(agent.stdout.readline())
    while not marker.exists():
        assert agent.poll() is None
        time.sleep(0.01)
    agent.kill()
    agent.wait()
    agent.stdout.close()
    until_s = time.monotonic() + 10.0
    while is_there(pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    left_behind = is_there(pid)
    if left_behind:
        os.kill(pid, signal.SIGKILL)
    assert not left_behind


LOADING = """
import sys
from isochrone.edge_agent.runtime.engines.frames import Frame, Kind, Start
from isochrone.edge_agent.runtime.engines.process_engine import Worker
worker = Worker(1)
print(worker.pid, flush=True)
worker.exchange(Frame.of(Kind.START, Start(sys.argv[1], "onnx", 1)))
"""


def is_there(pid):
    """A process runs; one that has ended and that nobody asks about does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def test_signals_meant_for_the_agent_leave_it_alone(write, clock, workers, question):
    async with opened(write(), clock) as (pool, _):
        await answer(pool, question)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(workers[0].pid, number)
        assert (await answer(pool, question)).id == "four"
        assert len(workers) == 1
