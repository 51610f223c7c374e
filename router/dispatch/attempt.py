"""Carrying a plan out, as a sans-IO machine: events in, commands out.

Tries are made one after another in the order of the plan, each with its permit, and never twice on
the same endpoint. Nothing reaches the client until an answer is accepted: a short one is held until
it is whole, so that an endpoint that dies in the middle costs nothing; a long one or a stream is
passed on chunk by chunk, and after its head nothing is tried again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from router.dispatch.event import Cause, Chunk, ClientGone, End, Event, Head, Lost, Timer
from router.errors import (
    DeadlineExceeded,
    IsochroneError,
    NoEndpoint,
    Overloaded,
    UnusableAnswer,
)
from router.fleet.ledger import Outcome
from router.policy.law import Permit
from router.wire.http import Headers, first

HOLD_BYTES = 1 << 20
"""Answers up to this length are held until they are whole."""

_BUSY = frozenset({429, 503})
_UNABLE = frozenset({404, 421, 507})
"""It does not serve this model after all; another may."""
_FAILED = frozenset({500, 502})
"""It tried and failed; another may do better."""
_LATE = frozenset({408, 504})
"""The deadline that went with the request has passed: there is no time for another."""


@dataclass(frozen=True, slots=True)
class Send:
    """Make this try: the `number`th, counted from 0."""

    permit: Permit
    number: int


@dataclass(frozen=True, slots=True)
class Settle:
    """This try has ended, in this way: every `Send` is followed by exactly one."""

    number: int
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop this try at the endpoint; nothing of it is wanted any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """A whole answer for the client."""

    number: int
    head: Head
    body: bytes


@dataclass(frozen=True, slots=True)
class Begin:
    """The head of an answer that is passed on as it comes."""

    number: int
    head: Head


@dataclass(frozen=True, slots=True)
class Forward:
    """A part of it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of it."""


@dataclass(frozen=True, slots=True)
class Abort:
    """It cannot be ended, and the client must be able to tell."""

    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """There will be no answer, for this reason."""

    error: IsochroneError


Command = Send | Settle | Cancel | Deliver | Begin | Forward | Finish | Abort | GiveUp


class _State(Enum):
    AWAITING = auto()
    HOLDING = auto()
    STREAMING = auto()
    DONE = auto()


class Attempt:
    """One request's way through its plan. Events of a try that has been settled are ignored."""

    __slots__ = (
        "_body",
        "_ended",
        "_head",
        "_held_bytes",
        "_number",
        "_permits",
        "_retry_s",
        "_state",
    )

    def __init__(self, permits: Sequence[Permit], *, most: int = 3) -> None:
        self._permits = permits[:most]
        self._state = _State.AWAITING
        self._number = -1
        self._head: Head | None = None
        self._body: list[bytes] = []
        self._held_bytes = 0
        self._ended: list[Settle] = []
        self._retry_s: float | None = None

    @property
    def done(self) -> bool:
        """The request has ended, one way or the other."""
        return self._state is _State.DONE

    def start(self) -> list[Command]:
        """The first try."""
        return self._next()

    def on(self, event: Event, number: int = -1) -> list[Command]:
        """What to do about an event; `number` names the try that it belongs to."""
        if self._state is _State.DONE:
            return []
        match event:
            case Timer():
                return self._stop(DeadlineExceeded("the deadline passed before an answer came"))
            case ClientGone():
                return self._stop(None)
            case _ if number != self._number:
                return []
            case Head():
                return self._on_head(event)
            case Chunk(data):
                return self._on_chunk(data)
            case End():
                return self._on_end()
            case Lost():
                return self._on_lost(event)

    def _on_head(self, head: Head) -> list[Command]:
        if head.status in _BUSY:
            self._note_retry(head.headers)
            return self._settle(Outcome.BUSY, f"answered {head.status}") + self._next()
        if head.status in _UNABLE:
            return self._settle(Outcome.UNABLE, f"answered {head.status}") + self._next()
        if head.status in _FAILED or head.status in range(300, 400):  # we follow nobody elsewhere
            return self._settle(Outcome.FAILED, f"answered {head.status}") + self._next()
        if head.status in _LATE:
            return self._stop(DeadlineExceeded("the deadline passed at the endpoint"))
        self._head = head
        if head.status >= 400 or _may_be_held(head.headers):
            self._state = _State.HOLDING
            return []
        self._state = _State.STREAMING
        return [Begin(self._number, head)]

    def _on_chunk(self, data: bytes) -> list[Command]:
        if self._state is _State.STREAMING:
            return [Forward(data)]
        self._body.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HOLD_BYTES:  # a refusal without a length that does not end
            return [
                Cancel(self._number),
                *self._settle(Outcome.FAILED, "endless refusal"),
                *self._next(),
            ]
        return []

    def _on_end(self) -> list[Command]:
        held, head = self._state is _State.HOLDING, self._head
        self._state = _State.DONE
        settled = self._settle(Outcome.ANSWERED)
        if held and head is not None:
            return [*settled, Deliver(self._number, head, b"".join(self._body))]
        return [*settled, Finish()]

    def _on_lost(self, lost: Lost) -> list[Command]:
        why = f"{lost.cause.value} ({lost.detail})" if lost.detail else lost.cause.value
        refused = lost.cause is Cause.REFUSED
        settled = self._settle(Outcome.REFUSED if refused else Outcome.FAILED, why)
        if self._state is _State.STREAMING:
            self._state = _State.DONE
            return [*settled, Abort(why)]
        return settled + self._next()

    def _next(self) -> list[Command]:
        self._state = _State.AWAITING
        self._body.clear()
        self._held_bytes = 0
        if self._number + 1 < len(self._permits):
            self._number += 1
            return [Send(self._permits[self._number], self._number)]
        self._state = _State.DONE
        return [GiveUp(self._verdict())]

    def _stop(self, error: IsochroneError | None) -> list[Command]:
        """The deadline (an error to tell) or the client itself ends the request."""
        streaming = self._state is _State.STREAMING
        self._state = _State.DONE
        outcome = Outcome.CANCELLED if error is None else Outcome.LATE
        stopped = [Cancel(self._number), *self._settle(outcome)]
        if error is None:
            return stopped
        return [*stopped, Abort(error.message) if streaming else GiveUp(error)]

    def _settle(self, outcome: Outcome, why: str = "") -> list[Command]:
        settle = Settle(self._number, outcome, why)
        self._ended.append(settle)
        return [settle]

    def _verdict(self) -> IsochroneError:
        reasons = {self._permits[s.number].endpoint.name: s.why for s in self._ended}
        outcomes = {s.outcome for s in self._ended}
        if Outcome.BUSY in outcomes:
            return Overloaded(
                "every endpoint that may serve this is full",
                retry_after_s=self._retry_s or 1.0,
                reasons=reasons,
            )
        if outcomes & {Outcome.FAILED, Outcome.UNABLE}:
            return UnusableAnswer("no endpoint gave a usable answer", reasons=reasons)
        return NoEndpoint("no endpoint can be reached", retry_after_s=1.0, reasons=reasons)

    def _note_retry(self, headers: Headers) -> None:
        value = first(headers, b"retry-after")
        if value is not None and value.isdigit():
            self._retry_s = min(float(value), self._retry_s or float(value))


def _may_be_held(headers: Headers) -> bool:
    length = first(headers, b"content-length")
    return length is not None and int(length) <= HOLD_BYTES
