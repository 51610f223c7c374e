"""A pool under a memory budget, with models that come and go by themselves."""

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from threading import Event

import numpy as np
import pytest

from isochrone.deploy.demo.prose import write_prose
from isochrone.edge_agent.runtime.calls.call import Ask, Calls
from isochrone.edge_agent.runtime.engines import onnx_engine
from isochrone.edge_agent.runtime.loading import load as loading
from isochrone.edge_agent.runtime.loading.choice import Choices
from isochrone.edge_agent.runtime.memory.residency import NoRoomNow
from isochrone.edge_agent.runtime.package.checked import checked_copy
from isochrone.edge_agent.runtime.residence import held
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import NoSpace
from isochrone.router.process import freed_memory
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import ModelState as State
from isochrone.router.wire.tensor import Tensor
from tests.edge_agent.runtime.sized import ones, write_sized

MIB = 1 << 20


class Hand:
    """A clock that stands where it was put."""

    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Hand()


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    """Three models of 16 MiB."""
    store = tmp_path_factory.mktemp("sized")
    return [write_sized(store, name, 16) for name in ("a", "b", "c")]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 64 MiB."""
    return write_sized(tmp_path_factory.mktemp("large"), "large", 64)


@asynccontextmanager
async def opened(packages, clock, **upkeep):
    events: list[ModelMoved] = []
    pool = Pool(packages, slots=2, clock=clock, on_event=events.append, upkeep=Upkeep(**upkeep))
    try:
        yield pool, events
    finally:
        await pool.close()


async def call(pool, name):
    return [part async for part in pool.request(name, None, ones())]


async def settled(pool, name):
    """A load or an unload that has begun is over."""
    for _ in range(5000):
        if pool.state(name) in (State.COLD, State.WARM):
            return
        await asyncio.sleep(0.001)


def warm(pool):
    return {held.name for held in pool.held() if held.state is State.WARM}


def causes(events):
    return [(event.name, event.cause) for event in events if event.cause]


async def test_a_model_that_does_not_fit_beside_others_sends_the_least_worth_away(
    sized, monkeypatch
):
    monkeypatch.setattr(freed_memory, "private_bytes", lambda: 0)  # so that all count alike
    async with opened(sized, count(0.0, 0.01).__next__, budget_bytes=40 * MIB) as (pool, events):
        for name in "aba":
            await call(pool, name)
        await call(pool, "c")
        assert warm(pool) == {"a", "c"}
        assert causes(events) == [("b", "evicted")]
        assert dict(pool.residents.sizes()).keys() == {"a 1", "c 1"}
        assert len(await call(pool, "b")) == 1, "it comes back when it is called"


async def test_a_model_in_use_stays_and_the_refusal_has_the_numbers(tmp_path, sized, clock):
    packages = [write_prose(tmp_path), sized[0]]
    async with opened(packages, clock, budget_bytes=16 * MIB + 1000) as (pool, _):
        text = Tensor("text_input", "BYTES", np.array([b"The "], object))
        parts = pool.request("prose", None, InferRequest((text,), parameters={"max_tokens": 2}))
        await anext(parts)
        with pytest.raises(NoSpace, match="models may take 16778216"):
            await pool.load("a")
        assert pool.state("a") is State.COLD
        assert len([part async for part in parts]) == 1
    async with opened(packages, clock, budget_bytes=17 * MIB, overcommit=True) as (pool, _):
        parts = pool.request("prose", None, InferRequest((text,), parameters={"max_tokens": 2}))
        await anext(parts)
        await pool.load("a")
        assert warm(pool) == {"a", "prose"}
        await parts.aclose()


async def test_a_model_that_is_kept_warm_is_never_sent_away(sized, clock):
    keep = frozenset({"a"})
    async with opened(sized, clock, budget_bytes=30 * MIB, keep_warm=keep, keep_alive_s=5.0) as (
        pool,
        events,
    ):
        await call(pool, "a")
        with pytest.raises(NoSpace, match="in use"):
            await call(pool, "b")
        clock.now_s += 1000.0
        pool.tend()
        assert warm(pool) == {"a"}
        assert causes(events) == []


async def test_what_turns_out_too_large_is_given_back_and_not_loaded_again(
    sized, clock, monkeypatch
):
    file_bytes = sized[0].manifest.variants[0].bytes
    grown = iter([0, 30 * MIB, 0, 1])
    async with opened(sized, clock, budget_bytes=file_bytes + 1) as (pool, events):
        monkeypatch.setattr(freed_memory, "private_bytes", lambda: next(grown))
        with pytest.raises(NoSpace, match=f"a 1 takes {30 * MIB} bytes"):
            await pool.load("a")
        clock.now_s += 100.0
        with pytest.raises(NoSpace, match=f"a 1 takes {30 * MIB} bytes"):
            await pool.load("a")
        assert [event.step for event in events] == ["load", "loaded", "failed"], "loaded once"
        assert pool.residents.taken_bytes == 0
        clock.now_s += 600.0
        await pool.load("a")
        assert pool.residents.taken_bytes == file_bytes, "it was something else that had grown"


async def test_finding_the_fastest_variant_is_no_part_of_a_load(sized, clock, monkeypatch):
    choose = Choices.choose

    def slowly(*args):
        clock.now_s += 100.0
        return choose(*args)

    monkeypatch.setattr(Choices, "choose", slowly)
    async with opened(sized, clock) as (pool, events):
        await pool.load("a")
    (cold_start,) = [event.cold_start for event in events if event.cold_start is not None]
    assert cold_start.wait_s == 100.0
    assert cold_start.load_s == 0.0


async def test_a_file_is_read_once_and_what_was_checked_is_what_runs(
    sized, clock, tmp_path, monkeypatch
):
    @contextmanager
    def gone_then(package, variant):
        with checked_copy(package, variant) as copy:
            package.file(variant).rename(tmp_path / "away")
            yield copy

    monkeypatch.setattr(onnx_engine, "checked_copy", gone_then)
    async with opened(sized[:1], clock) as (pool, _):
        assert await call(pool, "a")
    (tmp_path / "away").rename(sized[0].file(sized[0].manifest.variants[0]))


def test_after_unloading_memory_is_back_within_a_tenth(large, sized):
    """In a process of its own: what other tests left in the heap would tell nothing."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from isochrone.router.process import freed_memory\n"
        "from isochrone.edge_agent.runtime.package.package import open_package\n"
        "from isochrone.edge_agent.runtime.residence.pool import Pool\n"
        "from tests.edge_agent.runtime.sized import ones\n"
        "async def main():\n"
        "    pool = Pool([open_package(Path(path)) for path in sys.argv[1:]], slots=2)\n"
        "    for name in ('a', 'large'):\n"
        "        [part async for part in pool.request(name, None, ones())]\n"
        "        print(freed_memory.private_bytes())\n"
        "    await pool.unload('large')\n"
        "    print(freed_memory.private_bytes())\n"
        "    await pool.close()\n"
        "freed_memory.use_one_heap()\n"
        "asyncio.run(main())\n"
    )
    paths = [str(sized[0].path), str(large.path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], check=True, timeout=60, stdout=subprocess.PIPE
    )
    before, loaded, after = map(int, done.stdout.split())
    assert 60 * MIB <= loaded - before <= 90 * MIB
    assert abs(after - before) <= 0.1 * before, (before, loaded, after)


