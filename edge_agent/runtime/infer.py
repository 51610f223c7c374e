"""Inference over HTTP: a body becomes a call, the call's parts become a body or a stream.

Every answer, a refusal too, tells of the endpoint's load; `Server-Timing` tells what it cost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from edge_agent.runtime import classify, generate
from edge_agent.runtime.calls import Ask, Call, Calls
from edge_agent.runtime.load import Load
from router.errors import BadRequest, IsochroneError
from router.wire import codec, content, headers
from router.wire.http import Request, Response
from router.wire.message import InferRequest, InferResponse, ModelMetadata
from router.wire.problem import problem_response
from router.wire.report import LOAD_HEADER, encode_call_report
from router.wire.tensor import Tensor

_INLINE_BYTES = 4096
"""Unpacking or packing this much costs less than handing it to a thread."""
_LOWEST_PRIORITY = 9
_Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a path names, and the request that came for it."""

    model: str
    version: str | None
    request: Request


def reporting(
    answer: Callable[["Inference", Target], Awaitable[Response]],
) -> Callable[["Inference", Target], Awaitable[Response]]:
    """Let `answer`'s refusals tell of our load too, and every report of what has come by then."""

    async def answer_or_refusal(self: "Inference", target: Target) -> Response:
        self.note(target)
        try:
            return await answer(self, target)
        except IsochroneError as error:
            response = problem_response(error)
            response.headers.append((LOAD_HEADER, self.report(target, 0.0, 0.0)))
            return response

    return answer_or_refusal


class Inference:
    """Answers `infer`, `generate` and `generate_stream`.

    Deadlines count from `request.received_s`; a body may unpack to `body_limit_bytes`.
    """

    def __init__(self, calls: Calls, load: Load, *, body_limit_bytes: int) -> None:
        self._calls = calls
        self._holder = calls.holder
        self._load = load
        self._body_limit_bytes = body_limit_bytes

    @reporting
    async def infer(self, target: Target) -> Response:
        """Tensors in, tensors out."""
        metadata = self._metadata(target)
        body = await self._body(target.request)
        request = codec.decode_request(target.request.headers, body, metadata.inputs)
        _check_outputs(request, metadata)
        async with aclosing(await self._calls.open(self._ask(target, request))) as call:
            part = _only_part(target, [part async for part in call])
        fields, plain = codec.encode_response(request, self._selected(target, request, part))
        return await _packed(target.request, self._measured(target, call, fields), plain)

    @reporting
    async def generate(self, target: Target) -> Response:
        """A text in, a text out."""
        request = generate.decode(await self._body(target.request), self._metadata(target))
        async with aclosing(await self._calls.open(self._ask(target, request))) as call:
            plain = await generate.whole(call, request)
        return await _packed(target.request, self._measured(target, call, [codec.JSON]), plain)

    @reporting
    async def generate_stream(self, target: Target) -> Response:
        """A text in, its pieces out as they come; the body must be iterated or closed."""
        request = generate.decode(await self._body(target.request), self._metadata(target))
        call = await self._calls.open(self._ask(target, request))
        fields = self._measured(target, call, [generate.EVENT_STREAM])
        return Response(200, fields, generate.Events(call, request))

    def note(self, target: Target) -> None:
        """A request has come: from here on reports say so to whoever sent it."""
        self._load.note(target.request.header(headers.SEQUENCE))

    def report(self, target: Target, wait_s: float, infer_s: float) -> bytes:
        """The header value that tells of our load."""
        seq_seen = self._load.note(target.request.header(headers.SEQUENCE))
        return encode_call_report(self._load.call_report(target.model, wait_s, infer_s, seq_seen))

    def _metadata(self, target: Target) -> ModelMetadata:
        return self._holder.metadata(target.model, target.version)

    def _measured(self, target: Target, call: Call, fields: _Fields) -> _Fields:
        timing = b"wait;dur=%.3f, infer;dur=%.3f" % (call.wait_s * 1e3, call.infer_s * 1e3)
        report = self.report(target, call.wait_s, call.infer_s)
        return [*fields, (headers.SERVER_TIMING, timing), (LOAD_HEADER, report)]

    async def _body(self, request: Request) -> bytes:
        encoding = request.header(b"content-encoding")
        if encoding is None or not content.packed(encoding):
            return request.body
        arguments = (request.body, encoding, self._body_limit_bytes)
        if len(request.body) <= _INLINE_BYTES:
            return content.unpack(*arguments)
        return await asyncio.to_thread(content.unpack, *arguments)

    def _ask(self, target: Target, request: InferRequest) -> Ask:
        fields = headers.read_call_headers(target.request.headers)
        timeout_s = _whole(request, "timeout") / 1e6 or fields.timeout_s
        priority = _whole(request, "priority") or fields.priority
        received_s = target.request.received_s or self._calls.clock()
        deadline_s = received_s + min(timeout_s, fields.timeout_s)
        priority = min(priority, _LOWEST_PRIORITY)
        return Ask(target.model, target.version, request, deadline_s, priority)

    def _selected(
        self, target: Target, request: InferRequest, response: InferResponse
    ) -> InferResponse:
        """The outputs that were asked for, in that order, and the request's own id."""
        outputs = response.outputs
        if request.outputs:
            held = {tensor.name: tensor for tensor in outputs}
            labels = self._holder.labels(target.model, target.version)
            outputs = tuple(
                _classified(held[output.name], classify.wanted(output.parameters), labels)
                for output in request.outputs
            )
        name, number = response.model_name, response.model_version
        return InferResponse(name, number, outputs, request.id, response.parameters)


def _check_outputs(request: InferRequest, metadata: ModelMetadata) -> None:
    known = [spec.name for spec in metadata.outputs]
    for output in request.outputs:
        classify.wanted(output.parameters)
        if output.name not in known:
            raise BadRequest(f"{metadata.name} has no output {output.name!r}; it has {known}")


def _only_part(target: Target, parts: list[InferResponse]) -> InferResponse:
    if len(parts) != 1:
        raise BadRequest(f"{target.model} answers in parts; call its generate_stream")
    return parts[0]


def _classified(tensor: Tensor, count: int, labels: tuple[str, ...]) -> Tensor:
    return classify.classified(tensor, count, labels) if count else tensor


def _whole(request: InferRequest, name: str) -> int:
    value = request.parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"parameter {name} must be a whole number, 0 for none")
    return value


async def _packed(request: Request, fields: list[tuple[bytes, bytes]], plain: bytes) -> Response:
    encoding = content.choose(request.header(b"accept-encoding"), len(plain))
    if encoding is None:
        return Response(200, fields, plain)
    packed = await asyncio.to_thread(content.pack, plain, encoding)
    return Response(
        200, [*fields, (b"content-encoding", encoding), (b"vary", b"accept-encoding")], packed
    )
