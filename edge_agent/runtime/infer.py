"""Inference over HTTP: a body becomes a call, the call's parts become a body or a stream.

Every answer, a refusal too, tells of the endpoint's load; `Server-Timing` tells what it cost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeVar

from edge_agent.runtime import classify, fit, generate
from edge_agent.runtime.calls import Answer, Ask, Call, Calls
from edge_agent.runtime.direct import Outputs, Turn
from edge_agent.runtime.holder import Shelf
from edge_agent.runtime.load import Load
from router.errors import BadRequest, IsochroneError, Misdirected, let_go
from router.wire import codec, content, headers
from router.wire.http import Request, Response
from router.wire.message import InferRequest, InferResponse, ModelMetadata
from router.wire.problem import problem_response
from router.wire.report import LOAD_HEADER, encode_call_report
from router.wire.tensor import Tensor

T = TypeVar("T")

_INLINE_BYTES = 256 << 10
"""Reading or writing this much holds others up for a millisecond or two; more goes to a thread."""
_DECODE_S = 1.0
"""When to ask again while nobody knows what a call takes."""
_ELEMENT_BYTES = 16
"""What an element takes as JSON, about."""
_LOWEST_PRIORITY = 9
_MOST_MICROSECONDS = int(headers.MAX_TIMEOUT_S * 1e6)
_Fields = list[tuple[bytes, bytes]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a path names, and the request that came for it."""

    model: str
    version: str | None
    request: Request


def reporting(
    answer: Callable[["Inference", Target, ModelMetadata], Awaitable[Response]],
) -> Callable[["Inference", Target], Awaitable[Response]]:
    """Let `answer`'s refusals tell of our load too, and every report of what has come by then."""

    async def answer_or_refusal(self: "Inference", target: Target) -> Response:
        try:
            metadata = self.expect(target)
            self._turn_away(target)
            return await answer(self, target, metadata)
        except Exception as error:  # it belongs to who asked
            return self.refused(target, error)

    return answer_or_refusal


class _Reply:
    """What becomes of a call that has its turn."""

    __slots__ = ("_ask", "_inference", "_target", "_tell")

    def __init__(
        self, inference: "Inference", target: Target, ask: Ask, tell: Callable[[Response], None]
    ) -> None:
        self._inference = inference
        self._target = target
        self._ask = ask
        self._tell = tell

    def told(self, turn: Turn, outcome: Outputs | Exception) -> None:
        """The turn is over."""
        if isinstance(outcome, Exception):
            self._refuse(outcome)
            return
        try:
            self.give(self._inference.calls.whole(self._ask, turn, outcome))
        except Exception as error:  # whatever it is, who asked hears of it
            self._refuse(error)

    def give(self, answer: Answer) -> None:
        """This is it; what is long is written and packed in a thread."""
        encoded = partial(_encoded, self._ask.request, answer.part, self._inference.shelf)
        if _written_bytes(answer.part) <= _INLINE_BYTES:
            self._reply(answer, encoded)
        else:
            self._in_thread(encoded, lambda done: self._reply(answer, done.result))

    def _reply(self, answer: Answer, encoded: Callable[[], tuple[_Fields, bytes]]) -> None:
        try:
            fields, plain = encoded()
        except Exception as error:  # it belongs to who asked
            self._refuse(error)
            return
        fields = self._inference.measured(self._target, answer, fields)
        encoding = _wished_encoding(self._target.request, plain)
        if encoding is None:
            self._tell(Response(200, fields, plain))
        else:
            self._in_thread(partial(_packed, fields, plain, encoding), self._is_packed)

    def _is_packed(self, done: asyncio.Future[Response]) -> None:
        try:
            response = done.result()
        except Exception as error:  # it belongs to who asked
            self._refuse(error)
            return
        self._tell(response)

    def _in_thread(self, work: Callable[[], T], then: Callable[[asyncio.Future[T]], None]) -> None:
        try:
            working = asyncio.get_running_loop().run_in_executor(None, work)
        except RuntimeError as error:  # the system gives us no thread more
            self._refuse(error)
            return
        working.add_done_callback(then)

    def _refuse(self, error: Exception) -> None:
        self._tell(self._inference.refused(self._target, error))