@pytest.mark.parametrize("spare_mib", [40, 100])
def test_where_memory_runs_out_in_a_load_the_other_models_go_on(large, sized, spare_mib):
    program = (
        "import asyncio, resource, sys\n"
        "from pathlib import Path\n"
        "from isochrone.router.process import freed_memory\n"
        "from isochrone.edge_agent.runtime.package.package import open_package\n"
        "from isochrone.edge_agent.runtime.residence.pool import Pool\n"
        "from isochrone.edge_agent.runtime.memory.residency import NoRoomNow\n"
        "from tests.edge_agent.runtime.sized import ones\n"
        "async def main():\n"
        "    pool = Pool([open_package(Path(path)) for path in sys.argv[2:]], slots=2)\n"
        "    async def call():\n"
        "        return [part async for part in pool.request('a', None, ones())]\n"
        "    await asyncio.gather(*(call() for _ in range(8)))  # every thread has its stack\n"
        "    taken = int(Path('/proc/self/statm').read_text().split()[0]) * 4096\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (taken + (int(sys.argv.pop(1)) << 20),) * 2)\n"
        "    for _ in range(2):\n"
        "        try:\n"
        "            await pool.load('large')\n"
        "        except NoRoomNow as error:\n"
        "            print(error.message)\n"
        "        await call()\n"
        "    await pool.close()\n"
        "asyncio.run(main())\n"
    )
    paths = [str(sized[0].path), str(large.path)]
    done = subprocess.run(
        [sys.executable, "-c", program, str(spare_mib), *paths],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    refusals = ["large 1 does not fit into this machine's memory now"] * 2
    assert done.stdout.splitlines() == refusals, done.stderr


async def test_an_idle_model_leaves_and_comes_back_when_it_is_called(sized, clock):
    async with opened(sized, clock, keep_alive_s=60.0) as (pool, events):
        await call(pool, "a")
        clock.now_s += 59.0
        pool.tend()
        assert warm(pool) == {"a"}
        clock.now_s += 1.0
        pool.tend()
        assert pool.state("a") is State.DRAINING
        assert len(await call(pool, "a")) == 1, "who comes at that very moment is answered, too"
        assert causes(events) == [("a", "idle")]


async def test_a_model_is_loaded_again_before_its_next_call(sized, clock):
    async with opened(sized, clock, keep_alive_s=6.0, idle_bin_s=1.0) as (pool, _):
        for _ in range(12):
            await call(pool, "a")
            clock.now_s += 100.5
        clock.now_s -= 100.5
        states = []
        for _ in range(130):
            pool.tend()
            await settled(pool, "a")
            states.append(pool.state("a"))
            clock.now_s += 1.0
        assert states[0] is State.COLD
        warm_from = states.index(State.WARM)
        assert 85 <= warm_from < 100, "in time, and not long before"
        assert states[100] is State.WARM
        assert states[-1] is State.COLD, "the call did not come"


async def test_what_is_foreseen_sends_nobody_away(sized, clock):
    upkeep = {"keep_alive_of": {"a": 6.0}, "idle_bin_s": 1.0, "budget_bytes": 30 * MIB}
    async with opened(sized, clock, **upkeep) as (pool, _):
        for _ in range(12):
            await call(pool, "a")
            clock.now_s += 100.5
        await call(pool, "b")
        assert warm(pool) == {"b"}
        pool.tend()
        assert warm(pool) == {"b"}
        assert pool.state("a") is State.COLD


async def test_where_the_machine_is_full_one_idle_model_after_the_other_leaves(sized, clock):
    async with opened(sized, clock, keep_warm=frozenset("a")) as (pool, events):
        for name in "abc":
            await call(pool, name)
        for count_left in (2, 1, 1):
            pool.tend(short=True)
            assert len(warm(pool)) == count_left
        assert warm(pool) == {"a"}, "what is kept warm stays"
        assert {cause for _, cause in causes(events)} == {"evicted"}


async def test_what_is_kept_warm_and_arrives_later_is_loaded_without_a_call(sized, clock):
    async with opened([], clock, keep_warm=frozenset("a")) as (pool, _):
        for package in sized:
            pool.add(package)
        pool.tend()
        assert pool.state("a") is State.LOADING
        await settled(pool, "a")
        assert warm(pool) == {"a"}


async def test_what_is_kept_warm_comes_back_when_there_is_room_again(sized, clock, caplog):
    async with opened(sized, clock, keep_warm=frozenset("a")) as (pool, _), AsyncExitStack() as use:
        for name in "bc":
            await pool.load(name)
            use.callback(pool.lend(name, "1").give_back)
        pool.residents._residency.budget_bytes = pool.residents.taken_bytes
        for _ in range(3):
            pool.tend()
        assert pool.state("a") is State.COLD
        assert len(caplog.records) == 1, "said once, not every second"
        await use.aclose()
        pool.tend(short=True)
        assert pool.state("a") is State.COLD
        pool.tend()
        await settled(pool, "a")
        assert "a" in warm(pool)


async def test_what_is_kept_warm_is_tried_again_after_any_failure(sized, clock, monkeypatch):
    def full(*_):
        raise MemoryError

    async with opened(sized, clock, keep_warm=frozenset("a")) as (pool, events):
        with monkeypatch.context() as patched:
            patched.setattr(held, "load", full)
            pool.tend()
            await settled(pool, "a")
            pool.tend()
            assert [event.step for event in events] == ["load", "failed"], "its back-off holds"
        clock.now_s += 1.0
        pool.tend()
        await settled(pool, "a")
        assert warm(pool) == {"a"}


async def test_what_is_kept_warm_and_was_unloaded_on_demand_stays_away(sized, clock):
    async with opened(sized, clock, keep_warm=frozenset("a")) as (pool, _):
        await pool.load("a")
        await pool.unload("a")
        pool.tend()
        assert pool.state("a") is State.COLD
        await call(pool, "a")
        await pool.unload("b")
        pool.tend()
        assert warm(pool) == {"a"}


async def test_the_time_to_warm_counts_what_loads_before(sized, clock, monkeypatch):
    goes_on = Event()
    began = Event()

    def slow(*given):
        began.set()
        goes_on.wait(10)
        return loading.load(*given)

    async with opened(sized, clock) as (pool, _):
        await pool.load("a")
        assert pool.time_to_warm_s("a") == 0.0
        await pool.unload("a")
        for one in pool._all():
            one.outlook.load_s = 4.0
        assert pool.time_to_warm_s("a") == 4.0
        monkeypatch.setattr(held, "load", slow)
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(pool.load(name))
            await asyncio.to_thread(began.wait, 10)
            await asyncio.sleep(0.01)
            clock.now_s += 1.0
            times = [pool.time_to_warm_s(name) for name in "abc"]
            goes_on.set()
        assert times == [3.0, 7.0, 11.0]


async def test_five_hundred_callers_of_a_cold_model_cause_one_load(sized, clock):
    async with opened(sized, clock) as (pool, events):
        answers = await asyncio.gather(*(call(pool, "a") for _ in range(500)))
        assert [len(parts) for parts in answers] == [1] * 500
        assert [event.step for event in events].count("load") == 1


async def test_unloading_while_in_use_waits_and_those_who_come_are_told(sized, clock):
    async with opened(sized, clock) as (pool, events):
        await pool.load("a")
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(call(pool, "a")) for _ in range(8)]
            await asyncio.sleep(0)
            await pool.unload("a")
        assert [len(task.result()) for task in calls] == [1] * 8
        assert [event.step for event in events][-2:] == ["drain", "drained"]
        assert len(await call(pool, "a")) == 1


