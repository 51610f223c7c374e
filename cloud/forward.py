"""Calls of a model, forwarded as they came to its replicas; answers tell of the whole region."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing

from msgspec.structs import replace

from isochrone.cloud.catalogue import Catalogue
from isochrone.cloud.gate import RegionGate
from isochrone.cloud.replicas import Replicas
from isochrone.cloud.report import Cost, split, up_s
from isochrone.edge_agent.runtime.calls.call import in_time
from isochrone.edge_agent.runtime.face.infer import Target
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.router.errors import IsochroneError, Misdirected, Overloaded, Unavailable
from isochrone.router.process.clock import Clock
from isochrone.router.wire import headers
from isochrone.router.wire.http import Response
from isochrone.router.wire.problem import problem_response
from isochrone.router.wire.report import LOAD_HEADER, ModelState, encode_call_report

ROUSED_S = 10.0
"""A model that was woken is not woken again within this time."""
_AHEAD_SHARE = 0.05
_AHEAD_MOST_S = 0.05
"""Serve's proxy holds the same deadline and answers in plain text: ours comes a little sooner."""


class Forwarding:
    """Answers `infer`, `generate` and `generate_stream` with what the model's replicas say."""

    def __init__(
        self,
        catalogue: Catalogue,
        replicas: Mapping[str, Replicas],
        gate: RegionGate,
        load: Load,
        clock: Clock,
    ) -> None:
        self._catalogue = catalogue
        self._replicas = replicas
        self._gate = gate
        self._load = load
        self._clock = clock
        self._roused_s: dict[str, float] = {}

    def rouse(self, model: str) -> None:
        """Have a cold model start, also when the caller leaves; nothing where it starts."""
        now_s = self._clock()
        if self._catalogue.state(model) is not ModelState.COLD:
            return
        self._catalogue.asked(model, now_s)
        if now_s - self._roused_s.get(model, float("-inf")) >= ROUSED_S:
            self._roused_s[model] = now_s
            self._replicas[model].rouse()

    async def infer(self, target: Target) -> Response:
        """Tensors in, tensors out."""
        return await self._told(target, self._whole)

    async def generate(self, target: Target) -> Response:
        """A text in, a text out."""
        return await self._told(target, self._whole)

    async def generate_stream(self, target: Target) -> Response:
        """A text in, its pieces out as they come; the body must be iterated or closed."""
        return await self._told(target, self._streamed)

    async def _told(self, target: Target, ask: Callable[[Target], Awaitable[Response]]) -> Response:
        """The answer or a refusal, with the region's report, which counts this call from now on."""
        try:
            state = self._expect(target)
            response = await ask(target)
        except IsochroneError as error:
            if isinstance(error, Overloaded):
                due_s = self._gate.due_s(target.model)
                error.retry_after_s = max(error.retry_after_s or 0.0, due_s)
            refusal = problem_response(error)
            refusal.headers.append((LOAD_HEADER, self._report(target, Cost(0.0, 0.0))))
            return refusal
        fields, report = split(response.headers)
        received_s = target.request.received_s
        ready_for_s = up_s(response.headers, math.inf if state is ModelState.WARM else 0.0)
        cost = Cost.of(report, self._clock() - received_s, ready_for_s)
        if cost.infer_s > 0:  # a refusal says nothing of the model
            self._load.served(target.model, cost.infer_s)
        if state is not ModelState.WARM:
            self._catalogue.woke(target.model, received_s + cost.load_s if cost.load_s else None)
        fields += [
            (headers.SERVER_TIMING, cost.server_timing),
            (LOAD_HEADER, self._report(target, cost)),
        ]
        return Response(response.status, fields, response.body)

    def _expect(self, target: Target) -> ModelState:
        """A request has come: where its model stands, which is woken if it is cold.

        Raises:
            Misdirected: it is meant for another region; nothing is woken for it.
            NotFound: its model is not here.
        """
        request = target.request
        if request.header(headers.REGION) not in (None, self._load.region):
            raise Misdirected("this request is for another region than this endpoint is in")
        state = self._catalogue.state(target.model, target.version)
        self._load.note(request.header(headers.SEQUENCE))
        self.rouse(target.model)
        return state

    async def _whole(self, target: Target) -> Response:
        with self._gate.inside(target.model):
            async with self._in_time(target):
                return await self._replicas[target.model].answer(target.request)

    async def _streamed(self, target: Target) -> Response:
        parts = self._parts(target)
        try:
            async with self._in_time(target):
                head = await anext(parts, None)
        except BaseException:  # cancelled, too: its place must come back
            await parts.aclose()
            raise
        if not isinstance(head, Response):
            raise Unavailable("the replica said nothing", retry_after_s=1.0)
        return Response(head.status, head.headers, _Chunks(parts))

    async def _parts(self, target: Target) -> AsyncGenerator[Response | bytes]:
        """Holds its place until it ends; after the head, the replica watches the deadline."""
        with self._gate.inside(target.model):
            async with aclosing(self._replicas[target.model].parts(target.request)) as parts:
                async for part in parts:
                    yield part

    def _in_time(self, target: Target) -> AbstractAsyncContextManager[None]:
        timeout_s = headers.read_call_headers(target.request.headers).timeout_s
        ahead_s = min(_AHEAD_MOST_S, timeout_s * _AHEAD_SHARE)
        return in_time(target.request.received_s + timeout_s - ahead_s - self._clock())

    def _report(self, target: Target, cost: Cost) -> bytes:
        seq_seen = self._load.highest(target.request.header(headers.SEQUENCE))
        report = self._load.call_report(target.model, cost.wait_s, cost.infer_s, seq_seen)
        return encode_call_report(replace(report, load_s=cost.load_s))


class _Chunks(AsyncIterator[bytes]):
    """The body of a streamed answer; closing it ends the call, whether or not it was begun."""

    def __init__(self, parts: AsyncGenerator[Response | bytes]) -> None:
        self._parts = parts

    async def __anext__(self) -> bytes:
        part = await anext(self._parts)
        assert isinstance(part, bytes)  # the head came first, and once
        return part

    async def aclose(self) -> None:
        await self._parts.aclose()
