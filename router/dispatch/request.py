"""One request of a client, from its arrival to its one end.

It is the I/O shell around the attempt machine: it does what the machine commands and tells it what
happened, all in protocol callbacks. An ordinary request costs no task, no timer and no await.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from msgspec import structs

from isochrone.router.admission.ticket import Ticket
from isochrone.router.dispatch.attempt import Attempt
from isochrone.router.dispatch.classify import retry_after_s
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
from isochrone.router.dispatch.event import ClientGone, Event, Next
from isochrone.router.dispatch.machine import Machine
from isochrone.router.dispatch.outlook import Lane
from isochrone.router.errors import IsochroneError, Quarantined, UnusableAnswer
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.fleet.site import Lease
from isochrone.router.http.exchange import Exchange
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.policy.explain import explanation
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.policy import Plan
from isochrone.router.policy.query import Query
from isochrone.router.upstream.event import Answer, Cause, Chunk, End, Head, Lost
from isochrone.router.upstream.rewrite import (
    downstream_headers,
    readable_refusal,
    upstream_headers,
)
from isochrone.router.wire.headers import EXPLAIN
from isochrone.router.wire.http import Request, first
from isochrone.router.wire.problem import STATUS
from isochrone.router.wire.report import LOAD_HEADER, ModelState, decode_call_report

if TYPE_CHECKING:  # each knows the other
    from isochrone.router.dispatch.runner import Runner

CLIENT_GONE = "client_gone"
"""The code of a request whose client left before the end of its answer."""
ATTEMPTS_KEPT = 32
"""So many attempts of one request are kept in full; of the earlier ones, counts."""
DUE_S = 0.05
"""A deadline is as good as over when this is left of it,"""
DUE_SHARE = 0.1
"""or this share of the time that there was."""
_RUNS_THE_MODEL = frozenset({"infer", "generate", "generate_stream"})
_STILL_OF_USE = frozenset({Outcome.BUSY, Outcome.CANCELLED, Outcome.UNSENT})
_NO_NAMES: frozenset[str] = frozenset()

_RELEASED = cast(Exchange, None)

_log = logging.getLogger("isochrone.router")

Ended = Callable[["RoutedRequest", GiveUp | None], None]
"""Told once how a run ended; where it was given up, the client has not been answered yet."""


class RoutedRequest:
    """One request with its plan, its place in the queue, its attempts, timings and outcome.

    `plan` is the last that was made, `explained` the same with the seconds or the reason of every
    candidate where that was asked for. `attempts` are the last of `attempts_count`, `beyond` counts
    those before them by endpoint and reason. `repeats` and `full_repeats` say how often it was sent
    again after an attempt that may have run, and after every endpoint was full; `waited_s` is the
    time in the queue of this router. `excluded` are endpoints that had it and were of no use, other
    than being full: it is not sent there again; `crashed` of them were lost with it.
    `status` and `code` are those of the end; `sent` is the status that the client was told, 0 where
    it was told none: an answer that was cut off has `sent` 200 and the `status` of the error that
    cut it. A client that left has `status` 0. Instants are monotonic.
    """

    __slots__ = (
        "_ended",
        "_first_number",
        "_machine",
        "_next",
        "_runner",
        "_was_trial",
        "_why",
        "attempts",
        "attempts_count",
        "beyond",
        "code",
        "crashed",
        "exchange",
        "excluded",
        "explained",
        "fleet_generation",
        "full_repeats",
        "gave_up",
        "hedges",
        "plan",
        "query",
        "repeats",
        "seconds",
        "sent",
        "status",
        "ticket",
        "waited_s",
        "waits_from_s",
    )

    def __init__(self, runner: "Runner", exchange: Exchange, query: Query, plan: Plan) -> None:
        self._runner = runner
        self.exchange = exchange
        self.query = query
        self.plan = plan
        self.fleet_generation = runner.ledger.generation
        self.explained: Plan | None = None
        self.ticket: Ticket[RoutedRequest] | None = None
        """Its last place in the queue."""
        self.waits_from_s = 0.0
        self.waited_s = 0.0
        self.excluded = _NO_NAMES
        self.crashed = 0
        self.attempts: list[Attempt] = []
        self.attempts_count = 0
        self.beyond: dict[tuple[str, str], int] = {}
        self.repeats = 0
        self.full_repeats = 0
        self.hedges = 0
        self.status = 0
        self.sent = 0
        self.code = ""
        self.seconds = 0.0
        self.gave_up: GiveUp | None = None
        self._machine: Machine
        self._ended: Ended
        self._next: Scored
        """The endpoint that was chosen last."""
        self._was_trial = False
        """The last attempt tested an endpoint in quarantine."""
        self._why = ""
        """What sends the next attempt."""
        self._first_number = 0
        """How many attempts earlier runs made."""

    @property
    def lane(self) -> Lane:
        """The lane of its model in which it queues."""
        query = self.query
        return Lane(query.version, query.required_regions, self.excluded)

    @property
    def told(self) -> Plan:
        """The plan with as much as is known of it."""
        return self.explained or self.plan

    # How it ended.

    def answered(self, status: int) -> None:
        """The head of an answer has left for the client."""
        self.status = self.sent = status

    def cut(self, code: str) -> None:
        """An answer that had begun was cut off by this error."""
        self.code = code
        self.status = STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)

    def client_left(self) -> None:
        """The client went before its answer was whole."""
        self.status, self.code = 0, CLIENT_GONE

    def release(self) -> None:
        """Drop what only a request under way needs; the rest is kept as a record of it."""
        self.exchange = _RELEASED
        self.ticket = None
        for attempt in self.attempts:
            attempt.lease = attempt.call = attempt.head = None
            attempt.body = []

    # One run.

    def start(self, plan: Plan, ended: Ended) -> None:
        """Begin a run with the first endpoint of a plan."""
        query, runner = self.query, self._runner
        deadline_s = query.deadline_s
        self.gave_up = None
        self._ended = ended
        self._next = plan.order[0]
        self._was_trial = False
        self._why = plan.why
        self._first_number = self.attempts_count
        self._machine = Machine(
            repeatable=query.repeatable,
            most=runner.most_attempts,
            crashed=self.crashed,
            due_s=deadline_s - max(DUE_S, DUE_SHARE * (deadline_s - query.now_s)),
        )
        runner.running.set(self, deadline_s)
        self.exchange.watch(gone=self._client_gone, pause=self._pause, resume=self._resume)
        try:
            self._carry_out(self._machine.start(self._next))
        except Exception:  # as in `_hear`
            self._break_off()
        if self._machine.done:
            self._end()

    def tell(self, event: Event) -> None:
        """Something has happened to the request as a whole."""
        try:
            self._carry_out(self._machine.on(event))
        except Exception:  # as in `_hear`
            self._break_off()
        if self._machine.done:
            self._end()

    def lose(self, name: str, why: str) -> None:
        """An endpoint was found dead: an attempt there that has had no answer goes elsewhere.

        An answer that has begun may still end within the deadline, and so may a request that no
        other endpoint can take: giving it up would gain nothing.
        """
        for attempt in self._machine.attempts:
            waits = attempt.call is not None and attempt.first_byte_s is None
            if attempt.endpoint == name and waits and self._may_move():
                attempt.cancel()
                self._hear(attempt, (Lost(Cause.TIMEOUT, why),))

    def _hear(self, attempt: Attempt, events: Sequence[Answer]) -> None:
        """Events of one attempt. Whatever goes wrong, the request comes to its one end."""
        try:
            now_s = self._runner.clock()
            for event in events:
                if isinstance(event, Head):
                    self._take_in_head(event, attempt, now_s)
                elif isinstance(event, Chunk):
                    attempt.has_body = True
                else:
                    attempt.call = None
                    if isinstance(event, End) and event.code:
                        attempt.succeeded = False
            commands = self._machine.hear(attempt, events, now_s)
            if commands:
                self._carry_out(commands)
        except Exception:  # a mistake of ours, or an answer that cannot be passed on
            self._break_off()
        if self._machine.done:
            self._end()

    def _carry_out(self, commands: Sequence[Command]) -> None:
        if commands and isinstance(commands[-1], Choose):
            # chosen before anything is settled: the endpoint that failed is not free yet
            commands = [*commands[:-1], *self._machine.on(self._choose(commands[-1]))]
        for command in commands:
            match command:
                case Settle():
                    self._settle(command)
                case Deliver():
                    self._deliver(command)
                case Send(attempt):
                    self._send(attempt)
                case Cancel(attempt):
                    attempt.cancel()
                case _:
                    self._answer(command)

    def _answer(self, command: Command) -> None:
        match command:
            case Begin(attempt, head):
                self.answered(head.status)
                self.exchange.start(head.status, self._headers(attempt, head))
            case Forward(data):
                self.exchange.write(data)
            case Finish(code):
                self.exchange.finish()
                if self.exchange.gone:  # it was shorter than announced
                    code = UnusableAnswer.code
                if code:
                    self.cut(code)
            case Abort(code):
                self.cut(code)
                self.exchange.abort()
            case GiveUp():
                self.gave_up = command

    def _break_off(self) -> None:
        """Called while an exception is handled: end every attempt, and the answer."""
        _log.exception("request %s broke off", self.query.request_id)
        for command in self._machine.on(ClientGone()):
            if isinstance(command, Settle):
                self._settle(command)
        for attempt in self._machine.attempts:
            attempt.cancel()
        self.gave_up = None
        if not self.exchange.gone:
            self.cut(IsochroneError.code)
            self.exchange.abort()

    def _end(self) -> None:
        """The machine is done. Calls that come later, from within the end, change nothing."""
        runner = self._runner
        if not runner.running.clear(self):
            return
        if runner.spare.hedge_budget is not None:
            runner.hedging.clear(self)
        if self.gave_up is not None or len(self._machine.attempts) > 1:
            self._learn_refusals()
        self._ended(self, self.gave_up)

    def _learn_refusals(self) -> None:
        for attempt, error in self._machine.refusals():
            lease = attempt.lease
            if lease is not None and not isinstance(error, Quarantined):
                why = error.reasons.get(lease.site.endpoint.name, "")
                self._runner.ledger.refused(lease, error, why)
        for attempt in self._machine.attempts:
            attempt.cancel()  # the rest of an answer that was of no use

    def _client_gone(self) -> None:
        self.client_left()
        self.tell(ClientGone())

    def _pause(self) -> None:
        for attempt in self._machine.attempts:
            if attempt.call is not None:
                attempt.call.pause()

    def _resume(self) -> None:
        for attempt in self._machine.attempts:
            if attempt.call is not None:
                attempt.call.resume()

    # Which endpoint is next.

    def _choose(self, wanted: Choose) -> Next:
        scored = self._best_untried()
        if scored is None:
            return Next(None)
        spare, now_s = self._runner.spare, self._runner.clock()
        if wanted.hedge:
            if not spare.hedge(self.query, scored, now_s):
                return Next(None)
            self.hedges += 1
        self._next = scored
        return Next(scored, not wanted.needs_leave or self._may_repeat())

    def _best_untried(self) -> Scored | None:
        runner = self._runner
        query = structs.replace(self.query, now_s=runner.clock())
        tried = self.excluded.union(attempt.endpoint for attempt in self._machine.attempts)
        order = runner.chooser.best(query, tried).order
        return order[0] if order else None

    def _may_repeat(self) -> bool:
        """There is leave for one more attempt after one that may have run.

        After a trial that had a healthy endpoint beside it, always: that trial was this router's
        choice, and there is one at a time.
        """
        if self._was_trial and self._next.candidate.held is None and self.query.repeatable:
            return True
        return self._runner.spare.repeat(self, self._runner.clock())

    def _may_move(self) -> bool:
        """Another endpoint can take what may have run already, and there is leave for that."""
        runner = self._runner
        may = self.query.repeatable and runner.spare.retries.left(runner.clock()) >= 1
        return may and self._best_untried() is not None

    # One attempt, as its endpoint and the ledger see it.

    def _send(self, attempt: Attempt) -> None:
        runner, query, scored = self._runner, self.query, attempt.scored
        endpoint, now_s = scored.permit.endpoint, runner.clock()
        attempt.why = "hedge" if attempt.hedge else self._why
        lease = runner.ledger.sent(
            endpoint, query.model, scored.candidate.version, now_s, query.body_bytes
        )
        if lease is None:
            self._hear(attempt, (Lost(Cause.REFUSED, "it has left"),))
            return
        attempt.lease = lease
        self._was_trial = lease.trial
        number = self._first_number + len(self._machine.attempts) - 1
        attempt.call = runner.upstream(endpoint).send(
            self._request(endpoint, lease, number, query.deadline_s - now_s),
            partial(self._hear, attempt),
            once=not query.repeatable,
            again=self._may_repeat,
        )
        if not number:  # an attempt that is refused earns no second one
            runner.spare.requested(now_s)
        spare = runner.spare
        if spare.hedge_budget is not None and not attempt.hedge and spare.hedges(query):
            runner.hedging.clear(self)
            runner.hedging.set(self, now_s + runner.spare.late_after_s(scored.seconds))

    def _request(
        self, endpoint: Endpoint, lease: Lease, number: int, remaining_s: float
    ) -> Request:
        request, runner = self.exchange.request, self._runner
        headers = upstream_headers(
            request.headers,
            self.query,
            endpoint.region,
            remaining_s=remaining_s,
            number=number,
            sequence=b"%s=%d" % (runner.sender, lease.sequence),
            client=runner.client_address(request.peer, request.headers),
        )
        method = (
            "GET" if request.method == "HEAD" else request.method
        )  # not every server takes HEAD
        return Request(method, request.path, headers, request.body, query=request.query)

    def _take_in_head(self, head: Head, attempt: Attempt, now_s: float) -> None:
        runner, lease = self._runner, attempt.lease
        attempt.status = head.status
        value = first(head.headers, LOAD_HEADER)
        report = decode_call_report(value) if value is not None else None
        if report is not None:
            endpoint = attempt.scored.permit.endpoint
            # a report that names another endpoint or another region is not from this one
            if report.name in ("", endpoint.name) and report.region in ("", endpoint.region):
                attempt.report = report
        attempt.succeeded = head.status < 300 and self.query.action in _RUNS_THE_MODEL
        if head.status >= 300:
            attempt.retry_after_s = retry_after_s(head.headers, runner.wall)
        if lease is not None and lease.open:
            attempt.first_byte_s = now_s - lease.sent_s
            runner.ledger.answered(lease, attempt.report, now_s, worked=attempt.succeeded)

    def _settle(self, settle: Settle) -> None:
        attempt, outcome = settle.attempt, settle.outcome
        attempt.result = outcome
        attempt.outcome = settle.why or outcome
        if attempt.lease is not None:
            self._close(attempt, attempt.lease, settle)
        if outcome is not Outcome.ANSWERED:
            self._why = f"fallback_{outcome}"
            if outcome not in _STILL_OF_USE:
                self.excluded |= {attempt.endpoint}
                self.crashed += outcome is Outcome.CRASHED
        self.add(attempt)

    def add(self, attempt: Attempt) -> None:
        """One more attempt has ended."""
        self.attempts_count += 1
        self.attempts.append(attempt)
        if len(self.attempts) > ATTEMPTS_KEPT:
            first_kept = self.attempts.pop(0)
            key = first_kept.endpoint, first_kept.why
            self.beyond[key] = self.beyond.get(key, 0) + 1

    def _close(self, attempt: Attempt, lease: Lease, settle: Settle) -> None:
        ledger, now_s = self._runner.ledger, self._runner.clock()
        attempt.seconds = now_s - lease.sent_s
        worked = attempt.succeeded and attempt.has_body and settle.outcome is Outcome.ANSWERED
        if worked and attempt.first_byte_s is not None and not lease.site.endpoint.reports:
            ledger.timed(lease, attempt.first_byte_s, now_s)
        ledger.close(lease, settle.outcome, now_s, settle.retry_after_s)
        if settle.outcome is Outcome.UNABLE and self.query.action == "infer":
            of_inputs = attempt.status == HTTPStatus.INSUFFICIENT_STORAGE and _is_known_warm(lease)
            if not of_inputs:
                ledger.lacks(lease, now_s)

    # What the client gets.

    def _deliver(self, deliver: Deliver) -> None:
        head, body = deliver.head, deliver.body
        if head.status >= 400:
            head, body = readable_refusal(head, body)
        self.status = self.sent = head.status
        self.exchange.respond(head.status, self._headers(deliver.attempt, head), body)

    def _headers(self, attempt: Attempt, head: Head) -> list[tuple[bytes, bytes]]:
        request = self.exchange.request
        now_s = self._runner.clock()
        route_s = max(0.0, self.query.now_s - request.received_s) + self.waited_s
        fields = downstream_headers(
            head,
            self.query.request_id,
            attempt.scored.permit.endpoint,
            reason=attempt.why,
            tries=self._first_number + len(self._machine.attempts),
            total_s=now_s - request.received_s,
            route_s=route_s,
            report=attempt.report,
        )
        if self.query.explain and request.header(EXPLAIN) == b"1":
            fields.append((EXPLAIN, explanation(self.told)))
        return fields


def _is_known_warm(lease: Lease) -> bool:
    """Its report says so: a refusal for want of room is then about the inputs, not the model."""
    holding = lease.holding
    return lease.site.endpoint.reports and holding is not None and holding.state is ModelState.WARM