@asynccontextmanager
async def asked(packages, room_for, monkeypatch):
    """Calls of a pool whose models take 16 MiB each, with room for so many of them."""
    file_bytes = packages[0].manifest.variants[0].bytes
    monkeypatch.setattr(freed_memory, "private_bytes", lambda: 0)  # all count as files
    events: list[ModelMoved] = []
    upkeep = Upkeep(budget_bytes=int(file_bytes * (room_for + 0.5)))
    pool = Pool(packages, slots=2, on_event=events.append, upkeep=upkeep)
    gate = SlotGate(2, 64, time.monotonic, lambda: 0.01)
    try:
        yield Calls(pool, gate, time.monotonic, lambda *_: None), pool, events
    finally:
        await pool.close()


def ask(name, within_s=20.0):
    return Ask(name, None, ones(), time.monotonic() + within_s, 1)


async def test_models_that_share_too_little_room_have_their_turns(sized, monkeypatch):
    """Two callers of each at once: both are answered, and nobody is refused."""
    monkeypatch.setattr(held, "_LEAST_STAY_S", 0.3)
    monkeypatch.setattr(held, "_STAY_LOADS", 0.0)
    answered = {"a": 0, "b": 0}
    async with asked(sized[:2], 1, monkeypatch) as (calls, _, events):
        over_s = time.monotonic() + 2.5

        async def keep_asking(name):
            while time.monotonic() < over_s:
                await calls.answer(ask(name))
                answered[name] += 1

        async with asyncio.TaskGroup() as group:
            for name in "aabb":
                group.create_task(keep_asking(name))
        loads = [event.name for event in events if event.step == "load"]
    assert min(answered.values()) >= 10, answered
    assert loads == (["a", "b"] * len(loads))[: len(loads)], "in turns"
    assert 3 <= len(loads) <= 2 + 2.5 / 0.3, "and each has its stay"
    assert not [event for event in events if event.error]


