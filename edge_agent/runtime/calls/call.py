"""One call of a model from admission to its last part, with its deadline and what it cost."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import NamedTuple

from isochrone.edge_agent.runtime.calls.direct import Bench, Outputs, Told, Turn
from isochrone.edge_agent.runtime.calls.gate import Gate, Slot
from isochrone.edge_agent.runtime.calls.holder import Holder, Loan
from isochrone.edge_agent.runtime.calls.knock import admitted
from isochrone.edge_agent.runtime.calls.lanes import NONE_SHARED, Lanes, Sharing
from isochrone.edge_agent.runtime.calls.model import Feed
from isochrone.edge_agent.runtime.calls.rows import row_bytes, rows_of
from isochrone.edge_agent.runtime.calls.unheard import unheard
from isochrone.edge_agent.runtime.calls.working_memory import WorkingMemory
from isochrone.router.errors import BadRequest, DeadlineExceeded, TooLarge
from isochrone.router.process.clock import Clock
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.report import ModelState

_TELLING_S = 0.05
"""So long before its deadline a call is told that there was no memory for it."""
_LOAD_S = 1.0
"""What a load may take that was never measured."""


class Ask(NamedTuple):
    """A call as it was asked for; `deadline_s` is an instant, priority 1 the most urgent."""

    model: str
    version: str | None
    request: InferRequest
    deadline_s: float
    priority: int
    tenant: str = ""


class Answer(NamedTuple):
    """An answer that is whole; the seconds from asking to its run, and those of the run."""

    part: InferResponse
    wait_s: float
    infer_s: float


class Call(AsyncIterator[InferResponse]):
    """The parts of one answer as they come; it holds its slot until it is closed.

    Each part is made in a task of its own: a thread of the model cannot be stopped, and who asked
    need not wait for it. The slot does.
    """

    def __init__(self, calls: "Calls", ask: Ask, asked_s: float, slot: Slot) -> None:
        self.wait_s = 0.0
        """From asking to the start of the inference: the queue, and a cold model's load."""
        self.infer_s = 0.0
        """From that start to the newest part."""
        self._calls = calls
        self._ask = ask
        self._asked_s = asked_s
        self._slot: Slot | None = slot
        self._parts: AsyncIterator[InferResponse] | None = None
        self._step: asyncio.Task[InferResponse | None] | None = None
        self._first: InferResponse | None = None

    async def begin(self) -> None:
        """Have the first part here."""
        ask = self._ask
        self.wait_s = self._calls.clock() - self._asked_s
        self._parts = self._calls.holder.request(
            ask.model, ask.version, ask.request, ask.deadline_s
        )
        self._first = await self._next()

    async def __anext__(self) -> InferResponse:
        part, self._first = self._first, None
        part = part or await self._next()
        if part is None:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Stop the model's work where it has not ended; when it has, the slot is given back."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        if self._step is not None and not self._step.done():
            self._step.cancel()
            self._step.add_done_callback(lambda _: slot.release())
            return
        try:
            if isinstance(self._parts, AsyncGenerator):
                await self._parts.aclose()
        finally:
            slot.release()

    async def _next(self) -> InferResponse | None:
        if self._parts is None:
            return None
        async with in_time(self._ask.deadline_s - self._calls.clock()):
            # No group holds this task: it may outlive who asked, and its failure is seen here.
            self._step = asyncio.get_running_loop().create_task(_part(self._parts))
            part = await asyncio.shield(self._step)
            self._measure()
            if part is None:
                await self._end()
        return part

    async def _end(self) -> None:
        self._parts = None
        await asyncio.sleep(self._calls.min_service_s - self.infer_s)
        self._measure()
        self._calls.served(self._ask.model, self.wait_s, self.infer_s)

    def _measure(self) -> None:
        self.infer_s = self._calls.clock() - self._asked_s - self.wait_s


async def _part(parts: AsyncIterator[InferResponse]) -> InferResponse | None:
    return await anext(parts, None)


