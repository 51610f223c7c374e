"""The one way of a request from its query to its end: quota, deadline, choice, line, tries.

The server and the simulator run the same object: it does no I/O of its own, and sees a client as an
`Exchange` and an endpoint as an `Upstream`. Every request ends in exactly one counted record.

Where nobody can take a request now but somebody lawful may soon, it waits in line, until an
endpoint has room or its deadline has passed; who comes later does not overtake those of its class
who wait for the same model. A run that found everybody full waits as well, and then begins anew.
"""

import logging
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
    Prospect,
    is_one_full,
    lane_of,
    least_s,
    may_wait,
    sigmas_of,
    soonest_s,
    surest,
    too_late,
    within,
)
from router.dispatch.record import Record
from router.dispatch.run import Asked
from router.dispatch.runner import Runner
from router.dispatch.turns import Turns
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
from router.policy.pick import Scored
from router.policy.policy import Plan
from router.policy.query import Query
from router.policy.scores import seconds
from router.process.clock import Clock
from router.process.exchange import Exchange
from router.wire.report import ModelState

LOOK_S = 1.0
"""How often the size of the fleet is looked at."""

_log = logging.getLogger("isochrone.router")

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
        self._turns = Turns(gate, self._plan, self._begin)

    def dispatch(self, exchange: Exchange, query: Query) -> None:
        """See one request to its end; returns at once."""
        now_s = query.now_s
        plan = Plan(query=query, order=(), rejected=(), elsewhere=0)
        record = Record(query, plan, self._ledger.generation, now_s)
        asked = Asked(exchange, query, record)
        error = self._turned_away(query, now_s)
        if error is not None:
            self._refuse(asked, error)
        elif self._must_wait(query, now_s):
            self._join(asked, now_s)
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
        self._turns.sweep(now_s)

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
        """Somebody of the same class or a higher one waits for the same model."""
        if not self.gate.waiting:
            return False
        first = self.gate.peek(query.model, now_s)
        return first is not None and first.band <= query.priority

    def _join(self, asked: Asked, now_s: float) -> None:
        """Wait behind others; whose lane has nobody else may be able to start at once."""
        model = asked.query.model
        alone = not self.gate.queued(model, lane_of(asked.query))
        self._wait(asked, now_s)
        if alone:
            self._turns.freed([model], now_s)

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
        if asked.query.explain:
            return self._survey(asked, now_s)
        query = asked.query
        if now_s != query.now_s:
            query = structs.replace(query, now_s=now_s)
        plan = asked.record.plan = self._chooser.best(query, asked.refused)
        return plan

    def _survey(self, asked: Asked, now_s: float) -> Plan:
        """A plan with everybody's reason; who has refused the request is not in its order."""
        plan = self._chooser.survey(structs.replace(asked.query, now_s=now_s))
        if asked.refused:
            order = [s for s in plan.order if s.permit.endpoint.name not in asked.refused]
            plan = structs.replace(plan, order=order)
        asked.record.plan = plan
        return plan

    def _admit(self, asked: Asked, plan: Plan, now_s: float) -> None:
        """Start it, unless nobody can make its deadline."""
        query, best = asked.query, plan.order[0]
        sigmas = sigmas_of(query.priority)
        left_s = query.deadline_s - now_s
        if best.seconds.total + sigmas * best.seconds.sigma > left_s:
            plan = self._survey(asked, now_s)
            best = surest(plan.order, sigmas) if plan.order else best
            plan = structs.replace(plan, order=(best,))
        if best.seconds.total + sigmas * best.seconds.sigma > left_s:
            self._turn_away(asked, best, left_s)
            return
        self._wake(plan)
        self._runner.run(asked, plan, self._ran)

    def _ran(self, asked: Asked, error: IsochroneError | None) -> None:
        """A run has ended: somebody who waits may have its place."""
        now_s = self._clock()
        if error is None:
            self._finish(asked, now_s)
        elif now_s < asked.query.deadline_s and isinstance(error, Overloaded):
            self._wait(asked, now_s)
        elif isinstance(error, NoEndpoint):
            self._unreached(asked, error, now_s)
        else:
            self._refuse(asked, error)
        if self.gate.waiting:
            self._turns.freed(self._freed(asked, now_s), now_s)

    def _unreached(self, asked: Asked, error: NoEndpoint, now_s: float) -> None:
        """Whoever was asked refused the connection; it waits where another is only full."""
        plan = self._survey(asked, now_s)
        if is_one_full(plan) and now_s < asked.query.deadline_s:
            self._wait(asked, now_s)
            return
        error.reasons = {**reasons(plan), **error.reasons}
        error.retry_after_s = soonest_s(plan)
        self._refuse(asked, error)

    def _freed(self, asked: Asked, now_s: float) -> list[str]:
        """The models for which somebody waits and that the endpoints of a run hold."""
        sites = map(self._ledger.site, {tried.endpoint for tried in asked.record.tried})
        held = {model for site in sites if site is not None for model, _ in site.holdings}
        return [model for model in self.gate.models(now_s) if model in held]

    # The line.

    def _wait(self, asked: Asked, now_s: float) -> None:
        query, lane = asked.query, lane_of(asked.query)
        prospect = self._outlook.of(query, now_s)
        if not prospect.slots:
            self._refuse(asked, self._nobody(asked, now_s))
            return
        wait_s = self._room_s(query, prospect)
        needs, left_s = (
            prospect.seconds(structs.replace(query, now_s=now_s)),
            query.deadline_s - now_s,
        )
        if wait_s + needs.total > left_s:
            self._refuse(asked, too_late(wait_s + needs.total, least_s(needs), left_s))
            return
        asked.exchange.watch(gone=partial(self._left, asked))
        asked.waits_from_s = now_s
        asked.ticket = self.gate.offer(
            query.model,
            lane,
            tenant=query.tenant,
            priority=query.priority,
            now_s=now_s,
            deadline_s=query.deadline_s,
            cost_s=prospect.cost_s,
            item=asked,
            settled=partial(self._waited, asked),
            again=asked.ticket,
        )
        if asked.ticket is None:
            full = "too many wait for the endpoints that may serve this"
            self._refuse(asked, Overloaded(full, retry_after_s=max(wait_s, prospect.cost_s)))

    def _begin(self, asked: Asked, plan: Plan, now_s: float) -> None:
        """Its turn has come."""
        if plan.order:
            self._admit(asked, plan, now_s)
        else:
            self._refuse(asked, self._nobody(asked, now_s))

    def _waited(self, asked: Asked, outcome: Outcome) -> None:
        """Waiting has ended; whoever was started is seen to by who started it."""
        now_s = self._clock()
        asked.record.waited_s += now_s - asked.waits_from_s
        match outcome:
            case Outcome.STARTED:
                pass
            case Outcome.EXPIRED:
                self._refuse(asked, DeadlineExceeded("the deadline passed before there was room"))
            case Outcome.SHED:
                shed = "a more urgent request has taken the place in line"
                room_s = self._room_s(asked.query, self._outlook.of(asked.query, now_s))
                self._refuse(asked, Overloaded(shed, retry_after_s=room_s))
            case Outcome.WITHDRAWN:
                self._finish(asked, now_s)

    def _left(self, asked: Asked) -> None:
        if asked.ticket is not None:
            self.gate.leave(asked.ticket)

    def _room_s(self, query: Query, prospect: Prospect) -> float:
        """In how long there should be room for a request like this one."""
        return self.gate.wait_s(
            query.model,
            lane_of(query),
            tenant=query.tenant,
            priority=query.priority,
            slots=max(1, prospect.slots),
        )

    # Its end.

    def _turn_away(self, asked: Asked, best: Scored, left_s: float) -> None:
        """Nobody is sure enough to make its deadline; some might, without a queue or when warm."""
        plan = asked.record.plan
        sigmas = sigmas_of(asked.query.priority)
        able = within(plan.order, left_s)
        if able:
            best = surest(able, sigmas)
            self._warm(best, plan.query)
        needs_s = best.seconds.total + sigmas * best.seconds.sigma
        self._refuse(asked, too_late(needs_s, least_s(best.seconds), left_s))

    def _nobody(self, asked: Asked, now_s: float) -> NoEndpoint:
        query = asked.query
        plan = self._survey(asked, now_s)
        return NoEndpoint(
            f"no endpoint may and can serve {query.model} now (required: {query.requirement})",
            retry_after_s=soonest_s(plan),
            reasons=reasons(plan),
        )

    def _refuse(self, asked: Asked, error: IsochroneError) -> None:
        record = asked.record
        record.code = error.code
        request_id = asked.query.request_id
        try:
            record.status = self._effects.refuse(asked.exchange, request_id, error, record.plan)
        except Exception:  # whoever else waits or runs has no part in it
            _log.exception("request %s cannot be refused", request_id)
            record.code = IsochroneError.code
            asked.exchange.abort()
        self._finish(asked, self._clock())

    def _finish(self, asked: Asked, now_s: float) -> None:
        record = asked.record
        record.seconds = now_s - record.asked_s
        infer_s = sum(t.report.infer_s for t in record.tried if t.report is not None)
        if asked.ticket is not None and infer_s > 0:
            self.gate.correct(asked.ticket, infer_s)
        try:
            self._effects.ended(record)
        except Exception:  # a listener's fault must not end the sweep that others wait for
            _log.exception("the end of request %s cannot be told", record.query.request_id)

    def _wake(self, plan: Plan) -> None:
        if plan.wake is None or not plan.query.action:
            return
        query, cold = plan.query, self._chooser.holder(plan.query, plan.wake.endpoint.name)
        if cold is None:
            return
        needs = seconds(query, cold)
        sooner_s = plan.order[0].seconds.total - (needs.total - needs.cold)
        if self._ledger.missed(cold.endpoint, query.model, cold.version, sooner_s):
            self._effects.wake(plan.wake, query.model, cold.version)

    def _warm(self, best: Scored, query: Query) -> None:
        """Too late for this one; the next will find the model warm."""
        if best.candidate.state is ModelState.COLD and not best.candidate.woken:
            self._effects.wake(best.permit, query.model, best.candidate.version)
