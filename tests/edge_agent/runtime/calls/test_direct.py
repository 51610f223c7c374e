"""Calls that share runs: who does, who does not, and that everybody gets what is theirs."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import cast

import numpy as np
import pytest

from isochrone.edge_agent.runtime.calls.call import Ask, Calls
from isochrone.edge_agent.runtime.calls.holder import Holder, Loan
from isochrone.edge_agent.runtime.calls.lanes import Lane, Sharing
from isochrone.edge_agent.runtime.calls.model import DirectModel
from isochrone.edge_agent.runtime.loading.sample import IS_SAMPLE
from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import Package, described
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import BadRequest, DeadlineExceeded, Overloaded, TooLarge, Unavailable
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import HeldModel, ModelState
from isochrone.router.wire.tensor import Tensor, TensorSpec

SOON_S = 10
BAD = -1.0


class Doubler(DirectModel):
    """Gives twice what it takes; it refuses BAD, and waits where it is told to."""

    def __init__(self, shape=(-1, 2), cut=0):
        variant = described(b"x", name="v", engine="onnx", file="m.onnx")
        manifest = Manifest(
            name="doubler",
            version="1",
            inputs=(Declared.of(TensorSpec("in", "FP32", shape)),),
            outputs=(Declared.of(TensorSpec("out", "FP32", shape)),),
            warm_up=(Sample((SampleTensor("in", (1, 2)),)),),
            variants=(variant,),
        )
        self.runs: list[int] = []
        self.threads: list[int] = []
        self.go = Event()
        self.go.set()
        self.entered = Event()
        self._cut = cut
        self.runner = ThreadPoolExecutor(4)
        super().__init__(Package(Path(), manifest), self.runner)
        self.most_rows = 4096

    def startup(self):
        """It is there."""

    def shutdown(self):
        """It stays."""

    def is_healthy(self):
        return True

    def compute(self, feed):
        data = feed.arrays["in"]
        self.runs.append(len(data))
        self.threads.append(threading.get_ident())
        self.entered.set()
        assert self.go.wait(SOON_S)
        if (data == BAD).any():
            raise BadRequest("a bad number")
        out = (2 * data)[: len(data) - self._cut or None]
        return (Tensor("out", "FP32", out),)


@dataclass
class Shelf:
    """Holds one model, always warm."""

    model: Doubler
    models_generation = 0
    lent = 0

    @property
    def runner(self):
        return self.model.runner

    def choose(self, name, version=None):
        return HeldModel(name, version or "1", ModelState.WARM)

    def lend(self, name, version=None):  # noqa: ARG002 - a holder's
        self.lent += 1
        return Loan(self.model, version or "1", self._given_back)

    def _given_back(self):
        self.lent -= 1


@asynccontextmanager
async def opened(model, slots=1, queue=64, sharing=None, weights=None, **more):
    shelf = Shelf(model)
    gate = SlotGate(slots, queue, time.monotonic, lambda: 0.001, weights)
    sharing = sharing or Sharing(inline_s=0.0)
    yield (
        Calls(cast(Holder, shelf), gate, time.monotonic, lambda *_: None, sharing=sharing, **more),
        gate,
    )
    model.go.set()
    async with asyncio.timeout(SOON_S):
        while gate.in_flight:  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.001)
    assert gate.queued == 0
    assert shelf.lent == 0, "a model was lent and never given back"
    model.runner.shutdown()


def ask(*rows, timeout_s=SOON_S, tenant="", priority=5):
    data = np.array(rows, np.float32).reshape(len(rows), -1)
    request = InferRequest((Tensor("in", "FP32", data),))
    return Ask("doubler", None, request, time.monotonic() + timeout_s, priority, tenant)


async def twice(calls, asked):
    answer = await calls.answer(asked)
    (out,) = answer.part.outputs
    np.testing.assert_array_equal(out.data, 2 * asked.request.inputs[0].data)
    return answer


def started(call):
    return asyncio.get_running_loop().create_task(call)


async def held_up(calls, model, *asked):
    """A call that runs until it may `go` on, and these calls, which all wait behind it."""
    model.go.clear()
    model.entered.clear()
    first = started(calls.answer(ask((0, 0))))
    await asyncio.to_thread(model.entered.wait, SOON_S)
    waiting = [started(calls.answer(one)) for one in asked]
    await asyncio.sleep(0.01)
    return first, waiting


async def test_those_who_wait_share_a_run_and_get_what_is_theirs():
    model = Doubler()
    async with opened(model) as (calls, _):
        asked = [ask(*[(n, i) for i in range(n + 1)]) for n in range(5)]
        _, waiting = await held_up(calls, model, *asked)
        model.go.set()
        for one, task in zip(asked, waiting, strict=True):
            (out,) = (await task).part.outputs
            np.testing.assert_array_equal(out.data, 2 * one.request.inputs[0].data)
    assert model.runs == [1, 15]


async def test_a_bad_member_fails_alone():
    model = Doubler()
    async with opened(model) as (calls, _):
        good = [ask((n, n)) for n in range(3)]
        _, waiting = await held_up(calls, model, *good, ask((BAD, 0)))
        model.go.set()
        with pytest.raises(BadRequest, match="a bad number"):
            await waiting[3]
        assert [(await task).part.outputs[0].data[0, 0] for task in waiting[:3]] == [0, 2, 4]
    assert model.runs == [1, 4, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("model", "sharing", "runs"),
    [
        pytest.param(Doubler(), Sharing(4, inline_s=0), [1, 4, 2], id="by rows, four of them"),
        pytest.param(Doubler(), Sharing(1, inline_s=0), [1] * 4, id="not where it is off"),
        pytest.param(
            Doubler(), Sharing(9, {"doubler": 1}, 0), [1] * 4, id="not where it is off by model"
        ),
        pytest.param(Doubler((1, 2)), Sharing(inline_s=0), [1] * 4, id="not with fixed rows"),
        pytest.param(Doubler(), None, [1, 6], id="all"),
    ],
)
async def test_who_may_share(model, sharing, runs):
    async with opened(model, sharing=sharing) as (calls, _):
        rows = 1 if len(set(runs)) == 1 else 2
        asked = [ask(*[(n, n)] * rows) for n in range(3)]
        _, waiting = await held_up(calls, model, *asked)
        model.go.set()
        await asyncio.gather(*waiting)
    assert model.runs == runs


async def test_only_inputs_of_one_form_share():
    model = Doubler((-1, -1))
    async with opened(model) as (calls, _):
        asked = [ask((1, 1)), ask((1, 1, 1)), ask((2, 2)), ask((2, 2, 2))]
        _, waiting = await held_up(calls, model, *asked)
        model.go.set()
        for one, task in zip(asked, waiting, strict=True):
            assert (await task).part.outputs[0].shape == one.request.inputs[0].shape
    assert model.runs == [1, 2, 2]


async def test_a_model_that_does_not_answer_row_by_row_is_asked_one_by_one_from_then_on(caplog):
    model = Doubler((-1, 2), cut=1)
    async with opened(model) as (calls, _):
        for expected in ([1, 3, 1, 1, 1], [1, 1, 1, 1]):
            model.runs.clear()
            _, waiting = await held_up(calls, model, *[ask((n, n)) for n in range(3)])
            model.go.set()
            await asyncio.gather(*waiting)
            assert model.runs == expected
    assert "run one by one" in caplog.text


async def test_who_is_too_late_is_told_while_a_run_goes_on_and_never_starts():
    model = Doubler()
    async with opened(model) as (calls, gate):
        first, (late, early) = await held_up(calls, model, ask((1, 1), timeout_s=0.05), ask((2, 2)))
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="in the queue"):
            await late
        assert time.monotonic() - began_s < 1
        assert not first.done()
        assert gate.queued == 1
        model.go.set()
        await early
    assert model.runs == [1, 1]


async def test_a_deadline_passes_during_the_run_and_the_slot_is_the_runs_to_its_end():
    model = Doubler()
    async with opened(model) as (calls, gate):
        model.go.clear()
        task = started(calls.answer(ask((1, 1), timeout_s=0.05)))
        with pytest.raises(DeadlineExceeded, match="before the answer"):
            await task
        assert gate.in_flight == 1


@pytest.mark.parametrize("moment", ["waiting", "running"])
async def test_who_goes_away_costs_nothing_but_the_run_that_has_begun(moment):
    model = Doubler()
    async with opened(model) as (calls, _):
        first, (leaver, stayer) = await held_up(calls, model, ask((1, 1)), ask((2, 2)))
        gone = leaver if moment == "waiting" else first
        gone.cancel()
        await asyncio.wait([gone])
        model.go.set()
        assert (await stayer).part.outputs[0].data[0, 0] == 4
    assert model.runs == ([1, 1] if moment == "waiting" else [1, 2])


async def test_a_member_joins_only_if_the_deadline_of_all_allows_it():
    model = Doubler()
    async with opened(model) as (calls, _):
        lane = calls.lanes.find("doubler", "1", {"in": np.zeros((1, 2))}, 1, model.most_rows)
        for rows in [1, 2] * 50:
            lane.cost.measured(rows, 4.0 + 0.7 * rows)
        asked = ask((1, 1), timeout_s=5), ask((2, 2)), ask((3, 3))
        _, waiting = await held_up(calls, model, *asked)
        model.go.set()
        await asyncio.gather(*waiting)
    assert model.runs == [1, 1, 2], "a second row would end after five seconds"


@pytest.mark.parametrize(
    ("priorities", "runs"),
    [
        pytest.param((1, 5, 5), [1, 1, 2], id="an urgent one is not held up by others' rows"),
        pytest.param((5, 5, 5), [1, 3], id="equals share"),
    ],
)
async def test_no_less_urgent_call_makes_a_run_longer(priorities, runs):
    model = Doubler()
    async with opened(model) as (calls, _):
        asked = [ask((1, 1), priority=priority) for priority in priorities]
        _, waiting = await held_up(calls, model, *asked)
        model.go.set()
        await asyncio.gather(*waiting)
    assert model.runs == runs


async def test_short_runs_are_done_on_the_loop_once_that_is_known():
    model = Doubler()
    sharing = Sharing(inline_s=1.0)
    async with opened(model, sharing=sharing) as (calls, _):
        for _ in range(12):
            await twice(calls, ask((1, 1)))
    own = threading.get_ident()
    assert own not in model.threads[:4]
    assert model.threads[-1] == own


async def test_who_is_cancelled_as_a_shared_run_ends_takes_nothing_from_the_others():
    model = Doubler()
    async with opened(model, sharing=Sharing(inline_s=1.0)) as (calls, gate):
        for _ in range(12):  # until runs are known to be short
            await twice(calls, ask((1, 1)))
        leaver, stayer = started(calls.answer(ask((1, 1)))), started(calls.answer(ask((2, 2))))
        await asyncio.sleep(0)  # both wait; the run begins, and ends, in this loop's next turn
        leaver.cancel()
        async with asyncio.timeout(SOON_S):
            assert (await stayer).part.outputs[0].data[0, 0] == 4
        assert gate.in_flight == 0
    assert leaver.cancelled()


async def test_what_cannot_be_served_in_time_is_refused_at_once():
    model = Doubler()
    async with opened(model) as (calls, _):
        for _ in range(12):
            await twice(calls, ask((1, 1)))
        lane = calls.lanes.find("doubler", "1", {"in": np.zeros((1, 2))}, 1, model.most_rows)
        lane.cost.row_s, lane.cost.base_s = 0.5, 0.0
        calls.gate._mean_s = 0.5
        _, waiting = await held_up(calls, model, *[ask((n, n)) for n in range(4)])
        began_s = time.monotonic()
        with pytest.raises(Overloaded) as refused:
            await calls.answer(ask((9, 9), timeout_s=1.0))
        assert time.monotonic() - began_s < 0.5
        assert refused.value.retry_after_s == pytest.approx(2.0)
        model.go.set()
        await asyncio.gather(*waiting)


async def test_an_output_that_one_asks_for_is_all_that_it_gets():
    model = Doubler()
    async with opened(model) as (calls, _):
        _, waiting = await held_up(calls, model, ask((1, 1)), ask((2, 2)))
        model.go.set()
        names = [[tensor.name for tensor in (await task).part.outputs] for task in waiting]
    assert names == [["out"], ["out"]]


async def warmed(calls):
    """Runs of one row are known to be short from here on."""
    for _ in range(12):
        await twice(calls, ask((1, 1)))


async def test_a_run_of_so_many_rows_as_none_had_is_not_believed_to_be_short():
    model = Doubler()
    async with opened(model, sharing=Sharing(inline_s=1.0)) as (calls, _):
        await warmed(calls)
        for count in (1, 5000, 5000):
            await twice(calls, ask(*[(1, 1)] * count))
    own = threading.get_ident()
    assert [thread == own for thread in model.threads[-3:]] == [True, False, True]


async def test_an_answer_that_fails_to_be_told_takes_no_other_with_it():
    model, told = Doubler(), []
    async with opened(model, sharing=Sharing(inline_s=1.0)) as (calls, gate):
        await warmed(calls)

        def fails(*_):
            raise RuntimeError("can't start new thread")

        calls.begin(ask((1, 1)), fails)
        calls.begin(ask((2, 2)), lambda _, outcome: told.append(outcome[0].data[0, 0]))
        await twice(calls, ask((3, 3)))
        assert gate.in_flight == 0
    assert told == [4]


async def test_a_run_that_gets_no_thread_is_refused_and_leaves_its_slot(monkeypatch):
    model = Doubler()
    async with opened(model) as (calls, gate):

        def none():
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(model.runner, "_adjust_thread_count", none)
            with pytest.raises(Unavailable, match="no thread"):
                await calls.answer(ask((1, 1)))
        assert gate.in_flight == 0
        await twice(calls, ask((1, 1)))


async def test_a_call_without_rows_runs_alone():
    model = Doubler()
    async with opened(model) as (calls, _):
        empty = Tensor("in", "FP32", np.zeros((0, 2), np.float32))
        none = ask((0, 0))._replace(request=InferRequest((empty,)))
        _, waiting = await held_up(calls, model, ask((1, 1)), none, ask((2, 2)))
        model.go.set()
        answers = await asyncio.gather(*waiting)
        assert [answer.part.outputs[0].shape for answer in answers] == [(1, 2), (0, 2), (1, 2)]
    assert sorted(model.runs) == [0, 1, 2], "the others share as before"


async def test_a_call_waits_for_the_next_where_that_pays():
    model = Doubler()
    async with opened(model) as (calls, _):
        lane = calls.lanes.find("doubler", "1", {"in": np.zeros((1, 2))}, 1, model.most_rows)
        for rows in [1, 2] * 10:
            lane.cost.measured(rows, 0.4 + 0.001 * rows)
        lane.came(time.monotonic())
        lane.gap_s = 0.01
        first = started(twice(calls, ask((1, 1))))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, twice(calls, ask((2, 2))))
    assert model.runs == [2]


def test_how_often_calls_come_is_seen():
    lane = Lane(1, 4)
    for number in range(200):
        lane.came(1000.0 + 0.01 * number)
    assert lane.gap_s == pytest.approx(0.01, rel=0.01)


async def test_whoever_comes_first_lends_the_others_no_context():
    model, seen = Doubler(), []
    async with opened(model, sharing=Sharing(inline_s=1.0)) as (calls, _):
        await warmed(calls)
        here = IS_SAMPLE.set(True)
        try:
            calls.begin(ask((1, 1)), lambda *_: seen.append(IS_SAMPLE.get()))
        finally:
            IS_SAMPLE.reset(here)
        await twice(calls, ask((2, 2)))
    assert seen == [False]


async def test_a_run_that_fails_does_not_look_like_a_slow_one(monkeypatch):
    model, stretches = Doubler(), []
    ended = SlotGate.ended

    def noting(gate, run, stretch):
        stretches.append(stretch)
        ended(gate, run, stretch)

    async with opened(model) as (calls, _):
        await warmed(calls)
        _, waiting = await held_up(calls, model, ask((1, 1)), ask((BAD, 0)))
        monkeypatch.setattr(SlotGate, "ended", noting)
        model.go.set()
        await asyncio.gather(*waiting, return_exceptions=True)
    first, shared = stretches
    assert first is not None
    assert shared is None


async def test_rows_whose_outputs_would_be_too_large_are_refused_before_they_are_computed():
    model = Doubler()
    async with opened(model, most_output_bytes=100) as (calls, _):
        await twice(calls, ask(*[(1, 2)] * 12))
        with pytest.raises(TooLarge, match=r"13 rows give 104 bytes .* 100 .*in_flight_bytes"):
            await calls.answer(ask(*[(1, 2)] * 13))
        assert model.runs == [12]


async def test_a_model_whose_rows_are_not_proven_is_not_judged_by_them():
    model = Doubler()
    model.most_rows = 1
    async with opened(model, most_output_bytes=100) as (calls, _):
        await twice(calls, ask(*[(1, 2)] * 13))