@asynccontextmanager
async def in_time(timeout_s: float) -> AsyncGenerator[None]:
    """A block that may take so long.

    Raises:
        DeadlineExceeded: it took longer.
    """
    timer = asyncio.timeout(timeout_s)
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        raise DeadlineExceeded("the deadline passed before the answer was there") from None


def _pass_on(to: "asyncio.Future[Outputs]", _turn: Turn, outcome: Outputs | Exception) -> None:
    if to.done():  # who asked has just been cancelled, and has not run since
        return
    if isinstance(outcome, Exception):
        to.set_exception(outcome)
    else:
        to.set_result(outcome)


class Calls:
    """Lets calls in through a gate and runs them on what a holder holds."""

    def __init__(
        self,
        holder: Holder,
        gate: Gate,
        clock: Clock,
        served: Callable[[str, float, float], None],
        min_service_s: float = 0.0,
        sharing: Sharing = NONE_SHARED,
        most_output_bytes: int = sys.maxsize,
        memory: WorkingMemory | None = None,
    ) -> None:
        """A call takes `min_service_s` at least; where it does, none share a run.

        `served` is told of every call that ended well: model, seconds waited, seconds inferring.
        The outputs of one may take `most_output_bytes`, as far as that can be told before.
        """
        self.holder = holder
        self.gate = gate
        self.clock = clock
        self.served = served
        self.min_service_s = min_service_s
        self._most_output_bytes = most_output_bytes
        self.lanes = Lanes(NONE_SHARED if min_service_s else sharing)
        self._memory = memory
        self._bench = Bench(gate, holder.runner, clock, sharing.inline_s, min_service_s, memory)

    async def answer(self, ask: Ask) -> Answer:
        """The whole answer of a model that answers in one part.

        Raises:
            BadRequest, and as `open`: the model answers in several parts.
        """
        asked_s = self.clock()
        loan = self.holder.lend(ask.model, ask.version)
        while loan is None:
            version = await self._warm(ask)
            loan = self.holder.lend(ask.model, version)
            if loan is None and self.holder.state(ask.model, version) is ModelState.WARM:
                return await self._only_part(ask)  # else it has left again in this very moment
        outputs = asyncio.get_running_loop().create_future()
        told = partial(_pass_on, outputs)
        turn = self._begin(ask, loan, asked_s, told)
        if turn is None:
            turn = await self._begin_large(ask, loan, asked_s, told)
        try:
            return self.whole(ask, turn, await outputs)
        except asyncio.CancelledError:
            turn.withdraw()
            raise

    def begin(self, ask: Ask, told: Told) -> Turn | None:
        """Let a call wait for its turn, which is withdrawn when nobody waits for it any more.

        None where its model has to be loaded first, or is none that answers in one go: `answer`
        does it. `told` is never called before this returns.

        Raises:
            NotFound, BadRequest, Unavailable: as the holder says.
            Overloaded: as the gate says.
        """
        loan = self.holder.lend(ask.model, ask.version)
        if loan is None:
            return None
        turn = self._begin(ask, loan, self.clock(), told)
        if turn is None:
            loan.give_back()
        return turn

    def whole(self, ask: Ask, turn: Turn, outputs: Outputs) -> Answer:
        """The answer that these outputs are."""
        self.served(ask.model, turn.wait_s, turn.infer_s)
        part = InferResponse(ask.model, turn.loan.version, outputs, ask.request.id)
        return Answer(part, turn.wait_s, turn.infer_s)

    def turn_away(self, model: str, version: str | None, tenant: str, priority: int) -> None:
        """Refuse what would be refused in any case, before it is read; cold models are loaded.

        Raises:
            NotFound: as the holder says.
            Overloaded: as the gate says.
        """
        if self.holder.choose(model, version).state is ModelState.WARM:
            self.gate.turn_away(tenant, priority)

    async def open(self, ask: Ask) -> Call:
        """A call whose first part is here; whoever gets it must `aclose` it.

        Raises:
            NotFound, BadRequest, Unavailable, NoSpace: as the holder says.
            Overloaded: as the gate says. Waiting for a cold model takes no slot.
            DeadlineExceeded: in the queue, during a cold model's load, or before the first part.
        """
        asked_s = self.clock()
        await self._warm(ask)
        slot = await admitted(self.gate, ask.deadline_s, ask.priority, ask.tenant)
        call = Call(self, ask, asked_s, slot)  # who has become active meanwhile answers
        try:
            await call.begin()
        except BaseException:  # cancelled, too: its slot must come back
            await call.aclose()
            raise
        return call

    async def _begin_large(self, ask: Ask, loan: Loan, asked_s: float, told: Told) -> Turn:
        """A turn that has its memory before it waits for its slot."""
        assert self._memory is not None
        release: Callable[[], None] = unheard
        try:
            place = self.gate.stand_aside(_LOAD_S)
            try:
                async with in_time(ask.deadline_s - self.clock()):
                    until_s = ask.deadline_s - _TELLING_S
                    feed = loan.model.feed(ask.request)
                    release = await self._memory.reserve(loan.model, feed, until_s)
            finally:
                place.release()
        except BaseException:  # cancelled, too: the model may leave
            loan.give_back()
            raise

        def ended() -> None:
            release()
            loan.give_back()

        counted = Loan(loan.model, loan.version, ended)
        turn = self._begin(ask, counted, asked_s, told, is_counted=True)
        assert turn is not None
        return turn

    def _begin(
        self, ask: Ask, loan: Loan, asked_s: float, told: Told, *, is_counted: bool = False
    ) -> Turn | None:
        """None where it takes so much memory that this has to be counted first."""
        model = loan.model
        try:
            feed = model.feed(ask.request)
            whole = len(feed.arrays) == len(model.takes)  # it was proven with all inputs
            rows = (rows_of(feed.arrays) or None) if model.rowwise and whole else None
            if rows and model.most_rows > 1 and rows * model.row_bytes > self._most_output_bytes:
                self._check_outputs(rows, feed)
            lane = self.lanes.find(model.name, model.version, feed.arrays, rows, model.most_rows)
            if is_counted:
                feed = feed._replace(frees=True)
            elif (rows or 1) * lane.row_bytes > model.footprint.light_bytes and self._memory:
                return None
            lane.came(asked_s)
            turn = Turn(
                self._bench,
                model,
                feed,
                rows,
                lane,
                loan,
                tenant=ask.tenant,
                priority=ask.priority,
                deadline_s=ask.deadline_s,
                asked_s=asked_s,
                told=told,
            )
            self.gate.join(turn)
        except Exception:  # whatever it is, who asked hears it, and the model may leave
            loan.give_back()
            raise
        return turn

    def _check_outputs(self, rows: int, feed: Feed) -> None:
        """Refuse, before it is computed, what has an output row for each of too many rows.

        Raises:
            TooLarge: its outputs would take more than they may.
        """
        size_bytes = rows * row_bytes(feed.outputs)
        if size_bytes > self._most_output_bytes:
            raise TooLarge(
                f"{rows} rows give {size_bytes} bytes of outputs; {self._most_output_bytes} are"
                " possible, a quarter of limits.in_flight_bytes: send fewer rows"
            )

    async def _only_part(self, ask: Ask) -> Answer:
        async with aclosing(await self.open(ask)) as call:
            parts = [part async for part in call]
        if len(parts) != 1:
            raise BadRequest(f"{ask.model} answers in parts; call its generate_stream")
        return Answer(parts[0], call.wait_s, call.infer_s)

    async def _warm(self, ask: Ask) -> str:
        """The version that answers, warm."""
        held = self.holder.choose(ask.model, ask.version)
        if held.state is ModelState.WARM:
            return held.version
        place = self.gate.stand_aside(held.load_s or _LOAD_S)
        try:
            async with in_time(ask.deadline_s - self.clock()):
                return await self.holder.load(ask.model, ask.version, ask.deadline_s)
        finally:
            place.release()
