"""Calls through a real gate into a real pool: what waits where, and when a slot is free again."""

import asyncio
import time
from contextlib import asynccontextmanager
from threading import Event

import pytest

from isochrone.edge_agent.runtime.calls.call import Ask, Calls
from isochrone.edge_agent.runtime.engines import onnx_engine
from isochrone.edge_agent.runtime.loading import load as loading
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import DeadlineExceeded, Overloaded
from isochrone.router.wire.report import ModelState

SOON_S = 10


class Tap:
    """Makes what runs in threads wait until it is set."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch
        self.begun, self.go = Event(), Event()

    def __call__(self, module, name):
        original = getattr(module, name)

        def waiting(*arguments):
            self.begun.set()
            self.go.wait(SOON_S)
            return original(*arguments)

        self._monkeypatch.setattr(module, name, waiting)
        return self.go


@pytest.fixture
def tap(monkeypatch):
    made = Tap(monkeypatch)
    yield made
    made.go.set()


@asynccontextmanager
async def opened(*packages, slots=1, queue=1):
    pool = Pool(packages, slots=slots)
    gate = SlotGate(slots, queue, time.monotonic, lambda: 0.5)
    try:
        yield Calls(pool, gate, time.monotonic, lambda *_: None), pool, gate
    finally:
        await pool.close()


def ask(request, model="small", timeout_s=SOON_S):
    return Ask(model, None, request, time.monotonic() + timeout_s, 5)


async def answer(calls, asked):
    call = await calls.open(asked)
    parts = [part async for part in call]
    await call.aclose()
    return parts[0], call.wait_s


async def until(condition):
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.001)


async def test_who_waits_for_a_load_takes_no_slot_from_a_warm_model(write, question, tap):
    async with opened(write(), write(name="other")) as (calls, pool, gate):
        await pool.load("small")
        load = tap(loading, "start")
        async with asyncio.TaskGroup() as tasks:
            cold = [tasks.create_task(answer(calls, ask(question, "other"))) for _ in range(2)]
            await asyncio.sleep(0)
            assert (gate.in_flight, gate.queued) == (0, 2)
            with pytest.raises(Overloaded) as refused:
                await calls.open(ask(question, "other"))
            assert refused.value.retry_after_s
            part, _ = await answer(calls, ask(question, "small"))
            assert (part.model_name, pool.state("other")) == ("small", ModelState.LOADING)
            load.set()
        assert [task.result()[0].model_name for task in cold] == ["other"] * 2
        loaded = next(model for model in pool.held() if model.name == "other")
        assert loaded.load_s
        assert cold[0].result()[1] >= loaded.load_s, "the load counts as waiting"
        assert (gate.in_flight, gate.queued) == (0, 0)


async def test_a_deadline_ends_the_wait_for_a_load_and_leaves_its_place(write, question, tap):
    async with opened(write()) as (calls, _, gate):
        load = tap(loading, "start")
        with pytest.raises(DeadlineExceeded):
            await calls.open(ask(question, timeout_s=0.01))
        assert (gate.in_flight, gate.queued) == (0, 0)
        load.set()


async def _overrun(calls, question, begun):  # noqa: ARG001 - as the other
    with pytest.raises(DeadlineExceeded):
        await calls.open(ask(question, timeout_s=0.05))


async def _leave(calls, question, begun):
    async with asyncio.TaskGroup() as tasks:
        client = tasks.create_task(calls.open(ask(question)))
        await until(begun.is_set)
        client.cancel()


@pytest.mark.parametrize("end", [_overrun, _leave])
async def test_a_slot_is_free_once_its_thread_is(write, question, tap, end):
    async with opened(write()) as (calls, pool, gate):
        await pool.load("small")
        run = tap(onnx_engine, "run_session")
        await end(calls, question, tap.begun)
        assert not run.is_set(), "the caller did not wait for the thread"
        assert gate.in_flight == 1
        async with asyncio.TaskGroup() as tasks:
            unloading = tasks.create_task(pool.unload("small"))
            await asyncio.sleep(0.02)
            assert (pool.state("small"), gate.in_flight) == (ModelState.DRAINING, 1)
            assert not unloading.done()
            run.set()
        await until(lambda: not gate.in_flight)


async def test_a_call_whose_thread_never_began_does_not_begin(write, question, tap, monkeypatch):
    async with opened(write(), slots=1, queue=9) as (_, pool, _):
        await pool.load("small")
        ran = []
        original = onnx_engine.run_session

        def counted(*arguments):
            ran.append(arguments)
            return original(*arguments)

        monkeypatch.setattr(onnx_engine, "run_session", counted)
        run = tap(onnx_engine, "run_session")
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(_one(pool, question))
            second = tasks.create_task(_one(pool, question))
            await asyncio.sleep(0.01)
            second.cancel()
            await asyncio.wait([second])
            run.set()
        assert first.done()
        assert len(ran) == 1


async def _one(pool, question):
    return [part async for part in pool.request("small", None, question)]


async def test_a_call_that_waited_through_a_change_of_version_gets_the_new_one(write, question):
    async with opened(write(), write(version="2")) as (calls, pool, gate):
        await pool.activate("small", "1")
        first = await calls.open(ask(question))
        waiting = asyncio.get_running_loop().create_task(answer(calls, ask(question)))
        await until(lambda: gate.queued == 1)
        assert await pool.activate("small", "2") == "1"
        leaving = asyncio.get_running_loop().create_task(pool.unload("small", "1"))
        await first.aclose()
        assert (await waiting)[0].model_version == "2"
        await leaving
        assert pool.state("small", "1") is ModelState.COLD
