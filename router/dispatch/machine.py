"""Carries a request out as a sans-IO machine: events in, commands out; it calls nothing back.

The next endpoint is chosen when it is needed (`Choose`, answered by `Next`), with the fleet as it
is then, and no endpoint gets a request twice. A short answer is held until it is whole, so that an
endpoint that dies in the middle of it costs nothing; a long one or a stream is passed on chunk by
chunk, and once its head has left, nothing is attempted again. Attempts follow each other; one may
run beside the first where that is late (a hedge): the first usable answer wins, and the other
attempt is cancelled.
"""

import math
from collections.abc import Iterator, Sequence

from isochrone.router.dispatch.attempt import Attempt
from isochrone.router.dispatch.classify import (
    HOLD_BYTES,
    MAY_HAVE_RUN,
    OF_LOSS,
    TURNED_AWAY,
    explained,
    explains,
    may_be_held,
    of_answer,
    refusal_for_good,
)
from isochrone.router.dispatch.command import (
    Abort,
    Begin,
    Cancel,
    Choose,
    Command,
    Deliver,
    Finish,
    Forward,
    GiveUp,
    Send,
    Settle,
)
from isochrone.router.dispatch.event import ClientGone, DeadlinePassed, Event, HedgeDue, Next
from isochrone.router.errors import (
    DeadlineExceeded,
    IsochroneError,
    NoEndpoint,
    Overloaded,
    Poison,
    Quarantined,
    UnusableAnswer,
)
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.policy.pick import Scored
from isochrone.router.upstream.event import Answer, Chunk, End, Head, Lost

_UNPROCESSABLE = 422
POISON_COUNT = 2
"""A request that crashed so many endpoints is sent to no other."""
_HARMFUL = frozenset({Outcome.CRASHED, Outcome.QUARANTINED})
_REFUSED_FOR_GOOD = frozenset({Outcome.UNABLE, Outcome.QUARANTINED, Outcome.REFUSED})
_WORDS = 300
"""So many characters of an endpoint's own words stand among the reasons."""
_NOTHING: Sequence[Command] = ()


