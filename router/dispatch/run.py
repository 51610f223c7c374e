"""One request under way: the I/O shell around an `Attempt`.

It does what the machine says and tells it what happened, all in protocol callbacks: on the way of
an ordinary request there is no task, no timer and no await.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from isochrone.router.dispatch.asked import Asked, Ended
from isochrone.router.dispatch.attempt import Attempt
from isochrone.router.dispatch.chooser import Chooser
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
from isochrone.router.dispatch.event import ClientGone, Event
from isochrone.router.dispatch.guide import Guide
from isochrone.router.dispatch.spare import Spare
from isochrone.router.dispatch.timers import Timers
from isochrone.router.dispatch.tries import Reach, Tries
from isochrone.router.errors import IsochroneError, UnusableAnswer
from isochrone.router.policy.explain import explanation
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.policy import Plan
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.event import Answer, Cause, Chunk, End, Head, Lost
from isochrone.router.upstream.rewrite import downstream_headers, readable_refusal, server_timing
from isochrone.router.wire.headers import EXPLAIN

_log = logging.getLogger("isochrone.router")


@dataclass(frozen=True, slots=True)
class Means(Reach):
    """What every run works with.

    `chooser` gives the next endpoint to ask, `spare` how much may be done beside what clients asked
    for. At most `most_tries` endpoints are asked in one run. `wall` is for the dates that endpoints
    send.
    """

    chooser: Chooser
    spare: Spare
    most_tries: int
    wall: Clock
    running: "Timers[Run]" = field(default_factory=Timers)
    hedging: "Timers[Run]" = field(default_factory=Timers)


class Run:
    """One request under way: from its first try until it has an answer, or there is none."""

    __slots__ = (
        "asked",
        "attempt",
        "ended",
        "exchange",
        "gave_up",
        "guide",
        "means",
        "query",
        "record",
        "tries",
    )

    def __init__(self, means: Means, asked: Asked, plan: Plan, ended: Ended) -> None:
        self.means = means
        self.asked = asked
        self.exchange = asked.exchange
        self.query = asked.query
        self.record = asked.record
        self.ended = ended
        self.guide = Guide(asked, plan.order[0], means.chooser, means.spare, means.clock)
        self.tries = Tries(means, asked, plan.why)
        self.attempt = Attempt(
            self.guide.next.permit,
            self.guide.choose,
            repeat=self.guide.may_repeat,
            hedge=self.guide.hedge,
            due=self.guide.is_due,
            reported=self.tries.reported,
            wall=means.wall,
            repeatable=self.query.repeatable,
            most=means.most_tries,
            crashed=asked.crashed,
        )
        self.gave_up: GiveUp | None = None

    def begin(self) -> None:
        self.exchange.watch(gone=self._client_gone, pause=self._pause, resume=self._resume)
        self._guarded(self._start)

    def tell(self, event: Event, number: int = -1) -> None:
        self._guarded(self._advance, event, number)

    def lose(self, name: str, why: str) -> None:
        """Nobody should wait there; what has begun to come may still end, within the deadline.

        So may what no other endpoint can take: there is nothing to be won by giving it up.
        """
        for number, made in enumerate(self.tries.made):
            there = made.scored.permit.endpoint.name == name
            if not there or made.call is None or made.first_byte_s is not None:
                continue
            if self.guide.may_move([t.scored.permit for t in self.tries.made]):
                made.cancel()
                self.tell(Lost(Cause.TIMEOUT, why), number)

    def _guarded(self, act: Callable[..., None], *arguments: object) -> None:
        """Whatever goes wrong in a callback, the request comes to its one end."""
        try:
            act(*arguments)
        except Exception:  # a mistake of ours, or an answer that cannot be passed on
            _log.exception("request %s broke off", self.query.request_id)
            self._break_off()
        if self.attempt.done and self in self.means.running:
            self._end()

    def _start(self) -> None:
        self._obey(self.attempt.start())

    def _advance(self, event: Event, number: int) -> None:
        if isinstance(event, Head):
            self.tries.begun(event, number)
        elif isinstance(event, Chunk):
            self.tries.made[number].empty = False
        elif isinstance(event, End | Lost):
            made = self.tries.made[number]
            made.call = None
            if isinstance(event, End) and event.code:
                made.succeeded = False
        self._obey(self.attempt.on(event, number))

    def _obey(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case Send():
                self._send(command)
            case Settle():
                self.tries.settle(command)
            case Cancel(number):
                self.tries.made[number].cancel()
            case _:
                self._answer(command)

    def _break_off(self) -> None:
        for command in self.attempt.on(ClientGone()):
            if isinstance(command, Settle):
                self.tries.settle(command)
        self.gave_up = None
        if not self.exchange.gone:
            self.record.cut(IsochroneError.code)
            self.exchange.abort()

    def _answer(self, command: Deliver | Begin | Forward | Finish | Abort | GiveUp) -> None:
        match command:
            case Deliver():
                self._deliver(command)
            case Begin(number, head):
                self.record.answered(head.status)
                self.exchange.start(head.status, self._headers(number, head))
            case Forward(data):
                self.exchange.write(data)
            case Finish(code):
                self.exchange.finish()
                if self.exchange.gone:  # it was shorter than announced
                    code = UnusableAnswer.code
                if code:
                    self.record.cut(code)
            case Abort(code):
                self.record.cut(code)
                self.exchange.abort()
            case GiveUp():
                self.gave_up = command

    def _end(self) -> None:
        self.means.running.clear(self)
        self.means.hedging.clear(self)
        for number, error in self.attempt.refusals():
            self.tries.refused(number, error)
        for made in self.tries.made:
            made.cancel()  # the rest of an answer that was of no use
        self.ended(self.asked, self.gave_up)

    def _send(self, send: Send) -> None:
        scored, spare, now_s = self.guide.next, self.means.spare, self.means.clock()
        tell = partial(_tell, self, send.number)
        if not self.tries.send(send, scored, tell, self.guide.may_repeat):
            return
        lease = self.tries.made[-1].lease
        self.guide.was_trial = lease is not None and lease.trial
        if not self.tries.base + send.number:  # what is refused here earns nobody a second try
            spare.requested(now_s)
        if not send.hedge and spare.hedges(self.query):
            self._expect(now_s, scored)

    def _expect(self, now_s: float, scored: Scored) -> None:
        """Be told when this try is late against its own prediction."""
        self.means.hedging.clear(self)
        self.means.hedging.set(self, now_s + self.means.spare.late_after_s(scored.seconds))

    def _deliver(self, deliver: Deliver) -> None:
        head, body = readable_refusal(deliver.head, deliver.body)
        self.record.answered(head.status)
        headers = self._headers(deliver.number, head)
        self.exchange.respond(head.status, headers, body)

    def _headers(self, number: int, head: Head) -> list[tuple[bytes, bytes]]:
        made = self.tries.made[number]
        request = self.exchange.request
        now_s = self.means.clock()
        route_s = max(0.0, self.query.now_s - request.received_s) + self.record.waited_s
        fields = downstream_headers(
            head,
            self.query.request_id,
            made.scored.permit.endpoint,
            reason=made.cause,
            tries=self.tries.base + len(self.tries.made),
            timing=server_timing(now_s - request.received_s, route_s, made.report),
        )
        if self.query.explain and request.header(EXPLAIN) == b"1":
            fields.append((EXPLAIN, explanation(self.record.told)))
        return fields

    def _client_gone(self) -> None:
        self.record.client_left()
        self.tell(ClientGone())

    def _pause(self) -> None:
        for made in self.tries.made:
            if made.call is not None:
                made.call.pause()

    def _resume(self) -> None:
        for made in self.tries.made:
            if made.call is not None:
                made.call.resume()


def _tell(run: Run, number: int, events: Sequence[Answer]) -> None:
    made = run.tries.made[number]
    for event in events:
        if made.cancelled:  # while it worked through these events: the rest is not wanted
            return
        run.tell(event, number)