class Inference:
    """Answers `infer`, `generate` and `generate_stream`.

    Deadlines count from `request.received_s`; a body may unpack to `body_limit_bytes`.
    """

    def __init__(self, calls: Calls, load: Load, *, body_limit_bytes: int) -> None:
        self.calls = calls
        self.shelf: Shelf = calls.holder
        self._load = load
        self._body_limit_bytes = body_limit_bytes
        self._generation = -1
        self._known: dict[tuple[str, str | None], ModelMetadata] = {}

    @reporting
    async def infer(self, target: Target, metadata: ModelMetadata) -> Response:
        """Tensors in, tensors out."""
        asked = target.request
        request = await self._read(asked, partial(_request, asked, metadata))
        ask = self._ask(target, request)
        told: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        reply = _Reply(self, target, ask, partial(_unless_done, told))
        reply.give(await self.calls.answer(ask))
        return await told

    def begin(self, target: Target, tell: Callable[[Response], None]) -> Callable[[], None] | None:
        """As `infer`, for most calls: those that need to wait for nothing but their turn.

        `tell` gets the answer, be it a refusal. Returns what is to be called when nobody waits for
        it any more; None where this is no such call, and `infer` does it.
        """
        asked = target.request
        if not _is_plain(asked):
            return None
        try:
            metadata = self.expect(target)
            self._turn_away(target)
            request = _request(asked, metadata, asked.body)
            ask = self._ask(target, request)
            turn = self.calls.begin(ask, _Reply(self, target, ask, tell).told)
        except Exception as error:  # whatever it is, the client gets an answer
            tell(self.refused(target, error))
            return _nothing
        return None if turn is None else turn.withdraw

    def refused(self, target: Target, error: Exception) -> Response:
        """A refusal, with our load; of what is no refusal, only that the model failed."""
        told = error
        if not isinstance(told, IsochroneError):
            _log.error("a call of %s failed", target.model, exc_info=error)
            told = IsochroneError("the model failed")
        let_go(error)
        response = problem_response(told)
        response.headers.append((LOAD_HEADER, self.report(target, 0.0, 0.0)))
        return response

    @reporting
    async def generate(self, target: Target, metadata: ModelMetadata) -> Response:
        """A text in, a text out."""
        decode = partial(generate.decode, metadata=metadata)
        request = await self._read(target.request, decode)
        async with aclosing(await self.calls.open(self._ask(target, request))) as call:
            plain = await generate.whole(call, request)
        return await _answer(target.request, self.measured(target, call, [codec.JSON]), plain)

    @reporting
    async def generate_stream(self, target: Target, metadata: ModelMetadata) -> Response:
        """A text in, its pieces out as they come; the body must be iterated or closed."""
        decode = partial(generate.decode, metadata=metadata)
        request = await self._read(target.request, decode)
        call = await self.calls.open(self._ask(target, request))
        fields = self.measured(target, call, [generate.EVENT_STREAM])
        return Response(200, fields, generate.Events(call, request))

    def expect(self, target: Target) -> ModelMetadata:
        """A request has come: from here on reports say so to whoever sent it.

        Raises:
            NotFound: its model is not here.
            Misdirected: it is meant for another region.
        """
        region = target.request.header(headers.REGION)
        if region is not None and region != self._load.region:
            raise Misdirected("this request is for another region than this endpoint is in")
        metadata = self._metadata(target)
        self._load.note(target.request.header(headers.SEQUENCE))
        return metadata

    def _turn_away(self, target: Target) -> None:
        """Refuse on the head alone where it says enough: reading a body costs more than a refusal.

        A body may name a priority of its own, so one that may do so is read.

        Raises:
            BadRequest: a header field says what it may not.
            Overloaded: there is no place for it.
        """
        request = target.request
        if self.calls.gate.crowded and not _may_name_priority(request):
            priority = request.of_head(headers.read_call_headers).priority
            self.calls.turn_away(target.model, target.version, _tenant(request), priority)

    def _metadata(self, target: Target) -> ModelMetadata:
        """As the holder says; asked again whenever something has changed there."""
        generation = self.shelf.models_generation
        if generation != self._generation:
            self._generation = generation
            self._known.clear()
        key = target.model, target.version
        metadata = self._known.get(key)
        if metadata is None:
            metadata = self._known[key] = self.shelf.metadata(*key)
        return metadata

    def report(self, target: Target, wait_s: float, infer_s: float) -> bytes:
        """The header value that tells of our load."""
        seq_seen = self._load.highest(target.request.header(headers.SEQUENCE))
        return encode_call_report(self._load.call_report(target.model, wait_s, infer_s, seq_seen))

    def measured(self, target: Target, call: Call | Answer, fields: _Fields) -> _Fields:
        """With what it cost, and our load."""
        timing = b"wait;dur=%.3f, infer;dur=%.3f" % (call.wait_s * 1e3, call.infer_s * 1e3)
        report = self.report(target, call.wait_s, call.infer_s)
        fields += ((headers.SERVER_TIMING, timing), (LOAD_HEADER, report))
        return fields

    async def _read(self, request: Request, decode: Callable[[bytes], T]) -> T:
        """What `decode` makes of a body."""
        if _is_plain(request):
            return decode(request.body)
        encoding = request.header(b"content-encoding")
        if encoding is None or not content.packed(encoding):
            return await self._decoded(len(request.body), lambda: decode(request.body))
        limit_bytes = self._body_limit_bytes
        most_bytes = min(limit_bytes, len(request.body) * content.MOST_TIMES)
        return await self._decoded(
            most_bytes, lambda: decode(content.unpack(request.body, encoding, limit_bytes))
        )

    async def _decoded(self, size_bytes: int, decode: Callable[[], T]) -> T:
        """What a body says; a large one takes room beside the queue while it is read.

        Raises:
            Overloaded: there is no room for it, and so would be none for the call.
        """
        if size_bytes <= _INLINE_BYTES:
            return decode()
        place = self.calls.gate.stand_aside(self._load.service_s or _DECODE_S)
        try:
            return await asyncio.to_thread(decode)
        finally:
            place.release()

    def _ask(self, target: Target, request: InferRequest) -> Ask:
        fields = target.request.of_head(headers.read_call_headers)
        timeout_s = min(_whole(request, "timeout"), _MOST_MICROSECONDS) / 1e6 or fields.timeout_s
        priority = _whole(request, "priority") or fields.priority
        received_s = target.request.received_s or self.calls.clock()
        deadline_s = received_s + min(timeout_s, fields.timeout_s)
        priority = min(priority, _LOWEST_PRIORITY)
        tenant = _tenant(target.request)
        return Ask(target.model, target.version, request, deadline_s, priority, tenant)