class Machine:
    """One run of a request: from its first attempt until it has an answer, or cannot have one.

    Of an attempt that has been settled, only the explanation of its refusal is read. A request that
    is not `repeatable` needs leave from the retry budget after a refusal as well, unless a load
    report came with that, which proves that nothing had run.
    """

    __slots__ = (
        "_choosing",
        "_closing",
        "_crashed",
        "_due_s",
        "_expired",
        "_hedged",
        "_most",
        "_owing",
        "_repeatable",
        "_settled",
        "_stranded",
        "_streaming",
        "attempts",
        "done",
    )

    def __init__(
        self,
        *,
        repeatable: bool = True,
        most: int = 3,
        crashed: int = 0,
        due_s: float = math.inf,
    ) -> None:
        """`crashed` endpoints were lost with this request before; at most `most` attempts are made.

        From `due_s` on the deadline is as good as over: a time-out at an endpoint is believed.
        """
        self._repeatable = repeatable
        self._most = most
        self._crashed = crashed
        self._due_s = due_s
        self.attempts: list[Attempt] = []
        self.done = False
        """The request has ended, one way or the other."""
        self._settled: list[Settle] = []
        self._choosing: Attempt | None = None
        """The attempt that failed, while the next endpoint is chosen."""
        self._streaming = False
        self._hedged = False
        self._owing = False
        self._expired = False
        self._closing: Attempt | None = None
        """The attempt whose explanation is awaited, where nothing else is left to do."""
        self._stranded = False

    def start(self, scored: Scored) -> Sequence[Command]:
        """The first attempt."""
        attempt = Attempt(scored)
        self.attempts.append(attempt)
        return [Send(attempt)]

    def on(self, event: Event) -> Sequence[Command]:
        """What to do about an event of the request as a whole."""
        if self.done:
            return _NOTHING
        match event:
            case Next():
                return self._on_next(event)
            case DeadlinePassed():
                return self._stop(DeadlineExceeded("the deadline passed before an answer came"))
            case ClientGone():
                return self._stop(None)
            case HedgeDue():
                return self._on_hedge_due()

    def hear(self, attempt: Attempt, events: Sequence[Answer], now_s: float) -> Sequence[Command]:
        """What to do about events of one attempt that came together."""
        commands: Sequence[Command] = _NOTHING
        for event in events:
            if self.done:
                break
            if not attempt.live:
                more = self._overhear(event, attempt)
            elif isinstance(event, Chunk):
                more = self._on_chunk(event.data, attempt)
            elif isinstance(event, Head):
                more = self._on_head(event, attempt, now_s)
            elif isinstance(event, End):
                more = self._on_end(attempt, event.code)
            else:
                more = self._on_lost(event, attempt)
            if more:
                commands = [*commands, *more]
        return commands

    def refusals(self) -> Iterator[tuple[Attempt, IsochroneError]]:
        """What endpoints have refused for good, the last one first."""
        for settle in reversed(self._settled):
            attempt = settle.attempt
            endpoint = attempt.scored.permit.endpoint
            if settle.outcome in (Outcome.UNABLE, Outcome.QUARANTINED):
                error = refusal_for_good(attempt.status, attempt.problem, reports=endpoint.reports)
                if error is not None:
                    error.reasons[endpoint.name] = _why(settle)
                    yield attempt, error

    def _on_head(self, head: Head, attempt: Attempt, now_s: float) -> Sequence[Command]:
        reported = attempt.report is not None
        unknown = attempt.scored.permit.endpoint.reports and not reported
        if head.status >= 300 or unknown:
            outcome = self._classify(head.status, attempt, now_s)
            if outcome is not Outcome.ANSWERED:
                if outcome in TURNED_AWAY and not (self._repeatable or reported):
                    self._owing = True
                attempt.explains = explains(head.headers)
                why = f"answered {head.status}{' without a load report' * unknown}"
                told_s = attempt.retry_after_s if outcome is Outcome.BUSY else None
                return self._fall(Settle(attempt, outcome, why, told_s))
        attempt.head = head
        if head.status >= 400 or may_be_held(head.headers):
            return _NOTHING
        self._streaming = True
        return [*self._cancel_all_but(attempt), Begin(attempt, head)]

    def _classify(self, status: int, attempt: Attempt, now_s: float) -> Outcome:
        """What a head says of its endpoint; a deadline that is not over is not why it failed."""
        outcome = of_answer(
            status,
            attempt.scored.permit.endpoint,
            reported=attempt.report is not None,
            again_s=attempt.retry_after_s,
        )
        if outcome is not Outcome.LATE:
            return outcome
        if now_s < self._due_s:
            return Outcome.FAILED
        self._expired = True
        return outcome

    def _on_chunk(self, data: bytes, attempt: Attempt) -> Sequence[Command]:
        if self._streaming:
            return [Forward(data)]
        attempt.body.append(data)
        attempt.body_bytes += len(data)
        if attempt.body_bytes > HOLD_BYTES:  # a refusal without a length that does not end
            endless = Settle(attempt, Outcome.FAILED, "endless refusal")
            return [Cancel(attempt), *self._fall(endless)]
        return _NOTHING

    def _on_end(self, attempt: Attempt, code: str) -> Sequence[Command]:
        head = attempt.head
        if head is not None and head.status == _UNPROCESSABLE:
            attempt.problem = explained(b"".join(attempt.body))
            if _is_quarantine(attempt):
                return self._fall(Settle(attempt, Outcome.QUARANTINED, "answered 422"))
        self.done = True
        attempt.live = False
        answered = Settle(attempt, Outcome.ANSWERED)
        self._settled.append(answered)
        if self._streaming or head is None:
            return [answered, Finish(code)]
        deliver = Deliver(attempt, head, b"".join(attempt.body))
        if len(self.attempts) == 1:
            return [answered, deliver]
        return [answered, *self._cancel_all_but(attempt), deliver]

    def _overhear(self, event: Answer, attempt: Attempt) -> Sequence[Command]:
        """What comes after an attempt was settled: at most the explanation of its refusal."""
        if not attempt.explains:
            return _NOTHING
        if isinstance(event, Chunk):
            attempt.body.append(event.data)
            return _NOTHING
        attempt.explains = False
        if isinstance(event, End):
            attempt.problem = explained(b"".join(attempt.body))
        return self._give_up() if attempt is self._closing else _NOTHING

    def _on_lost(self, lost: Lost, attempt: Attempt) -> Sequence[Command]:
        why = f"{lost.cause.value} ({lost.detail})" if lost.detail else lost.cause.value
        settle = Settle(attempt, OF_LOSS[lost.cause], why)
        if self._streaming:
            self.done = True
            return [self._settle(settle), Abort(UnusableAnswer.code)]
        return self._fall(settle)

    def _on_hedge_due(self) -> Sequence[Command]:
        live = [attempt for attempt in self.attempts if attempt.live]
        waiting = len(live) == 1 and live[0].head is None
        if self._hedged or not waiting or len(self.attempts) >= self._most:
            return _NOTHING
        return [Choose(hedge=True)]

    def _on_next(self, chosen: Next) -> Sequence[Command]:
        """The next endpoint has been chosen: after a failure, or for a hedge."""
        failed, self._choosing = self._choosing, None
        scored = None if chosen.scored is None else self._unless_tried(chosen.scored)
        if failed is None:
            self._hedged = self._hedged or scored is not None
            return _NOTHING if scored is None else [self._send(scored, hedge=True)]
        self._stranded = scored is None
        if scored is not None and chosen.leave:
            self._owing = False
            return [self._send(scored)]
        return self._conclude(failed)

    def _fall(self, settle: Settle) -> list[Command]:
        """An attempt has failed: the one beside it goes on, or another endpoint is chosen."""
        settled = self._settle(settle)
        if any(attempt.live for attempt in self.attempts):
            return [settled]
        if self._may_go_on():
            self._choosing = settle.attempt
            return [settled, Choose(needs_leave=self._owing)]
        return [settled, *self._conclude(settle.attempt)]

    def _conclude(self, failed: Attempt) -> Sequence[Command]:
        """No endpoint is left: give up once the last one has said why it refused."""
        if failed.explains:
            self._closing = failed
            return _NOTHING
        return self._give_up()

    def _give_up(self) -> list[Command]:
        self.done = True
        return [GiveUp(self._verdict(), stranded=self._stranded, owing=self._owing)]

    def _may_go_on(self) -> bool:
        unsent = self._settled[-1].outcome is Outcome.UNSENT  # as would be the next
        fit = self._crashes < POISON_COUNT and not (self._expired or unsent)
        return fit and len(self.attempts) < self._most

    @property
    def _crashes(self) -> int:
        return self._crashed + sum(settle.outcome in _HARMFUL for settle in self._settled)

    def _unless_tried(self, scored: Scored) -> Scored | None:
        name = scored.permit.endpoint.name
        return None if any(name == one.endpoint for one in self.attempts) else scored

    def _send(self, scored: Scored, *, hedge: bool = False) -> Command:
        attempt = Attempt(scored, hedge=hedge)
        self.attempts.append(attempt)
        return Send(attempt)

    def _cancel_all_but(self, attempt: Attempt) -> Sequence[Command]:
        """No other attempt is needed any more."""
        commands: list[Command] = []
        for other in self.attempts:
            if other.live and other is not attempt:
                lost = Settle(other, Outcome.CANCELLED, "another was faster")
                commands += [Cancel(other), self._settle(lost)]
        return commands

    def _stop(self, error: IsochroneError | None) -> list[Command]:
        """The deadline (an error to tell) or the client itself ends the request."""
        self.done = True
        outcome = Outcome.CANCELLED if error is None else Outcome.LATE
        stopped: list[Command] = []
        for attempt in self.attempts:
            if attempt.live:
                stopped += [Cancel(attempt), self._settle(Settle(attempt, outcome))]
        if error is None:
            return stopped
        return [*stopped, Abort(error.code) if self._streaming else GiveUp(error)]

    def _settle(self, settle: Settle) -> Settle:
        settle.attempt.live = False
        self._owing = self._owing or settle.outcome in MAY_HAVE_RUN
        self._settled.append(settle)
        return settle

    def _verdict(self) -> IsochroneError:
        """Why there is no answer: the worst outcome decides what the client is told."""
        settled = self._settled
        reasons = {settle.attempt.endpoint: _why(settle) for settle in settled}
        outcomes = {settle.outcome for settle in settled}
        if self._crashes >= POISON_COUNT and outcomes != {Outcome.QUARANTINED}:
            return Poison("endpoints were lost while this request was there", reasons=reasons)
        if self._expired:
            return DeadlineExceeded("the deadline passed at the endpoint", reasons=reasons)
        if Outcome.UNSENT in outcomes and not (self._owing or self._crashes):
            return Overloaded("this router has no connection to spare", retry_after_s=1.0)
        if Outcome.BUSY in outcomes and not (self._owing or Outcome.CRASHED in outcomes):
            waits_s = [s.retry_after_s for s in settled if s.retry_after_s is not None]
            full = "every endpoint that may serve this is full"
            return Overloaded(full, retry_after_s=min(waits_s, default=1.0), reasons=reasons)
        if outcomes <= _REFUSED_FOR_GOOD:
            for _, refusal in self.refusals():
                refusal.reasons |= reasons
                return refusal
        if outcomes - {Outcome.REFUSED}:
            return UnusableAnswer("no endpoint gave a usable answer", reasons=reasons)
        return NoEndpoint("no endpoint can be reached", retry_after_s=1.0, reasons=reasons)


def _is_quarantine(attempt: Attempt) -> bool:
    """The model's process died of this request before; that of another endpoint need not."""
    code = attempt.problem.code if attempt.problem is not None else ""
    return code == Quarantined.code and attempt.scored.permit.endpoint.reports


def _why(settle: Settle) -> str:
    """Why an attempt failed, with the endpoint's own words."""
    problem = settle.attempt.problem
    return settle.why if problem is None else f"{settle.why}: {problem.error[:_WORDS]}"
