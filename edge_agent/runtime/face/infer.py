"""Inference over HTTP: a body becomes a call, the call's parts become a body or a stream.

Every answer, a refusal too, tells of the endpoint's load; `Server-Timing` tells what it cost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from isochrone.edge_agent.runtime.calls.call import Answer, Ask, Call, Calls, in_time
from isochrone.edge_agent.runtime.calls.direct import Outputs, Turn
from isochrone.edge_agent.runtime.calls.holder import Shelf
from isochrone.edge_agent.runtime.face import classify, generate
from isochrone.edge_agent.runtime.face.large import LargeWork
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.package import fit
from isochrone.router.errors import (
    BadRequest,
    IsochroneError,
    Misdirected,
    TooLarge,
    Uncomputable,
    let_go,
)
from isochrone.router.http.limits import Hold, Room
from isochrone.router.process import log
from isochrone.router.wire import codec, content, headers
from isochrone.router.wire.binary_codec import binary_bytes
from isochrone.router.wire.bounds import Bound, decoded_bound, unpacked_bound
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.json_data import json_bytes
from isochrone.router.wire.message import InferRequest, InferResponse, ModelMetadata
from isochrone.router.wire.problem import problem_response
from isochrone.router.wire.report import LOAD_HEADER, encode_call_report
from isochrone.router.wire.tensor import BYTES_ELEMENT_BYTES, Array, Tensor

T = TypeVar("T")

_INLINE_BYTES = 256 << 10
"""Reading or writing this much holds others up for a millisecond or two; more goes to a thread."""
_DECODE_S = 1.0
"""When to ask again while nobody knows what a call takes."""
_CLASSIFIED_BYTES = 64
"""What an element takes while it is sorted, and its class as text."""
_LOWEST_PRIORITY = 9
_MOST_MICROSECONDS = int(headers.MAX_TIMEOUT_S * 1e6)
_Fields = list[tuple[bytes, bytes]]
Decode = Callable[[bytes, Bound], InferRequest]
"""Reads a body; its tensors may take so much."""
_writing: set[asyncio.Task[None]] = set()
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
        size_bytes = written_bytes(self._ask.request, answer.part)
        if size_bytes <= _INLINE_BYTES:
            self._reply(answer, partial(self._encoded, answer))
        else:
            writing = asyncio.get_running_loop().create_task(self._write(answer, size_bytes))
            _writing.add(writing)  # the loop itself keeps no task alive
            writing.add_done_callback(_writing.discard)

    async def _write(self, answer: Answer, size_bytes: int) -> None:
        """Write a long answer, once there is room for it."""
        inference = self._inference
        try:
            inference.check_answer(size_bytes)
            with Hold(inference.room) as held:
                held.resize(size_bytes)  # its outputs are in memory already
                async with in_time(self._ask.deadline_s - inference.calls.clock()), inference.large:
                    encoded = await inference.large.run(partial(self._encoded, answer))
                held.resize(len(encoded[1]))
        except Exception as error:  # it belongs to who asked
            self._refuse(error)
            return
        self._reply(answer, lambda: encoded)

    def _encoded(self, answer: Answer) -> tuple[_Fields, bytes]:
        return _encoded(self._ask.request, answer.part, self._inference.shelf)

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

    Deadlines count from `request.received_s`; a body may unpack to `body_limit_bytes`, and what
    large ones become is held of `room`.
    """

    def __init__(self, calls: Calls, load: Load, *, body_limit_bytes: int, room: Room) -> None:
        self.calls = calls
        self.shelf: Shelf = calls.holder
        self._load = load
        self.room = room
        self.large = LargeWork()
        self._body_limit_bytes = body_limit_bytes
        self._reasons = log.LineLimit()
        self._generation = -1
        self._known: dict[tuple[str, str | None], ModelMetadata] = {}

    @reporting
    async def infer(self, target: Target, metadata: ModelMetadata) -> Response:
        """Tensors in, tensors out."""
        asked = target.request
        with Hold(self.room) as held:
            request = await self._read(asked, partial(_request, asked, metadata), held)
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
            request = _request(asked, metadata, asked.body, self._bound(asked))
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
        elif isinstance(told, Uncomputable):
            self._log_reason(target.model, told.message)
        let_go(error)
        response = problem_response(told)
        response.headers.append((LOAD_HEADER, self.report(target, 0.0, 0.0)))
        return response

    def _log_reason(self, model: str, reason: str) -> None:
        if self._reasons.admits((model, reason), self.calls.clock()):
            log.event(_log, "not_computed", level=logging.WARNING, model=model, reason=reason)

    @reporting
    async def generate(self, target: Target, metadata: ModelMetadata) -> Response:
        """A text in, a text out."""
        with Hold(self.room) as held:
            request = await self._read(target.request, partial(_text_request, metadata), held)
            async with aclosing(await self.calls.open(self._ask(target, request))) as call:
                plain = await generate.whole(call, request)
        return await _answer(target.request, self.measured(target, call, [codec.JSON]), plain)

    @reporting
    async def generate_stream(self, target: Target, metadata: ModelMetadata) -> Response:
        """A text in, its pieces out as they come; the body must be iterated or closed."""
        with Hold(self.room) as held:
            request = await self._read(target.request, partial(_text_request, metadata), held)
            call = await self.calls.open(self._ask(target, request))
        fields = self.measured(target, call, [generate.EVENT_STREAM])
        events = generate.Events(call, request)
        return Response(200, fields, events, lambda: events.code)

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

    def check_answer(self, size_bytes: int) -> None:
        """Pass an answer that takes no more than it may.

        Raises:
            TooLarge: it takes more.
        """
        most_bytes = self.room.answer_bytes
        if size_bytes > most_bytes:
            raise TooLarge(
                f"the answer takes up to {size_bytes} bytes; {most_bytes} are possible, a quarter"
                " of limits.in_flight_bytes: ask for fewer rows or outputs, or for binary ones"
            )

    def _bound(self, request: Request) -> Bound:
        return decoded_bound(len(request.body), self._body_limit_bytes)

    async def _read(self, request: Request, decode: Decode, held: Hold) -> InferRequest:
        """What `decode` makes of a body; a large one waits for its turn, beside the queue.

        Raises:
            Overloaded: there is no place for it, and so would be none for the call; or no room.
            DeadlineExceeded: before its turn.
        """
        bound = self._bound(request)
        if _is_plain(request):
            return decode(request.body, bound)
        encoding = _packing(request)
        most = unpacked_bound(len(request.body), self._body_limit_bytes)
        if encoding and most.size_bytes <= _INLINE_BYTES:
            return decode(self._unpacked(request.body, encoding), bound)
        timeout_s = request.of_head(headers.read_call_headers).timeout_s
        deadline_s = (request.received_s or self.calls.clock()) + timeout_s
        place = self.calls.gate.stand_aside(self._load.service_s or _DECODE_S)
        try:
            async with in_time(deadline_s - self.calls.clock()), self.large:
                return await self._large(request, decode, bound, held)
        finally:
            place.release()

    async def _large(
        self, request: Request, decode: Decode, bound: Bound, held: Hold
    ) -> InferRequest:
        body, encoding, plain_bytes = request.body, _packing(request), 0
        if encoding:
            held.resize(unpacked_bound(len(body), self._body_limit_bytes).size_bytes)
            body = await self.large.run(partial(self._unpacked, body, encoding))
            plain_bytes = len(body)
        if plain_bytes or codec.head_length(request.headers) is None:
            held.resize(plain_bytes + len(body) + bound.size_bytes)
        read = await self.large.run(partial(decode, body, bound))
        held.resize(_kept_bytes(read, plain_bytes))
        return read

    def _unpacked(self, body: bytes, encoding: bytes) -> bytes:
        return content.unpack(body, encoding, self._body_limit_bytes)

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
    return len(request.body) <= _INLINE_BYTES and not _packing(request)


