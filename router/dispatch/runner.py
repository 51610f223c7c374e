"""The I/O shell around `Attempt`: it does what the machine says and tells it what happened.

Everything runs in protocol callbacks: on the way of an ordinary request there is no task, no timer
and no await. Deadlines are seen by one coarse sweep.
"""

import logging
from collections.abc import Callable

from router.dispatch.attempt import (
    Abort,
    Attempt,
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
from router.dispatch.event import Cause, ClientGone, End, Event, Head, Lost, Timer
from router.dispatch.record import Record, Tried
from router.dispatch.rewrite import (
    downstream_headers,
    readable_refusal,
    server_timing,
    upstream_headers,
)
from router.dispatch.upstream import Call, Upstream
from router.errors import IsochroneError
from router.fleet.endpoint import Endpoint
from router.fleet.ledger import Lease, Ledger, Outcome
from router.policy.explain import explanation
from router.policy.policy import Plan
from router.process.clock import Clock
from router.process.exchange import Exchange
from router.wire.headers import EXPLAIN
from router.wire.http import Request, first
from router.wire.report import LOAD_HEADER, CallReport, decode_call_report

_log = logging.getLogger("isochrone.router")


class Runner:
    """Carries plans out over real connections.

    `upstream` gives the way to an endpoint, `refuse` answers a client with an error and says with
    which status, `ended` is told of every request exactly once.
    """

    def __init__(
        self,
        *,
        sender: str,
        ledger: Ledger,
        upstream: Callable[[Endpoint], Upstream],
        refuse: Callable[[Exchange, str, IsochroneError, Plan], int],
        ended: Callable[[Record], None],
        clock: Clock,
        most_tries: int,
    ) -> None:
        self.sender = sender.encode()
        self.ledger = ledger
        self.upstream = upstream
        self.refuse = refuse
        self.ended = ended
        self.clock = clock
        self.most_tries = most_tries
        self.running: set[_Run] = set()

    def run(self, exchange: Exchange, plan: Plan) -> None:
        """Carry a plan out, to exactly one end."""
        run = _Run(self, exchange, plan)
        self.running.add(run)
        run.begin()

    def sweep(self, now_s: float) -> None:
        """End what has outlived its deadline."""
        for run in [r for r in self.running if r.plan.query.deadline_s <= now_s]:
            run.tell(Timer())

    def condemn(self, name: str, why: str) -> None:
        """An endpoint was found dead: whoever waits there is to look elsewhere."""
        for run in list(self.running):
            run.lose(name, why)


class _Run:
    """One request under way."""

    __slots__ = (
        "attempt",
        "calls",
        "cause",
        "exchange",
        "leases",
        "plan",
        "record",
        "reports",
        "runner",
    )

    def __init__(self, runner: Runner, exchange: Exchange, plan: Plan) -> None:
        self.runner = runner
        self.exchange = exchange
        self.plan = plan
        self.attempt = Attempt([s.permit for s in plan.order], most=runner.most_tries)
        self.calls: list[Call | None] = []
        self.leases: list[Lease | None] = []
        self.reports: list[CallReport | None] = []
        self.cause = plan.why
        self.record = Record(plan, runner.ledger.generation, plan.query.now_s)

    def begin(self) -> None:
        self.exchange.watch(gone=self._client_gone, pause=self._pause, resume=self._resume)
        self._guarded(self._start)

    def tell(self, event: Event, number: int = -1) -> None:
        self._guarded(self._advance, event, number)

    def lose(self, name: str, why: str) -> None:
        number = len(self.calls) - 1
        call = self.calls[number] if self.calls else None
        if call is not None and self.plan.order[number].permit.endpoint.name == name:
            call.cancel()
            self.tell(Lost(Cause.TIMEOUT, why), number)

    def _guarded(self, act: Callable[..., None], *arguments: object) -> None:
        """Whatever goes wrong in a callback, the request comes to its one end."""
        try:
            act(*arguments)
        except Exception:  # a mistake of ours, or an answer that cannot be passed on
            _log.exception("request %s broke off", self.plan.query.request_id)
            self._break_off()
        if self.attempt.done and self in self.runner.running:
            self._end()

    def _start(self) -> None:
        self._obey(self.attempt.start())

    def _advance(self, event: Event, number: int) -> None:
        if isinstance(event, Head):
            self._learn(event, number)
        elif isinstance(event, End | Lost):
            self.calls[number] = None
        self._obey(self.attempt.on(event, number))

    def _obey(self, commands: list[Command]) -> None:
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
            case Abort(why):
                self.record.code = why
                self.exchange.abort()
            case GiveUp(error):
                self.record.code = error.code
                request_id = self.plan.query.request_id
                status = self.runner.refuse(self.exchange, request_id, error, self.plan)
                self.record.status = status

    def _end(self) -> None:
        self.runner.running.discard(self)
        for number in range(len(self.calls)):
            self._cancel(number)  # the rest of an answer that was of no use
        self.record.seconds = self.runner.clock() - self.record.asked_s
        self.runner.ended(self.record)

    def _send(self, send: Send) -> None:
        runner, query = self.runner, self.plan.query
        scored = self.plan.order[send.number]
        endpoint = send.permit.endpoint
        now_s = runner.clock()
        lease = runner.ledger.sent(endpoint, query.model, scored.candidate.version, now_s)
        self.leases.append(lease)
        self.reports.append(None)
        self.calls.append(None)
        if lease is None:
            self.tell(Lost(Cause.REFUSED, "it has left"), send.number)
            return
        asked = self.exchange.request
        headers = upstream_headers(
            asked.headers,
            query,
            remaining_s=query.deadline_s - now_s,
            number=send.number,
            sequence=b"%s=%d" % (runner.sender, lease.sequence),
        )
        target = Request(asked.method, asked.path, headers, asked.body, query=asked.query)
        number = send.number
        call = runner.upstream(endpoint).send(target, lambda event: self.tell(event, number))
        self.calls[number] = call

    def _learn(self, head: Head, number: int) -> None:
        """What the head of an answer says of its endpoint."""
        lease = self.leases[number]
        value = first(head.headers, LOAD_HEADER)
        report = decode_call_report(value) if value is not None else None
        self.reports[number] = report
        if lease is not None and lease.open:
            self.runner.ledger.answered(lease, report, self.runner.clock())

    def _settle(self, settle: Settle) -> None:
        now_s = self.runner.clock()
        lease = self.leases[settle.number]
        if lease is not None:
            self.runner.ledger.close(lease, settle.outcome, now_s)
            if settle.outcome is Outcome.UNABLE and self.plan.query.action == "infer":
                self.runner.ledger.lacks(lease, now_s)
        sent_s = lease.sent_s if lease is not None else now_s
        endpoint = self.plan.order[settle.number].permit.endpoint.name
        outcome = settle.why or settle.outcome.value
        self.record.tried.append(Tried(endpoint, self.cause, outcome, now_s - sent_s))
        if settle.outcome.is_setback:
            self.cause = f"fallback_{settle.outcome.value}"

    def _deliver(self, deliver: Deliver) -> None:
        head, body = readable_refusal(deliver.head, deliver.body)
        self.record.status = head.status
        headers = self._headers(deliver.number, head)
        self.exchange.respond(head.status, headers, body)

    def _headers(self, number: int, head: Head) -> list[tuple[bytes, bytes]]:
        query = self.plan.query
        now_s = self.runner.clock()
        route_s = max(0.0, query.now_s - self.exchange.request.received_s)
        total_s = now_s - self.exchange.request.received_s
        fields = downstream_headers(
            head,
            query.request_id,
            self.plan.order[number].permit.endpoint,
            reason=self.cause,
            tries=number + 1,
            timing=server_timing(total_s, route_s, self.reports[number]),
        )
        if self.exchange.request.header(EXPLAIN) == b"1":
            fields.append((EXPLAIN, explanation(self.plan)))
        return fields

    def _cancel(self, number: int) -> None:
        call = self.calls[number] if 0 <= number < len(self.calls) else None
        if call is not None:
            call.cancel()

    def _client_gone(self) -> None:
        self.tell(ClientGone())

    def _pause(self) -> None:
        for call in self.calls:
            if call is not None:
                call.pause()

    def _resume(self) -> None:
        for call in self.calls:
            if call is not None:
                call.resume()
