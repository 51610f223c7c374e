"""Carrying a request out, as a sans-IO machine: events in, commands out.

Each try has its permit, and none goes to an endpoint that an earlier one went to. Whom to ask next
is decided when it is needed, with the fleet as it is then. A short answer is held until it is
whole, so that an endpoint that dies in the middle costs nothing; a long one or a stream is passed
on chunk by chunk, and once its head has been, nothing is tried again. Tries follow each other, but
one may run beside the first where that is late (a hedge): the first usable answer wins, and the
other try is cancelled.
"""

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus

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
    retry_after_s,
)
from isochrone.router.dispatch.command import (
    Abort,
    Begin,
    Cancel,
    Command,
    Deliver,
    Finish,
    Forward,
    GiveUp,
    Send,
    Settle,
)
from isochrone.router.dispatch.event import ClientGone, Event, HedgeDue, Timer
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
from isochrone.router.law.permit import Permit
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Chunk, End, Head, Lost
from isochrone.router.wire.problem import Problem

POISON_COUNT = 2
"""A request that crashed so many endpoints is asked of no other."""
_HARMFUL = frozenset({Outcome.CRASHED, Outcome.QUARANTINED})
_REFUSED_FOR_GOOD = frozenset({Outcome.UNABLE, Outcome.QUARANTINED, Outcome.REFUSED})
_WORDS = 300
"""So many characters of an endpoint's own words stand among the reasons."""

Choose = Callable[[Sequence[Permit]], Permit | None]
"""The next endpoint to ask, given those that were; None: there is none."""


class _Try:
    __slots__ = ("body", "explains", "head", "held_bytes", "live", "permit", "problem", "status")

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self.live = True
        self.head: Head | None = None
        self.status = 0
        self.body: list[bytes] = []
        self.held_bytes = 0
        self.explains = False
        """It has refused, and is about to say why."""
        self.problem: Problem | None = None


def _nobody(tried: Sequence[Permit]) -> None:
    del tried