def _packing(request: Request) -> bytes | None:
    """The encoding that a body is packed in; None where it is not."""
    encoding = request.header(b"content-encoding")
    return encoding if content.packed(encoding) else None


def _tenant(request: Request) -> str:
    return (request.header(headers.TENANT) or b"").decode("ascii", "replace")


def _may_name_priority(request: Request) -> bool:
    """So it may if it is packed, or spells the word, or escapes letters."""
    if request.header(b"content-encoding") is not None:
        return True
    json = request.body[: request.of_head(codec.head_length)]
    return b"priority" in json or b"\\u" in json


def _request(request: Request, metadata: ModelMetadata, body: bytes, bound: Bound) -> InferRequest:
    asked = codec.decode_request(request.headers, body, metadata.inputs, bound)
    fit.wanted(asked, metadata.outputs)
    for output in asked.outputs:
        classify.wanted(output.parameters)
    return asked


def _text_request(metadata: ModelMetadata, body: bytes, _bound: Bound) -> InferRequest:
    return generate.decode(body, metadata)


def _kept_bytes(read: InferRequest, plain_bytes: int) -> int:
    """What a request's tensors keep in memory beside its body.

    `plain_bytes` are what that was unpacked to, in which tensors may lie.
    """
    kept_bytes = 0
    for tensor in read.inputs:
        if tensor.datatype == "BYTES":
            texts: list[bytes] = tensor.data.ravel().tolist()
            kept_bytes += len(texts) * BYTES_ELEMENT_BYTES + sum(map(len, texts))
        elif _is_own(tensor.data):
            kept_bytes += tensor.data.nbytes
        else:
            kept_bytes += plain_bytes
            plain_bytes = 0  # all others lie in it, too
    return kept_bytes


def _is_own(array: Array) -> bool:
    """Its data are in memory for it alone, and not a part of a body."""
    base = array.base
    while isinstance(base, np.ndarray):
        array, base = base, base.base
    return base is None


def written_bytes(request: InferRequest, part: InferResponse) -> int:
    """What the encoded answer takes at most, beside names."""
    binary = codec.binary_outputs(request, part)
    classified = {one.name for one in request.outputs if classify.wanted(one.parameters)}
    size_bytes = 0
    for tensor in part.outputs:
        if tensor.name in classified:
            size_bytes += tensor.data.size * _CLASSIFIED_BYTES
        elif tensor.name in binary:
            size_bytes += binary_bytes(tensor)
        else:
            size_bytes += json_bytes(tensor)
    return size_bytes


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
