"""The demo's clients: real images as requests, sent in a closed loop or on a schedule."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Self

import aiohttp
import msgspec
import numpy as np

from isochrone.router.errors import BadRequest
from isochrone.router.process.clock import Clock, monotonic
from isochrone.router.wire.codec import decode_response, encode_request
from isochrone.router.wire.http import Headers
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.problem import Problem
from isochrone.router.wire.tensor import Array, Tensor, datatype_of

NO_ANSWER = 0
"""The status of a request that nothing answered."""


@dataclass(frozen=True, slots=True)
class Call:
    """One image for one model, with a request id of our own. `key` names the tenant."""

    request_id: str
    model: str
    image: int
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and after how many seconds from when it was meant to be sent."""

    call: Call
    status: int
    seconds: float
    label: int | None = None
    reason: str = ""
    error: str = ""
    reasons: Mapping[str, str] | None = None

    @property
    def ok(self) -> bool:
        """The model answered."""
        return self.status == 200 and self.label is not None


Send = Callable[[Call, float], Awaitable[Answer]]
"""Sends a call that was meant to leave at an instant of the clock."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image as a request, with a binary tensor and a binary answer."""

    headers: Mapping[str, str]
    body: bytes


def encoded(images: Iterable[Array], name: str) -> list[Encoded]:
    """Each image, alone, as a request whose input is called `name`."""
    return [_encode(image[np.newaxis], name) for image in images]


def _encode(image: Array, name: str) -> Encoded:
    tensor = Tensor(name, datatype_of(image), image)
    headers, body = encode_request(InferRequest((tensor,), parameters={"binary_data_output": True}))
    return Encoded({key.decode(): value.decode() for key, value in headers}, body)


class Client:
    """Sends to one router, over at least `connections` connections."""

    def __init__(
        self,
        url: str,
        requests: Mapping[str, Sequence[Encoded]],
        *,
        connections: int = 8,
        timeout_s: float = 30.0,
        clock: Clock = monotonic,
    ) -> None:
        self._url = url
        self._requests = requests
        self._count = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._clock = clock
        self._sessions: list[aiohttp.ClientSession] = []
        self._turn: Iterator[aiohttp.ClientSession] = iter(())

    async def __aenter__(self) -> Self:
        self._sessions = [self._session() for _ in range(self._count)]
        self._turn = itertools.cycle(self._sessions)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(session.close() for session in self._sessions))

    async def send(self, call: Call, since_s: float) -> Answer:
        """One request. A failure is an answer too: what a client sees is what counts here."""
        request = self._requests[call.model][call.image]
        headers = {**request.headers, "x-request-id": call.request_id}
        if call.key is not None:
            headers["authorization"] = f"Bearer {call.key}"
        url = f"{self._url}/v2/models/{call.model}/infer"
        session = next(self._turn)
        try:
            async with session.post(url, data=request.body, headers=headers) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            return Answer(call, NO_ANSWER, self._clock() - since_s, error=text)
        return read_answer(
            call, self._clock() - since_s, response.status, _lowered(response.headers), body
        )

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
        )


def _lowered(headers: Mapping[str, str]) -> Headers:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def read_answer(call: Call, seconds: float, status: int, headers: Headers, body: bytes) -> Answer:
    """An HTTP answer as the demo counts it."""
    fields = dict(headers)
    reason = fields.get(b"x-isochrone-reason", b"").decode()
    if status != 200:
        problem = _problem(body)
        return Answer(call, status, seconds, None, reason, problem.error, problem.reasons)
    try:
        output = decode_response(headers, body).outputs[0]
    except (BadRequest, IndexError) as error:
        return Answer(call, status, seconds, None, reason, f"unreadable answer: {error}")
    return Answer(call, status, seconds, int(np.argmax(output.data)), reason)


def _problem(body: bytes) -> Problem:
    try:
        return msgspec.json.decode(body, type=Problem, strict=False)
    except msgspec.MsgspecError:
        return Problem(repr(body[:200]), "unreadable")


async def closed_loop(
    send: Send, calls: Iterable[Call], *, workers: int, clock: Clock = monotonic
) -> list[Answer]:
    """Each of `workers` sends its next call when its last is answered."""
    waiting = iter(calls)
    answers: list[Answer] = []

    async def work() -> None:
        answers.extend([await send(call, clock()) for call in waiting])

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return answers


async def open_loop(
    send: Send, calls: Sequence[Call], offsets_s: Sequence[float], *, clock: Clock = monotonic
) -> list[Answer]:
    """Each call leaves at its offset from now, however slow the others are.

    Latency counts from the intended instant, so that a late client does not flatter the system.
    """
    start_s = clock()
    sent: list[asyncio.Task[Answer]] = []

    async def send_one(call: Call, at_s: float) -> Answer:
        return await send(call, at_s)

    async with asyncio.TaskGroup() as group:
        for call, offset_s in zip(calls, offsets_s, strict=True):
            at_s = start_s + offset_s
            if at_s > clock():
                await asyncio.sleep(at_s - clock())
            sent.append(group.create_task(send_one(call, at_s)))
    return [task.result() for task in sent]


def evenly(count: int, per_s: float) -> list[float]:
    """Arrivals at equal distances, as offsets in seconds."""
    return [number / per_s for number in range(count)]


def by_chance(count: int, per_s: float, rng: Random) -> list[float]:
    """Arrivals of many clients who know nothing of each other (Poisson), as offsets in seconds."""
    return list(itertools.accumulate(rng.expovariate(per_s) for _ in range(count)))


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, int(np.ceil(share * len(ordered))) - 1))]