async def test_a_call_waits_for_the_room_of_one_that_runs(sized, monkeypatch):
    monkeypatch.setattr(held, "_LEAST_STAY_S", 0.0)
    monkeypatch.setattr(held, "_STAY_LOADS", 0.0)
    async with asked(sized[:2], 1, monkeypatch) as (calls, pool, _), asyncio.TaskGroup() as group:
        await pool.load("a")
        loan = pool.lend("a")
        waiting = group.create_task(calls.answer(ask("b")))
        await asyncio.sleep(0.1)
        assert (pool.state("a"), pool.state("b")) == (State.DRAINING, State.COLD)
        behind = group.create_task(calls.answer(ask("a")))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert not behind.done(), "it is cold, not gone"
        loan.give_back()
        await asyncio.wait([waiting, behind])
    assert [task.result().part.model_name for task in (waiting, behind)] == ["b", "a"]


async def test_when_nobody_waits_for_its_room_any_more_a_model_stays(sized, monkeypatch):
    monkeypatch.setattr(held, "_LEAST_STAY_S", 0.0)
    monkeypatch.setattr(held, "_STAY_LOADS", 0.0)
    async with asked(sized[:2], 1, monkeypatch) as (calls, pool, events):
        await pool.load("a")
        loan = pool.lend("a")
        with pytest.raises(NoRoomNow, match=r"b 1 takes \d+ bytes") as caught:
            await calls.answer(ask("b", within_s=0.3))
        assert caught.value.retry_after_s is not None
        assert pool.state("a") is State.WARM
        loan.give_back()
        await calls.answer(ask("a"))
        assert [event.name for event in events if event.step == "load"] == ["a"]


async def test_what_fits_beside_none_that_is_kept_is_refused_for_good(sized, monkeypatch):
    monkeypatch.setattr(freed_memory, "private_bytes", lambda: 0)
    upkeep = Upkeep(budget_bytes=20 * MIB, keep_warm=frozenset("a"))
    pool = Pool(sized, upkeep=upkeep)
    try:
        await pool.load("a")
        with pytest.raises(NoSpace, match="models may take") as caught:
            await pool.load("b", None, time.monotonic() + 20.0)
        assert caught.value.retry_after_s is None
    finally:
        await pool.close()


async def test_a_call_waits_until_an_unload_is_over(sized, monkeypatch):
    async with asked(sized[:1], 1, monkeypatch) as (calls, pool, events):
        await pool.load("a")
        loan = pool.lend("a")
        await pool.dismiss("a")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(calls.answer(ask("a")))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            loan.give_back()
        assert waiting.result().part.model_name == "a"
        assert [event.name for event in events if event.step == "load"] == ["a", "a"]
