"""One request under way: the I/O shell around an `Attempt`.

It does what the machine says and tells it what happened, all in protocol callbacks: on the way of
an ordinary request there is no task, no timer and no await.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec import structs

from router.admission.ticket import Ticket
from router.dispatch.attempt import Attempt
from router.dispatch.chooser import Chooser
from router.dispatch.command import (
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
from router.dispatch.event import Cause, ClientGone, End, Event, Head, Lost
from router.dispatch.record import Record, Tried
from router.dispatch.rewrite import (
    downstream_headers,
    readable_refusal,
    server_timing,
    upstream_headers,
)
from router.dispatch.spare import Spare
from router.dispatch.timers import Timers
from router.dispatch.upstream import Call, Upstream
from router.errors import IsochroneError
from router.fleet.endpoint import Endpoint
from router.fleet.ledger import Ledger
from router.fleet.outcome import Outcome
from router.fleet.site import Lease
from router.policy.explain import explanation
from router.policy.law import Permit
from router.policy.pick import Scored
from router.policy.policy import Plan
from router.policy.query import Query
from router.process.clock import Clock
from router.process.exchange import Exchange
from router.wire.headers import EXPLAIN
from router.wire.http import Request, first
from router.wire.report import LOAD_HEADER, CallReport, decode_call_report

DUE_S = 0.05
"""A deadline is as good as over when this is left of it,"""
DUE_SHARE = 0.1
"""or this share of the time that there was."""

_log = logging.getLogger("isochrone.router")


@dataclass(slots=True, eq=False)
class Asked:
    """One request of a client, until its one end; `ticket` is its last place in line, if any.

    `waits_from_s` is when it last began to wait, `refused` who did not take its connection: it is
    not sent there again.
    """

    exchange: Exchange
    query: Query
    record: Record
    ticket: "Ticket[Asked] | None" = None
    waits_from_s: float = 0.0
    refused: set[str] = field(default_factory=set)


Ended = Callable[[Asked, IsochroneError | None], None]
"""Told once how carrying out ended; with an error the client has not been answered yet."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every run works with.

    `sender` signs what is sent, `upstream` gives the way to an endpoint, `chooser` the next one to
    ask, `spare` how much may be done beside what clients asked for. At most `most_tries` endpoints
    are asked for one request.
    """

    sender: bytes
    ledger: Ledger
    upstream: Callable[[Endpoint], Upstream]
    chooser: Chooser
    spare: Spare
    clock: Clock
    most_tries: int
    running: "Timers[Run]" = field(default_factory=Timers)
    hedging: "Timers[Run]" = field(default_factory=Timers)


class _Try:
    """One try, as the shell knows it."""

    __slots__ = ("call", "cause", "first_byte_s", "lease", "report", "scored")

    def __init__(self, scored: Scored, cause: str, lease: Lease | None) -> None:
        self.scored = scored
        self.cause = cause
        self.lease = lease
        self.call: Call | None = None
        self.report: CallReport | None = None
        self.first_byte_s: float | None = None


class Run:
    """One request under way: from its first try until it has an answer, or there is none."""

    __slots__ = (
        "asked",
        "attempt",
        "base",
        "cause",
        "ended",
        "error",
        "exchange",
        "means",
        "next",
        "plan",
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
        self.plan = plan
        self.ended = ended
        self.next = plan.order[0]
        self.attempt = Attempt(
            self.next.permit,
            self._choose,
            repeat=self._may_repeat,
            hedge=self._hedge,
            due=self._is_due,
            repeatable=self.query.repeatable,
            most=means.most_tries,
        )
        self.base = self.record.tries_count
        self.cause = plan.why
        self.tries: list[_Try] = []
        self.error: IsochroneError | None = None

    def begin(self) -> None:
        self.exchange.watch(gone=self._client_gone, pause=self._pause, resume=self._resume)
        self._guarded(self._start)

    def tell(self, event: Event, number: int = -1) -> None:
        self._guarded(self._advance, event, number)

    def lose(self, name: str, why: str) -> None:
        """Nobody should wait there; what has begun to come may still end, within the deadline."""
        for number, made in enumerate(self.tries):
            there = made.scored.permit.endpoint.name == name
            if there and made.call is not None and made.first_byte_s is None:
                made.call.cancel()
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
            self._learn(event, number)
        elif isinstance(event, End | Lost):
            self.tries[number].call = None
        self._obey(self.attempt.on(event, number))

    def _obey(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case Send():
                self._send(command)
            case Settle():
                self._settle(command)
            case Cancel(number):
                self._cancel(number)
            case _:
                self._answer(command)

    def _break_off(self) -> None:
        for command in self.attempt.on(ClientGone()):
            if isinstance(command, Settle):
                self._settle(command)
        self.error = None
        if not self.exchange.gone:
            self.record.code = "internal"
            self.exchange.abort()

    def _answer(self, command: Deliver | Begin | Forward | Finish | Abort | GiveUp) -> None:
        match command:
            case Deliver():
                self._deliver(command)
            case Begin(number, head):
                self.record.status = head.status
                self.exchange.start(head.status, self._headers(number, head))
            case Forward(data):
                self.exchange.write(data)
            case Finish():
                self.exchange.finish()
            case Abort(code):
                self.record.code = code
                self.exchange.abort()
            case GiveUp(error):
                self.error = error

    def _end(self) -> None:
        self.means.running.clear(self)
        self.means.hedging.clear(self)
        for number in range(len(self.tries)):
            self._cancel(number)  # the rest of an answer that was of no use
        self.ended(self.asked, self.error)

    def _choose(self, tried: Sequence[Permit]) -> Permit | None:
        """Whom to ask next, with the fleet as it is now."""
        scored = self._best_but(tried)
        if scored is None:
            return None
        self.next = scored
        return scored.permit

    def _may_repeat(self) -> bool:
        may = self.query.repeatable and self.means.spare.retry(self.means.clock())
        self.record.repeats += may
        return may

    def _is_due(self) -> bool:
        given_s = self.query.deadline_s - self.record.asked_s
        left_s = self.query.deadline_s - self.means.clock()
        return left_s <= max(DUE_S, DUE_SHARE * given_s)

    def _hedge(self, tried: Sequence[Permit]) -> Permit | None:
        """Whom to ask beside, if that is worth it."""
        scored = self._best_but(tried)
        query, now_s = self.query, self.means.clock()
        if scored is None or not self.means.spare.hedge(query, scored, now_s):
            return None
        self.next = scored
        self.record.hedges += 1
        return scored.permit

    def _best_but(self, tried: Sequence[Permit]) -> Scored | None:
        query = structs.replace(self.query, now_s=self.means.clock())
        names = self.asked.refused.union(p.endpoint.name for p in tried)
        order = self.means.chooser.best(query, names).order
        return order[0] if order else None

    def _send(self, send: Send) -> None:
        means, query, scored = self.means, self.query, self.next
        endpoint = send.permit.endpoint
        now_s = means.clock()
        lease = means.ledger.sent(
            endpoint, query.model, scored.candidate.version, now_s, query.body_bytes
        )
        made = _Try(scored, "hedge" if send.hedge else self.cause, lease)
        self.tries.append(made)
        if lease is None:
            self.tell(Lost(Cause.REFUSED, "it has left"), send.number)
            return
        if not self.base + send.number:  # what is refused here earns nobody a second try
            means.spare.requested(now_s)
        asked = self.exchange.request
        headers = upstream_headers(
            asked.headers,
            query,
            remaining_s=query.deadline_s - now_s,
            number=self.base + send.number,
            sequence=b"%s=%d" % (means.sender, lease.sequence),
        )
        target = Request(asked.method, asked.path, headers, asked.body, query=asked.query)
        on_event = partial(_tell, self, send.number)
        made.call = means.upstream(endpoint).send(target, on_event, once=not query.repeatable)
        if not send.hedge and means.spare.hedges(query):
            self._expect(now_s, scored)

    def _expect(self, now_s: float, scored: Scored) -> None:
        """Be told when this try is late against its own prediction."""
        self.means.hedging.clear(self)
        self.means.hedging.set(self, now_s + self.means.spare.late_after_s(scored.seconds))

    def _learn(self, head: Head, number: int) -> None:
        """What the head of an answer says of its endpoint."""
        made = self.tries[number]
        value = first(head.headers, LOAD_HEADER)
        made.report = decode_call_report(value) if value is not None else None
        if made.lease is not None and made.lease.open:
            now_s = self.means.clock()
            made.first_byte_s = now_s - made.lease.sent_s
            self.means.ledger.answered(made.lease, made.report, now_s)

    def _settle(self, settle: Settle) -> None:
        now_s = self.means.clock()
        made = self.tries[settle.number]
        if made.lease is not None:
            self.means.ledger.close(made.lease, settle.outcome, now_s, settle.retry_after_s)
            if settle.outcome is Outcome.UNABLE and self.query.action == "infer":
                self.means.ledger.lacks(made.lease, now_s)
        if settle.outcome is Outcome.REFUSED:
            self.asked.refused.add(made.scored.permit.endpoint.name)
        tried = Tried(
            scored=made.scored,
            why=made.cause,
            outcome=settle.why or settle.outcome.value,
            seconds=now_s - made.lease.sent_s if made.lease is not None else 0.0,
            first_byte_s=made.first_byte_s,
            report=made.report,
            answered=settle.outcome is Outcome.ANSWERED,
        )
        self.record.add(tried)
        self.cause = f"fallback_{settle.outcome.value}"

    def _deliver(self, deliver: Deliver) -> None:
        head, body = readable_refusal(deliver.head, deliver.body)
        self.record.status = head.status
        headers = self._headers(deliver.number, head)
        self.exchange.respond(head.status, headers, body)

    def _headers(self, number: int, head: Head) -> list[tuple[bytes, bytes]]:
        made = self.tries[number]
        request = self.exchange.request
        now_s = self.means.clock()
        route_s = max(0.0, self.query.now_s - request.received_s) + self.record.waited_s
        fields = downstream_headers(
            head,
            self.query.request_id,
            made.scored.permit.endpoint,
            reason=made.cause,
            tries=self.base + len(self.tries),
            timing=server_timing(now_s - request.received_s, route_s, made.report),
        )
        if self.query.explain and request.header(EXPLAIN) == b"1":
            fields.append((EXPLAIN, explanation(self.record.plan)))
        return fields

    def _cancel(self, number: int) -> None:
        call = self.tries[number].call
        if call is not None:
            call.cancel()

    def _client_gone(self) -> None:
        self.tell(ClientGone())

    def _pause(self) -> None:
        for made in self.tries:
            if made.call is not None:
                made.call.pause()

    def _resume(self) -> None:
        for made in self.tries:
            if made.call is not None:
                made.call.resume()


def _tell(run: Run, number: int, event: Event) -> None:
    run.tell(event, number)
