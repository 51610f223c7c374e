"""The one way of a request from its query to its end: quota, deadline, choice, line, tries.

The server and the simulator run the same object: it does no I/O of its own, and sees a client as an
`Exchange` and an endpoint as an `Upstream`. Every request ends in exactly one counted record.

Where nobody can take a request now but somebody lawful may soon, it waits in line, until an
endpoint has room or its deadline has passed; who comes later does not overtake those of its class.
A run that found everybody full waits as well, and then begins anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from msgspec import structs

from router.admission.gate import Gate
from router.admission.quota import Quotas
from router.admission.ticket import Outcome
from router.dispatch.chooser import Chooser
from router.dispatch.outlook import (
    Lane,
    Outlook,
    lane_of,
    may_wait,
    sigmas_of,
    soonest_s,
    surest,
    too_late,
)
from router.dispatch.record import Record
from router.dispatch.run import Asked
from router.dispatch.runner import Runner
from router.errors import (
    DeadlineExceeded,
    IsochroneError,
    NoEndpoint,
    Overloaded,
    QuotaExceeded,
)
from router.fleet.ledger import Ledger
from router.policy.explain import reasons
from router.policy.law import Permit
from router.policy.policy import Plan
from router.policy.query import Query
from router.process.clock import Clock
from router.process.exchange import Exchange
from router.wire.report import ModelState

LANES_COUNT = 4
"""In how many lanes somebody is looked for when a place becomes free."""
LOOK_S = 1.0
"""How often the size of the fleet is looked at."""

Refuse = Callable[[Exchange, str, IsochroneError, Plan], int]
"""Answers a client, by request id, with an error; returns the status."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a dispatcher does to the world besides asking endpoints.

    `ended` is told of every request exactly once; `wake` has an endpoint load a model's version.
    """

    refuse: Refuse
    ended: Callable[[Record], None]
    wake: Callable[[Permit, str, str], None]


class Dispatcher:
    """Takes requests and sees each to its end. At most `in_flight` run and wait at once.

    `dispatch` is called for every request, `sweep` every few milliseconds.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        chooser: Chooser,
        runner: Runner,
        gate: Gate[Lane, Asked],
        quotas: Quotas,
        effects: Effects,
        clock: Clock,
        in_flight: int,
    ) -> None:
        self.gate = gate
        self._ledger = ledger
        self._chooser = chooser
        self._runner = runner
        self._quotas = quotas
        self._effects = effects
        self._clock = clock
        self._in_flight = in_flight
        self._outlook = Outlook(chooser)
        self._look_s = 0.0
        self._serving = False

    def dispatch(self, exchange: Exchange, query: Query) -> None:
        """See one request to its end; returns at once."""
        now_s = query.now_s
        plan = Plan(query=query, order=(), rejected=(), elsewhere=0)
        record = Record(query, plan, self._ledger.generation, now_s)
        asked = Asked(exchange, query, record)
        self._runner.spare.requested(now_s)
        error = self._turned_away(query, now_s)
        if error is not None:
            self._refuse(asked, error)
        elif self._must_wait(query, now_s):
            self._wait(asked, now_s)
        else:
            self._decide(asked, now_s)

    def sweep(self, now_s: float) -> None:
        """Look at everything that happens because time passes."""
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            slots = sum(site.slots for site in self._ledger.sites())
            self._runner.spare.retries.resize(slots)
        self._runner.sweep(now_s)
        self.gate.expire(now_s)
        self._serve(now_s)

    def _turned_away(self, query: Query, now_s: float) -> IsochroneError | None:
        if len(self._runner.running) + self.gate.waiting >= self._in_flight:
            return Overloaded("this router is full", retry_after_s=1.0)
        wait_s = self._quotas.take(query.tenant, now_s)
        if wait_s > 0:
            return QuotaExceeded(
                f"tenant {query.tenant} has used up its quota", retry_after_s=wait_s
            )
        return None

    def _must_wait(self, query: Query, now_s: float) -> bool:
        """Somebody of the same class or a higher one waits for the same endpoints."""
        if not self.gate.waiting:
            return False
        first = self.gate.peek(lane_of(query), now_s)
        return first is not None and first.band <= query.priority

    # A decision, now or when its turn in line has come.

    def _decide(self, asked: Asked, now_s: float) -> None:
        plan = self._plan(asked, now_s)
        if plan.order:
            self._admit(asked, plan, now_s)
        elif may_wait(plan):
            self._wait(asked, now_s)
        else:
            self._refuse(asked, self._nobody(asked, now_s))

    def _plan(self, asked: Asked, now_s: float) -> Plan:
        query = asked.query
        if now_s != query.now_s:
            query = structs.replace(query, now_s=now_s)
        plan = self._chooser.survey(query) if query.explain else self._chooser.best(query)
        asked.record.plan = plan
        return plan

    def _admit(self, asked: Asked, plan: Plan, now_s: float) -> None:
        """Start it, unless nobody can make its deadline."""
        query, best = asked.query, plan.order[0]
        sigmas = sigmas_of(query.priority)
        left_s = query.deadline_s - now_s
        if best.seconds.total + sigmas * best.seconds.sigma > left_s:
            plan = asked.record.plan = self._chooser.survey(plan.query)
            best = surest(plan.order, sigmas) if plan.order else best
            plan = structs.replace(plan, order=(best,))
        needs_s = best.seconds.total + sigmas * best.seconds.sigma
        if needs_s > left_s:
            self._warm(plan)
            self._refuse(asked, too_late(needs_s, left_s))
            return
        self._wake(plan)
        self._runner.run(asked, plan, self._ran)

    def _ran(self, asked: Asked, error: IsochroneError | None) -> None:
        """A run has ended: somebody who waits may have its place."""
        now_s = self._clock()
        if isinstance(error, Overloaded) and now_s < asked.query.deadline_s:
            self._wait(asked, now_s)
        elif isinstance(error, NoEndpoint):
            plan = asked.record.plan = self._chooser.survey(
                structs.replace(asked.query, now_s=now_s)
            )
            error.reasons = {**reasons(plan), **error.reasons}
            error.retry_after_s = soonest_s(plan)
            self._refuse(asked, error)
        elif error is not None:
            self._refuse(asked, error)
        else:
            self._finish(asked, now_s)
        self._serve_one(now_s)

    # The line.

    def _wait(self, asked: Asked, now_s: float) -> None:
        query, lane = asked.query, lane_of(asked.query)
        prospect = self._outlook.of(query, now_s)
        if not prospect.slots:
            self._refuse(asked, self._nobody(asked, now_s))
            return
        wait_s = self.gate.wait_s(
            lane, tenant=query.tenant, priority=query.priority, slots=prospect.slots
        )
        left_s = query.deadline_s - now_s
        if wait_s + prospect.needs_s > left_s:
            self._refuse(asked, too_late(wait_s + prospect.needs_s, left_s))
            return
        asked.exchange.watch(gone=partial(self._left, asked))
        asked.ticket = self.gate.offer(
            lane,
            tenant=query.tenant,
            priority=query.priority,
            now_s=now_s,
            deadline_s=query.deadline_s,
            cost_s=prospect.cost_s,
            item=asked,
            settled=partial(self._waited, asked),
        )
        if asked.ticket is None:
            full = "too many wait for the endpoints that may serve this"
            self._refuse(asked, Overloaded(full, retry_after_s=max(wait_s, prospect.cost_s)))

    def _serve(self, now_s: float) -> None:
        """Start everybody whose turn it is and whom somebody can take."""
        for lane in self._lanes(now_s):
            while self._serve_first(lane, now_s):
                pass

    def _serve_one(self, now_s: float) -> None:
        """One place has become free; the next sweep looks for more."""
        for lane in self._lanes(now_s)[:LANES_COUNT]:
            if self._serve_first(lane, now_s):
                return

    def _lanes(self, now_s: float) -> list[Lane]:
        """Where somebody waits; nowhere while that is being seen to already."""
        return self.gate.lanes(now_s) if self.gate.waiting and not self._serving else []

    def _serve_first(self, lane: Lane, now_s: float) -> bool:
        """Decide for the first of a lane; False: it has to wait on."""
        ticket = self.gate.peek(lane, now_s)
        if ticket is None:
            return False
        plan = self._plan(ticket.item, now_s)
        if not plan.order and may_wait(plan):
            return False
        self._serving = True
        try:
            self.gate.start(lane, now_s)
            if plan.order:
                self._admit(ticket.item, plan, now_s)
            else:
                self._refuse(ticket.item, self._nobody(ticket.item, now_s))
        finally:
            self._serving = False
        return True

    def _waited(self, asked: Asked, outcome: Outcome) -> None:
        """Waiting has ended; whoever was started is seen to by who started it."""
        now_s = self._clock()
        if asked.ticket is not None:
            asked.record.waited_s += now_s - asked.ticket.joined_s
        match outcome:
            case Outcome.STARTED:
                pass
            case Outcome.EXPIRED:
                self._refuse(asked, DeadlineExceeded("the deadline passed before there was room"))
            case Outcome.SHED:
                shed = "a more urgent request has taken the place in line"
                self._refuse(asked, Overloaded(shed, retry_after_s=self._room_s(asked, now_s)))
            case Outcome.WITHDRAWN:
                self._finish(asked, now_s)

    def _left(self, asked: Asked) -> None:
        if asked.ticket is not None:
            self.gate.leave(asked.ticket)

    def _room_s(self, asked: Asked, now_s: float) -> float:
        """When there should be room for a request like this one."""
        query, lane = asked.query, lane_of(asked.query)
        slots = max(1, self._outlook.of(query, now_s).slots)
        return self.gate.wait_s(lane, tenant=query.tenant, priority=query.priority, slots=slots)

    # Its end.

    def _nobody(self, asked: Asked, now_s: float) -> NoEndpoint:
        query = asked.query
        plan = asked.record.plan = self._chooser.survey(structs.replace(query, now_s=now_s))
        return NoEndpoint(
            f"no endpoint may and can serve {query.model} now (required: {query.requirement})",
            retry_after_s=soonest_s(plan),
            reasons=reasons(plan),
        )

    def _refuse(self, asked: Asked, error: IsochroneError) -> None:
        record = asked.record
        record.code = error.code
        request_id = asked.query.request_id
        record.status = self._effects.refuse(asked.exchange, request_id, error, record.plan)
        self._finish(asked, self._clock())

    def _finish(self, asked: Asked, now_s: float) -> None:
        record = asked.record
        record.seconds = now_s - record.asked_s
        infer_s = sum(t.report.infer_s for t in record.tried if t.report is not None)
        if asked.ticket is not None and infer_s > 0:
            self.gate.correct(asked.ticket, infer_s)
        self._effects.ended(record)

    def _wake(self, plan: Plan) -> None:
        if plan.wake is not None and plan.query.action:
            candidate = self._chooser.holder(plan.query, plan.wake.endpoint.name)
            if candidate is not None:
                self._effects.wake(plan.wake, plan.query.model, candidate.version)

    def _warm(self, plan: Plan) -> None:
        """Too late for this one; the next will find the model warm."""
        best = plan.order[0]
        if best.candidate.state is ModelState.COLD and not best.candidate.woken:
            self._effects.wake(best.permit, plan.query.model, best.candidate.version)
