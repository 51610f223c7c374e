"""Calls of models that answer in one go: they share runs where that pays, and get what is theirs.

A run that is over sooner than it could be handed to a thread is done on the event loop, others in a
thread. What goes wrong for several has gone wrong for none of them yet: each is then run alone.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from isochrone.edge_agent.runtime.calls import batch
from isochrone.edge_agent.runtime.calls.gate import Entry, Gate, Slot
from isochrone.edge_agent.runtime.calls.holder import Loan
from isochrone.edge_agent.runtime.calls.lanes import Lane
from isochrone.edge_agent.runtime.calls.model import DirectModel, Feed
from isochrone.edge_agent.runtime.calls.rows import split, stacked
from isochrone.edge_agent.runtime.calls.working_memory import WorkingMemory
from isochrone.edge_agent.runtime.memory import process_memory as memory
from isochrone.router.admission.queue import Ticket
from isochrone.router.errors import DeadlineExceeded, Unavailable
from isochrone.router.process.clock import Clock
from isochrone.router.wire.tensor import Tensor

Outputs = tuple[Tensor, ...]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bench:
    """What runs need: a gate, threads, time, and the bounds of what is done on the loop.

    A run holds its slot for `min_service_s` at least.
    """

    gate: Gate
    runner: Executor
    clock: Clock
    inline_s: float
    min_service_s: float = 0.0
    memory: WorkingMemory | None = None


class Turn:
    """One call, from joining the line to its outputs: an `Entry`."""

    __slots__ = (
        "_bench",
        "_told",
        "asked_s",
        "begun",
        "cost_s",
        "deadline_s",
        "feed",
        "infer_s",
        "joined_s",
        "lane",
        "loan",
        "model",
        "priority",
        "rows",
        "tenant",
        "ticket",
        "wait_s",
    )

    def __init__(
        self,
        bench: Bench,
        model: DirectModel,
        feed: Feed,
        rows: int | None,
        lane: Lane,
        loan: Loan,
        *,
        tenant: str,
        priority: int,
        deadline_s: float,
        asked_s: float,
        told: "Told",
    ) -> None:
        """`loan` keeps the model in memory; it is given back when the turn is over.

        It was asked for at `asked_s`; `told` hears once what came of it, unless it is withdrawn.
        """
        self._bench = bench
        self.model = model
        self.feed = feed
        self.rows = rows or 1
        self.lane = lane
        self.loan = loan
        self.tenant = tenant
        self.priority = priority
        self.deadline_s = deadline_s
        self.cost_s = lane.cost.predict_s(self.rows)
        self.asked_s = asked_s
        self.joined_s = bench.clock()
        self.begun = False
        self.ticket: Ticket[Entry] | None = None
        self.wait_s = 0.0
        self.infer_s = 0.0
        self._told: Told | None = told

    def pause_s(self, behind: int) -> float:
        """See `Entry`."""
        lane, members = self.lane, behind + 1
        if (members + 1) * self.rows > lane.most_rows or self._bench.min_service_s:
            return 0.0
        return batch.pause_s(lane.cost, members, self.rows, lane.gap_s)

    def batch(self) -> "Run":
        """See `Entry`."""
        return Run(self._bench, self)

    def refuse(self, error: Exception) -> None:
        """It does not start."""
        self.end(error)

    def withdraw(self) -> None:
        """Nobody waits for it any more: it does not start, or runs to its end for nobody."""
        self._told = None
        if not self.begun:
            self._bench.gate.leave(self)
            self.loan.give_back()

    def end(self, outcome: Outputs | Exception) -> None:
        """It is over."""
        self.loan.give_back()
        self.tell(outcome)

    def tell(self, outcome: Outputs | Exception) -> None:
        """Give the outputs, or the reason why there are none, to whoever still waits."""
        told, self._told = self._told, None
        if told is None:
            return
        try:
            told(self, outcome)
        except Exception:  # whatever it is, the others of its run are told
            _log.exception("an answer of %s was lost", self.model.name)


Told = Callable[[Turn, Outputs | Exception], None]
"""Hears of a turn what came of it."""


class Run:
    """Turns that share a run: a `Batch`."""

    def __init__(self, bench: Bench, first: Turn) -> None:
        self._bench = bench
        self._lane = first.lane
        self._turns = [first]
        self._rows = first.rows
        self._deadline_s = first.deadline_s
        self._slot: Slot | None = None
        self._ran: _Ran | None = None
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._others = -1
        """How many large runs had begun before it; -1 where one goes on beside it."""

    @property
    def hungry(self) -> bool:
        """See `Batch`."""
        return self._rows < self._lane.most_rows

    def joins(self, other: Entry, behind: int, now_s: float) -> bool:
        """See `Batch`."""
        assert isinstance(other, Turn)
        cost, rows = self._lane.cost, self._rows + other.rows
        deadline_s = min(self._deadline_s, other.deadline_s)
        if other.model is not self._turns[0].model:  # the same version, loaded anew
            return False
        if rows > self._lane.most_rows or now_s + cost.predict_s(rows) > deadline_s:
            return False
        if other.priority > self._turns[0].priority:  # the less urgent would hold up the more
            return False
        if rows * self._lane.row_bytes > self._turns[0].model.footprint.light_bytes:
            return False
        if not batch.pays(cost, len(self._turns), self._rows, other.rows, behind):
            return False
        self._turns.append(other)
        self._rows, self._deadline_s = rows, deadline_s
        return True

    def begin(self, slot: Slot) -> bool:
        """See `Batch`."""
        self._slot = slot
        self._began_s = now_s = self._bench.clock()
        for turn in self._turns:
            turn.begun = True
            turn.wait_s = now_s - turn.asked_s
        is_known = self._rows <= self._lane.seen_rows and not self._turns[0].feed.frees
        work = _ran if is_known else self._work()
        if work is _ran and self._is_short():
            self._ran = _ran(self._turns, self._bench.clock)
            if not self._bench.min_service_s:
                return True
            self.settle()  # it keeps its slot for a while
            return False
        loop = asyncio.get_running_loop()
        try:
            running = self._bench.runner.submit(work, self._turns, self._bench.clock)
        except RuntimeError as error:  # the system gives us no thread more
            _log.error("%s cannot run: %s", self._turns[0].model.name, error)
            self._ran = self._in_vain("this endpoint has no thread for it")
            self.settle()
            return False
        self._timer = loop.call_later(self._deadline_s - now_s, self._expire)
        running.add_done_callback(lambda it: _hand_back(loop, self._returned, it))
        return False

    def _work(self) -> "_Work":
        """What is done in the run: that, and a look at its memory where that is not known."""
        counted, frees = self._bench.memory, self._turns[0].feed.frees
        if counted is None or not counted.measures:
            return _ran
        self._others = counted.granted if counted.running <= frees else -1
        return _looked_at

    def _learn(self, taken_bytes: int) -> None:
        """What it took in memory, where nothing large went on beside it."""
        counted, lane = self._bench.memory, self._lane
        lane.seen_rows = max(lane.seen_rows, self._rows)
        if counted is not None and counted.granted == self._others:
            footprint = self._turns[0].model.footprint
            footprint.learn(self._rows * lane.row_bytes, taken_bytes)

    def _is_short(self) -> bool:
        """It is known to be over sooner than a thread would have it."""
        cost, rows = self._lane.cost, self._rows
        return cost.sure and cost.knows(rows) and cost.predict_s(rows) < self._bench.inline_s

    def _in_vain(self, why: str) -> "_Ran":
        return _Ran([Unavailable(why, retry_after_s=1.0)] * len(self._turns), 0.0)

    def _returned(self, running: "Future[_Ran]") -> None:
        """A thread has ended it."""
        if self._timer is not None:
            self._timer.cancel()
        if running.cancelled():
            self._ran = self._in_vain("this endpoint is shutting down")
        else:
            self._ran = running.result()
        self.settle()

    def settle(self) -> None:
        """See `Batch`."""
        left_s = self._began_s + self._bench.min_service_s - self._bench.clock()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._end)
        else:
            self._end()

    def _end(self) -> None:
        slot, ran = self._slot, self._ran
        assert slot is not None
        assert ran is not None
        infer_s = max(ran.took_s, self._bench.min_service_s)
        cost = self._lane.cost
        stretch = ran.took_s / cost.predict_s(self._rows) if cost.sure and ran.whole else None
        if slot.alone and ran.whole:
            cost.measured(self._rows, ran.took_s)
        if ran.taken_bytes is not None and ran.whole:
            self._learn(ran.taken_bytes)
        slot.release(stretch)  # first: answers tell how many are left
        for turn, outcome in zip(self._turns, ran.outcomes, strict=True):
            turn.infer_s = infer_s
            turn.end(outcome)

    def _expire(self) -> None:
        """Tell those whose deadline has passed; the thread goes on, and the slot is still its."""
        now_s = max(self._deadline_s, self._bench.clock())
        for turn in self._turns:
            if turn.deadline_s <= now_s:
                turn.tell(DeadlineExceeded("the deadline passed before the answer was there"))
        later = [turn.deadline_s for turn in self._turns if turn.deadline_s > now_s]
        if later:
            self._deadline_s = min(later)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._deadline_s - now_s, self._expire)


def _hand_back(
    loop: asyncio.AbstractEventLoop,
    returned: Callable[["Future[_Ran]"], None],
    running: "Future[_Ran]",
) -> None:
    """From a run's thread to its loop; a loop that is closed wants nothing any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(returned, running)


