"""Calls of a model, forwarded as they came to its replicas; answers tell of the whole region."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing

from cloud.catalogue import Catalogue
from cloud.gate import RegionGate
from cloud.replicas import Replicas
from cloud.report import Cost, split
from edge_agent.runtime.calls import in_time
from edge_agent.runtime.infer import Target
from edge_agent.runtime.load import Load
from router.errors import IsochroneError, Unavailable
from router.process.clock import Clock
from router.wire import headers
from router.wire.http import Response
from router.wire.problem import problem_response
from router.wire.report import LOAD_HEADER, ModelState, encode_call_report

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
            state = self._catalogue.state(target.model, target.version)
            self._load.note(target.request.header(headers.SEQUENCE))
            response = await ask(target)
        except IsochroneError as error:
            refusal = problem_response(error)
            refusal.headers.append((LOAD_HEADER, self._report(target, Cost(0.0, 0.0))))
            return refusal
        fields, report = split(response.headers)
        cost = Cost.of(report, self._clock() - target.request.received_s)
        if cost.infer_s > 0:  # a refusal says nothing of the model
            self._load.served(target.model, cost.infer_s)
        if state is not ModelState.WARM:
            self._catalogue.woke(target.model, cost.wait_s)
        fields += [
            (headers.SERVER_TIMING, cost.server_timing),
            (LOAD_HEADER, self._report(target, cost)),
        ]
        return Response(response.status, fields, response.body)

    async def _whole(self, target: Target) -> Response:
        lease = self._gate.enter()
        try:
            async with self._in_time(target):
                return await self._replicas[target.model].answer(target.request)
        finally:
            lease.release()

    async def _streamed(self, target: Target) -> Response:
        parts = self._parts(target)
        try:
            async with self._in_time(target):
                head = await anext(parts, None)
        except BaseException:  # cancelled, too: its lease must come back
            await parts.aclose()
            raise
        if not isinstance(head, Response):
            raise Unavailable("the replica said nothing", retry_after_s=1.0)
        return Response(head.status, head.headers, _Chunks(parts))

    async def _parts(self, target: Target) -> AsyncGenerator[Response | bytes]:
        """Holds its lease until it ends; after the head, the replica watches the deadline."""
        lease = self._gate.enter()
        try:
            async with aclosing(self._replicas[target.model].parts(target.request)) as parts:
                async for part in parts:
                    yield part
        finally:
            lease.release()

    def _in_time(self, target: Target) -> AbstractAsyncContextManager[None]:
        timeout_s = headers.read_call_headers(target.request.headers).timeout_s
        ahead_s = min(_AHEAD_MOST_S, timeout_s * _AHEAD_SHARE)
        return in_time(target.request.received_s + timeout_s - ahead_s - self._clock())

    def _report(self, target: Target, cost: Cost) -> bytes:
        seq_seen = self._load.highest(target.request.header(headers.SEQUENCE))
        report = self._load.call_report(target.model, cost.wait_s, cost.infer_s, seq_seen)
        return encode_call_report(report)


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