class Attempt:
    """One request's way to its end. Events of a try that has been settled are ignored.

    `choose` is asked for the next endpoint, `hedge` for one to ask beside a late one, `repeat` for
    leave to ask another after a try that may have run, and `due` whether the deadline is as good as
    over; what they say is final. `reported` tells whether a valid load report came with the head of
    a try's answer. What is not `repeatable` needs leave after a refusal as well, unless that brings
    a report, and so is known to come from before anything has run.
    """

    __slots__ = (
        "_choose",
        "_closing",
        "_crashed",
        "_done",
        "_due",
        "_ended",
        "_expired",
        "_hedge",
        "_hedged",
        "_most",
        "_owing",
        "_repeat",
        "_repeatable",
        "_reported",
        "_stranded",
        "_streaming",
        "_tries",
        "_wall",
    )

    def __init__(
        self,
        permit: Permit,
        choose: Choose,
        *,
        repeat: Callable[[], bool] = lambda: True,
        hedge: Choose = _nobody,
        due: Callable[[], bool] = lambda: False,
        reported: Callable[[int], bool] = lambda _: True,
        wall: Clock = lambda: 0.0,
        repeatable: bool = True,
        most: int = 3,
        crashed: int = 0,
    ) -> None:
        """`crashed`: so many endpoints were lost with this request before; `wall` reads dates."""
        self._choose = choose
        self._repeat = repeat
        self._due = due
        self._reported = reported
        self._wall = wall
        self._repeatable = repeatable
        self._hedge = hedge
        self._most = most
        self._crashed = crashed
        self._tries = [_Try(permit)]
        self._ended: list[Settle] = []
        self._streaming = False
        self._hedged = False
        self._owing = False
        self._expired = False
        self._closing = -1
        """The try whose explanation is awaited, where nothing else is left to do."""
        self._stranded = False
        self._done = False

    @property
    def done(self) -> bool:
        """It has ended, one way or the other."""
        return self._done

    def start(self) -> list[Command]:
        """The first try."""
        return [Send(self._tries[0].permit, 0)]

    def on(self, event: Event, number: int = -1) -> list[Command]:
        """What to do about an event; `number` names the try that it belongs to."""
        if self._done:
            return []
        match event:
            case Timer():
                return self._stop(DeadlineExceeded("the deadline passed before an answer came"))
            case ClientGone():
                return self._stop(None)
            case HedgeDue():
                return self._on_hedge_due()
            case _ if not self._tries[number].live:
                return self._overhear(event, number)
            case Head():
                return self._on_head(event, number)
            case Chunk(data):
                return self._on_chunk(data, number)
            case End(code):
                return self._on_end(number, code)
            case Lost():
                return self._on_lost(event, number)

    def _on_head(self, head: Head, number: int) -> list[Command]:
        made, reported = self._tries[number], self._reported(number)
        made.status = head.status
        unknown = made.permit.endpoint.reports and not reported
        if head.status >= 300 or unknown:
            wait_s = retry_after_s(head.headers, self._wall)
            outcome = self._classify(head.status, made.permit, wait_s, reported=reported)
            if outcome is not Outcome.ANSWERED:
                if outcome in TURNED_AWAY and not (self._repeatable or reported):
                    self._owing = True
                made.explains = explains(head.headers)
                why = f"answered {head.status}{' without a load report' * unknown}"
                told_s = wait_s if outcome is Outcome.BUSY else None
                return self._fall(Settle(number, outcome, why, told_s))
        made.head = head
        if head.status >= 400 or may_be_held(head.headers):
            return []
        self._streaming = True
        return [*self._cancel_but(number), Begin(number, head)]

    def _classify(
        self, status: int, permit: Permit, wait_s: float | None, *, reported: bool
    ) -> Outcome:
        """What a head says of its endpoint; a deadline that is not over is not why it failed."""
        outcome = of_answer(status, permit.endpoint, reported=reported, again_s=wait_s)
        if outcome is not Outcome.LATE:
            return outcome
        if not self._due():
            return Outcome.FAILED
        self._expired = True
        return outcome

    def _on_chunk(self, data: bytes, number: int) -> list[Command]:
        if self._streaming:
            return [Forward(data)]
        held = self._tries[number]
        held.body.append(data)
        held.held_bytes += len(data)
        if held.held_bytes > HOLD_BYTES:  # a refusal without a length that does not end
            endless = Settle(number, Outcome.FAILED, "endless refusal")
            return [Cancel(number), *self._fall(endless)]
        return []

    def _on_end(self, number: int, code: str) -> list[Command]:
        whole = self._tries[number]
        if whole.head is not None and whole.head.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            whole.problem = explained(b"".join(whole.body))
            if self._is_quarantine(whole):
                return self._fall(Settle(number, Outcome.QUARANTINED, "answered 422"))
        self._done = True
        answered = self._settle(Settle(number, Outcome.ANSWERED))
        if self._streaming or whole.head is None:
            return [*answered, Finish(code)]
        body = b"".join(whole.body)
        return [*answered, *self._cancel_but(number), Deliver(number, whole.head, body)]

    def _is_quarantine(self, made: _Try) -> bool:
        """The model's process died of this request before, and no other's need have."""
        code = made.problem.code if made.problem is not None else ""
        return code == Quarantined.code and made.permit.endpoint.reports

    def _overhear(self, event: Event, number: int) -> list[Command]:
        """What comes after a try was settled: at most an explanation of its refusal."""
        made = self._tries[number]
        if not made.explains:
            return []
        if isinstance(event, Chunk):
            made.body.append(event.data)
            return []
        made.explains = False
        if isinstance(event, End):
            made.problem = explained(b"".join(made.body))
        return self._give_up() if number == self._closing else []

    def _on_lost(self, lost: Lost, number: int) -> list[Command]:
        why = f"{lost.cause.value} ({lost.detail})" if lost.detail else lost.cause.value
        settle = Settle(number, OF_LOSS[lost.cause], why)
        if self._streaming:
            self._done = True
            return [*self._settle(settle), Abort(UnusableAnswer.code)]
        return self._fall(settle)

    def _on_hedge_due(self) -> list[Command]:
        live = [t for t in self._tries if t.live]
        waiting = len(live) == 1 and live[0].head is None
        if self._hedged or not waiting or len(self._tries) >= self._most:
            return []
        permit = self._fresh(self._hedge)
        if permit is None:
            return []
        self._hedged = True
        return [self._send(permit, hedge=True)]

    def _fall(self, settle: Settle) -> list[Command]:
        """A try has come to nothing: the one beside it goes on, or another is made."""
        settled = self._settle(settle)
        if any(t.live for t in self._tries):
            return settled
        if self._may_go_on():
            permit = self._fresh(self._choose)
            self._stranded = permit is None
            if permit is not None and (not self._owing or self._repeat()):
                self._owing = False
                return [*settled, self._send(permit)]
        if self._tries[settle.number].explains:
            self._closing = settle.number
            return settled
        return settled + self._give_up()

    def _give_up(self) -> list[Command]:
        self._done = True
        return [GiveUp(self._verdict(), stranded=self._stranded, owing=self._owing)]

    def _may_go_on(self) -> bool:
        unsent = self._ended and self._ended[-1].outcome is Outcome.UNSENT  # as would be the next
        fit = self._crashes < POISON_COUNT and not (self._expired or unsent)
        return fit and len(self._tries) < self._most

    @property
    def _crashes(self) -> int:
        return self._crashed + sum(s.outcome in _HARMFUL for s in self._ended)

    def _fresh(self, choose: Choose) -> Permit | None:
        """Whom to ask; never who was asked."""
        tried = [t.permit for t in self._tries]
        permit = choose(tried)
        if permit is None or permit.endpoint.name in {p.endpoint.name for p in tried}:
            return None
        return permit

    def _send(self, permit: Permit, *, hedge: bool = False) -> Command:
        self._tries.append(_Try(permit))
        return Send(permit, len(self._tries) - 1, hedge)

    def _cancel_but(self, number: int) -> list[Command]:
        """Every other try that is under way is not needed any more."""
        commands: list[Command] = []
        for other, beside in enumerate(self._tries):
            if beside.live and other != number:
                lost = Settle(other, Outcome.CANCELLED, "another was faster")
                commands += [Cancel(other), *self._settle(lost)]
        return commands

    def _stop(self, error: IsochroneError | None) -> list[Command]:
        """The deadline (an error to tell) or the client itself ends the request."""
        self._done = True
        outcome = Outcome.CANCELLED if error is None else Outcome.LATE
        stopped: list[Command] = []
        for number, stoppable in enumerate(self._tries):
            if stoppable.live:
                stopped += [Cancel(number), *self._settle(Settle(number, outcome))]
        if error is None:
            return stopped
        return [*stopped, Abort(error.code) if self._streaming else GiveUp(error)]

    def _settle(self, settle: Settle) -> list[Command]:
        self._tries[settle.number].live = False
        self._owing = self._owing or settle.outcome in MAY_HAVE_RUN
        self._ended.append(settle)
        return [settle]

    def _verdict(self) -> IsochroneError:
        """Why there is no answer: the worst that was seen decides what the client is told."""
        reasons = {self._tries[s.number].permit.endpoint.name: self._why(s) for s in self._ended}
        outcomes = {s.outcome for s in self._ended}
        if self._crashes >= POISON_COUNT and outcomes != {Outcome.QUARANTINED}:
            return Poison("endpoints were lost while this request was there", reasons=reasons)
        if self._expired:
            return DeadlineExceeded("the deadline passed at the endpoint", reasons=reasons)
        if Outcome.UNSENT in outcomes and not (self._owing or self._crashes):
            return Overloaded("this router has no connection to spare", retry_after_s=1.0)
        if Outcome.BUSY in outcomes and not (self._owing or Outcome.CRASHED in outcomes):
            waits_s = [s.retry_after_s for s in self._ended if s.retry_after_s is not None]
            full = "every endpoint that may serve this is full"
            return Overloaded(full, retry_after_s=min(waits_s, default=1.0), reasons=reasons)
        if outcomes <= _REFUSED_FOR_GOOD:
            for _, refusal in self.refusals():
                refusal.reasons |= reasons
                return refusal
        if outcomes - {Outcome.REFUSED}:
            return UnusableAnswer("no endpoint gave a usable answer", reasons=reasons)
        return NoEndpoint("no endpoint can be reached", retry_after_s=1.0, reasons=reasons)

    def _why(self, settle: Settle) -> str:
        """Why a try came to nothing, with the endpoint's own words."""
        problem = self._tries[settle.number].problem
        return settle.why if problem is None else f"{settle.why}: {problem.error[:_WORDS]}"

    def refusals(self) -> Iterator[tuple[int, IsochroneError]]:
        """What endpoints have refused for good, by number of the try, the last one first."""
        for settle in reversed(self._ended):
            made = self._tries[settle.number]
            endpoint = made.permit.endpoint
            if settle.outcome in (Outcome.UNABLE, Outcome.QUARANTINED):
                error = refusal_for_good(made.status, made.problem, reports=endpoint.reports)
                if error is not None:
                    error.reasons[endpoint.name] = self._why(settle)
                    yield settle.number, error