class _Ran(NamedTuple):
    """For each turn its outputs, or why there are none; the seconds, and that they shared them."""

    outcomes: list[Outputs | Exception]
    took_s: float
    whole: bool = False
    taken_bytes: int | None = None
    """In memory, at its peak, where that was looked at and is told here."""


_Work = Callable[[Sequence[Turn], Clock], _Ran]


def _ran(turns: Sequence[Turn], clock: Clock) -> _Ran:
    """Run them; blocks."""
    began_s = clock()
    if len(turns) == 1:
        outcome = _alone(turns[0])
        return _Ran([outcome], clock() - began_s, not isinstance(outcome, Exception))
    try:
        shared = _shared(turns)
    except Exception:  # whatever it was: one of them may be the cause, the others are not
        shared = None
    if shared is None:
        return _Ran([_alone(turn) for turn in turns], clock() - began_s)
    return _Ran([*shared], clock() - began_s, whole=True)


def _looked_at(turns: Sequence[Turn], clock: Clock) -> _Ran:
    """Run them, and see what that takes in memory."""
    before_bytes = memory.forget_peak() or 0
    ran = _ran(turns, clock)
    return ran._replace(taken_bytes=max(0, memory.peak_bytes() - before_bytes))


def _alone(turn: Turn) -> Outputs | Exception:
    try:
        return turn.model.compute(turn.feed)
    except Exception as error:  # it belongs to who asked
        return error


def _shared(turns: Sequence[Turn]) -> list[Outputs] | None:
    """The outputs of each; None where they do not come row by row."""
    first = turns[0]
    model, names = first.model, first.feed.outputs
    alike = all(turn.feed.outputs == names for turn in turns)
    arrays = stacked([turn.feed.arrays for turn in turns])
    outputs = model.compute(Feed(arrays, names if alike else model.gives))
    parts = split(outputs, [turn.rows for turn in turns])
    if parts is None:
        first.lane.most_rows = model.most_rows = 1
        _log.warning("%s: rows in are not rows out: its calls are run one by one", model.name)
        return None
    if alike:
        return parts
    return [_chosen(turn, part) for turn, part in zip(turns, parts, strict=True)]


def _chosen(turn: Turn, outputs: Outputs) -> Outputs:
    held = {tensor.name: tensor for tensor in outputs}
    return tuple(held[spec.name] for spec in turn.feed.outputs)