def _unless_done(told: "asyncio.Future[Response]", response: Response) -> None:
    if not told.done():  # else who asked has gone
        told.set_result(response)


def _nothing() -> None:
    """Nothing is under way."""


def _is_plain(request: Request) -> bool:
    """Its body is not packed, and can be read at once."""
    return len(request.body) <= _INLINE_BYTES and not content.packed(
        request.header(b"content-encoding")
    )


def _tenant(request: Request) -> str:
    return (request.header(headers.TENANT) or b"").decode("ascii", "replace")


def _may_name_priority(request: Request) -> bool:
    """So it may if it is packed, or spells the word, or escapes letters."""
    if request.header(b"content-encoding") is not None:
        return True
    json = request.body[: request.of_head(codec.head_length)]
    return b"priority" in json or b"\\u" in json


def _request(request: Request, metadata: ModelMetadata, body: bytes) -> InferRequest:
    asked = codec.decode_request(request.headers, body, metadata.inputs)
    fit.wanted(asked, metadata.outputs)
    for output in asked.outputs:
        classify.wanted(output.parameters)
    return asked


def _written_bytes(part: InferResponse) -> int:
    """What the encoded answer takes, about."""
    size_bytes = sum([tensor.data.size for tensor in part.outputs]) * _ELEMENT_BYTES
    texts = [tensor.data for tensor in part.outputs if tensor.datatype == "BYTES"]
    if not texts or size_bytes > _INLINE_BYTES:  # then it is long to count the texts, too
        return size_bytes
    return size_bytes + sum(map(len, chain(*(text.ravel().tolist() for text in texts))))


def _encoded(request: InferRequest, part: InferResponse, shelf: Shelf) -> tuple[_Fields, bytes]:
    """The outputs that were asked for, in that order, and the request's own id."""
    outputs = part.outputs
    if request.outputs:
        held = {tensor.name: tensor for tensor in outputs}
        labels = shelf.labels(part.model_name, part.model_version)
        outputs = tuple(
            _classified(held[output.name], classify.wanted(output.parameters), labels)
            for output in request.outputs
        )
    name, version = part.model_name, part.model_version
    response = InferResponse(name, version, outputs, request.id, part.parameters)
    return codec.encode_response(request, response)


def _classified(tensor: Tensor, count: int, labels: tuple[str, ...]) -> Tensor:
    return classify.classified(tensor, count, labels) if count else tensor


def _whole(request: InferRequest, name: str) -> int:
    value = request.parameters.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"parameter {name} must be a whole number, 0 for none")
    return value


def _wished_encoding(request: Request, plain: bytes) -> bytes | None:
    return content.choose(request.header(b"accept-encoding"), len(plain))


async def _answer(request: Request, fields: _Fields, plain: bytes) -> Response:
    encoding = _wished_encoding(request, plain)
    if encoding is None:
        return Response(200, fields, plain)
    return await asyncio.to_thread(_packed, fields, plain, encoding)


def _packed(fields: _Fields, plain: bytes, encoding: bytes) -> Response:
    told = [*fields, (b"content-encoding", encoding), (b"vary", b"accept-encoding")]
    return Response(200, told, content.pack(plain, encoding))
