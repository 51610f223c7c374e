"""One call of a model from admission to its last part, with its deadline and what it cost."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from edge_agent.runtime.gate import Gate
from edge_agent.runtime.holder import Holder
from router.admission.limit import Lease
from router.errors import DeadlineExceeded
from router.process.clock import Clock
from router.wire.message import InferRequest, InferResponse
from router.wire.report import ModelState

_LOAD_S = 1.0
"""What a load may take that was never measured."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A call as it was asked for; `deadline_s` is an instant, priority 1 the most urgent."""

    model: str
    version: str | None
    request: InferRequest
    deadline_s: float
    priority: int


class Call(AsyncIterator[InferResponse]):
    """The parts of one answer as they come; it holds its lease until it is closed.

    Each part is made in a task of its own: a thread of the model cannot be stopped, and who asked
    need not wait for it. The lease does.
    """

    def __init__(self, calls: "Calls", ask: Ask, asked_s: float, lease: Lease) -> None:
        self.wait_s = 0.0
        """From asking to the start of the inference: the queue, and a cold model's load."""
        self.infer_s = 0.0
        """From that start to the newest part."""
        self._calls = calls
        self._ask = ask
        self._asked_s = asked_s
        self._lease: Lease | None = lease
        self._parts: AsyncIterator[InferResponse] | None = None
        self._step: asyncio.Task[InferResponse | None] | None = None
        self._first: InferResponse | None = None

    async def begin(self) -> None:
        """Have the first part here."""
        ask = self._ask
        self.wait_s = self._calls.clock() - self._asked_s
        self._parts = self._calls.holder.request(ask.model, ask.version, ask.request)
        self._first = await self._next()

    async def __anext__(self) -> InferResponse:
        part, self._first = self._first, None
        part = part or await self._next()
        if part is None:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Stop the model's work where it has not ended; when it has, the lease is given back."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self._step is not None and not self._step.done():
            self._step.cancel()
            self._step.add_done_callback(lambda _: lease.release())
            return
        try:
            if isinstance(self._parts, AsyncGenerator):
                await self._parts.aclose()
        finally:
            lease.release()

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


@dataclass(frozen=True, slots=True)
class Calls:
    """Lets calls in through a gate and runs them on what a holder holds.

    A call takes `min_service_s` at least. `served` is told of every call that ended well: model,
    seconds waited, seconds inferring.
    """

    holder: Holder
    gate: Gate
    clock: Clock
    served: Callable[[str, float, float], None]
    min_service_s: float = 0.0

    async def open(self, ask: Ask) -> Call:
        """A call whose first part is here; whoever gets it must `aclose` it.

        Raises:
            NotFound, BadRequest, Unavailable, NoSpace: as the holder says.
            Overloaded: as the gate says. Waiting for a cold model takes no slot.
            DeadlineExceeded: in the queue, during a cold model's load, or before the first part.
        """
        asked_s = self.clock()
        version = await self._warm(ask)
        lease = await self.gate.admit(ask.deadline_s, ask.priority)
        call = Call(self, replace(ask, version=version), asked_s, lease)
        try:
            await call.begin()
        except BaseException:  # cancelled, too: its lease must come back
            await call.aclose()
            raise
        return call

    async def _warm(self, ask: Ask) -> str:
        """The version that answers, warm."""
        held = self.holder.choose(ask.model, ask.version)
        if held.state is ModelState.WARM:
            return held.version
        place = self.gate.stand_aside(held.load_s or _LOAD_S)
        try:
            async with in_time(ask.deadline_s - self.clock()):
                return await self.holder.load(ask.model, ask.version)
        finally:
            place.release()
