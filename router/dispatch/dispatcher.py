"""The one way of a request from its query to its end: quota, deadline, choice, line, tries.

The server and the simulator run the same object: it does no I/O of its own, and sees a client as an
`Exchange` and an endpoint as an `Upstream`. Every request ends in exactly one counted record.

Where nobody can take a request now but somebody lawful may soon, it waits in line, until an
endpoint has room or its deadline has passed. So does a run that has found everybody full, or of no
use but one that is full; it then begins anew.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from isochrone.router.admission.gate import Gate
from isochrone.router.admission.quota import Quotas
from isochrone.router.dispatch.asked import Asked
from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.command import GiveUp
from isochrone.router.dispatch.outlook import (
    Outlook,
    is_one_full,
    least_s,
    may_wait,
    sigmas_of,
    soonest_s,
    surest,
    too_late,
    within,
)
from isochrone.router.dispatch.record import Record
from isochrone.router.dispatch.runner import Runner
from isochrone.router.dispatch.turns import Turns
from isochrone.router.dispatch.waiting import Waiting
from isochrone.router.errors import IsochroneError, NoEndpoint, Overloaded, QuotaExceeded
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.site import Site
from isochrone.router.http.exchange import Exchange
from isochrone.router.law.permit import Permit
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.policy import Plan
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import seconds
from isochrone.router.process.clock import Clock
from isochrone.router.wire.report import ModelState

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

    `dispatch` is called for every request, `sweep` every few milliseconds, `news` where an endpoint
    was heard of beside the requests.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        chooser: Chooser,
        runner: Runner,
        gate: Gate[Asked],
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
        self._waiting = Waiting(gate, self._outlook, clock, self._end)

    def dispatch(self, exchange: Exchange, query: Query) -> None:
        """See one request to its end; returns at once."""
        now_s = query.now_s
        plan = Plan(query=query, order=(), rejected=(), elsewhere=0)
        record = Record(query, plan, self._ledger.generation, now_s)
        asked = Asked(exchange, query, record)
        error = self._turned_away(query, now_s)
        if error is not None:
            self._refuse(asked, error)
        elif self._waiting.must(query, now_s):
            self._join(asked, now_s)
        else:
            self._decide(asked, now_s)

    @property
    def sweeps(self) -> dict[str, Callable[[float], None]]:
        """What happens because time passes, in this order; one part needs no other."""
        return {
            "the retry budget": self._look,
            "deadlines": self._runner.sweep,
            "the queue": self.gate.expire,
            "turns": self._turns.sweep,
        }

    def sweep(self, now_s: float) -> None:
        """Do all of `sweeps`."""
        for part in self.sweeps.values():
            part(now_s)

    def _look(self, now_s: float) -> None:
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            slots = sum(site.occupancy.slots for site in self._ledger.sites())
            self._runner.spare.resize(slots)

    def news(self, site: Site) -> None:
        """An endpoint was heard of: it may have room for somebody who waits."""
        if self.gate.waiting:
            self._turns.news(model for model, _ in site.holdings)

    def _turned_away(self, query: Query, now_s: float) -> IsochroneError | None:
        if len(self._runner.running) + self.gate.waiting >= self._in_flight:
            return Overloaded("this router is full", retry_after_s=1.0)
        wait_s = self._quotas.take(query.tenant, now_s)
        if wait_s > 0:
            return QuotaExceeded(
                f"tenant {query.tenant} has used up its quota", retry_after_s=wait_s
            )
        return None

    def _join(self, asked: Asked, now_s: float) -> None:
        """Wait behind others; whose lane has nobody else may be able to start at once."""
        model = asked.query.model
        alone = not self.gate.line(model, now_s).queued(asked.lane)
        self._wait(asked, now_s)
        if alone:
            self._turns.freed([model], now_s)

    def _wait(self, asked: Asked, now_s: float, before: IsochroneError | None = None) -> None:
        """Put it in line, or refuse it; `before` is why its last run came to nothing."""
        prospect = self._outlook.of(asked.query, asked.lane, now_s)
        if not prospect.slots:
            self._refuse(asked, self._nobody(self._plan(asked, now_s)))
            return
        error = self._waiting.join(asked, prospect, now_s)
        if error is None:
            return
        if before is not None:
            error.reasons = {**before.reasons, **error.reasons}
            if error.retry_after_s is not None and before.retry_after_s is not None:
                error.retry_after_s = max(error.retry_after_s, before.retry_after_s)
        self._refuse(asked, error)

    # A decision, now or when its turn in line has come.

    def _decide(self, asked: Asked, now_s: float) -> None:
        plan = self._plan(asked, now_s)
        if plan.order:
            self._admit(asked, plan, now_s)
        elif may_wait(plan, asked.useless) and self._refusal(plan.query) is None:
            self._wait(asked, now_s)
        else:
            self._refuse(asked, self._nobody(plan))

    def _plan(self, asked: Asked, now_s: float) -> Plan:
        """The decision; explained beside it, where that is asked for, which changes nothing."""
        query, record = asked.query, asked.record
        if now_s != query.now_s:
            query = structs.replace(query, now_s=now_s)
        plan = record.plan = self._chooser.best(query, asked.useless)
        self._explain(asked)
        return plan

    def _explain(self, asked: Asked) -> None:
        if asked.query.explain:
            asked.record.explained = self._chooser.explained(asked.record.plan, asked.useless)

    def _reasons(self, query: Query) -> Mapping[str, str]:
        """Why nobody can serve this: for whoever asks, or has a law that may be why."""
        if not query.explain and query.required_regions is None:
            return {}
        return self._chooser.reasons(query)

    def _admit(self, asked: Asked, plan: Plan, now_s: float) -> None:
        """Start it, unless nobody can make its deadline."""
        query, best = asked.query, plan.order[0]
        if not query.action:  # metadata: what a run or a load takes does not matter
            self._runner.run(asked, plan, self._ran)
            return
        sigmas = sigmas_of(query.priority)
        left_s = query.deadline_s - now_s
        if best.seconds.total + sigmas * best.seconds.sigma > left_s:
            quickest = self._chooser.quickest(plan.query, asked.useless)
            best = surest([*plan.order, *quickest], sigmas)
            plan = asked.record.plan = structs.replace(plan, order=(best,))
            self._explain(asked)
        if best.seconds.total + sigmas * best.seconds.sigma > left_s:
            self._turn_away(asked, quickest, best, left_s)
            return
        self._wake(plan)
        self._runner.run(asked, plan, self._ran)

    def _begin(self, asked: Asked, plan: Plan, now_s: float) -> None:
        """Its turn has come."""
        if plan.order:
            self._admit(asked, plan, now_s)
        else:
            self._refuse(asked, self._nobody(plan))

    def _ran(self, asked: Asked, gave_up: GiveUp | None) -> None:
        """A run has ended: somebody who waits may have its place."""
        now_s = self._clock()
        if gave_up is None:
            self._end(asked, None)
        elif self._may_wait_on(asked, gave_up, now_s):
            self._wait(asked, now_s, gave_up.error)
        else:
            self._refuse(asked, gave_up.error)
        if self.gate.waiting:
            self._turns.freed(self._freed(asked, now_s), now_s)

    def _may_wait_on(self, asked: Asked, gave_up: GiveUp, now_s: float) -> bool:
        """Everybody was full, or nobody but who is full is left to ask, and may be asked."""
        error, in_time = gave_up.error, now_s < asked.query.deadline_s
        if isinstance(error, Overloaded):
            return in_time and self._runner.spare.repeat_full(asked.record, now_s)
        if not (gave_up.stranded or isinstance(error, NoEndpoint)):
            return False
        plan = self._plan(asked, now_s)
        if isinstance(error, NoEndpoint):
            error.reasons = {**self._reasons(plan.query), **error.reasons}
            error.retry_after_s = soonest_s(plan)
        if not (in_time and is_one_full(plan, asked.useless)):
            return False
        return not gave_up.owing or self._runner.spare.repeat(asked.record, now_s)

    def _freed(self, asked: Asked, now_s: float) -> list[str]:
        """The models for which somebody waits and that the endpoints of a run hold."""
        sites = map(self._ledger.site, {tried.endpoint for tried in asked.record.tried})
        held = {model for site in sites if site is not None for model, _ in site.holdings}
        return [model for model in self.gate.models(now_s) if model in held]

    # Its end.

    def _turn_away(
        self, asked: Asked, quickest: Sequence[Scored], best: Scored, left_s: float
    ) -> None:
        """Nobody is sure enough to make its deadline; some might, without a queue or when warm.

        Whether what was expected of the surest is true, a sample will tell; of a cold model only
        once it is warm, so it is woken although its service, as expected, takes too long.
        """
        plan = asked.record.plan
        sigmas = sigmas_of(asked.query.priority)
        able = within(quickest, left_s)
        if able:
            best = surest(able, sigmas)
        cold = [s for s in able or [best] if s.candidate.state is ModelState.COLD]
        if cold and best.seconds.net < left_s:
            self._warm(min(cold, key=lambda s: least_s(s.seconds)), best, plan.query)
        candidate = best.candidate
        self._ledger.doubt(candidate.endpoint, plan.query.model, candidate.version)
        needs_s = best.seconds.total + sigmas * best.seconds.sigma
        self._refuse(asked, too_late(needs_s, least_s(best.seconds), left_s))

    def _refusal(self, query: Query) -> IsochroneError | None:
        """What endpoints have said, where none of them can ever serve this as it is."""
        if not query.action:
            return None
        regions = query.required_regions
        return self._ledger.refusal(query.model, query.version, regions, query.now_s)

    def _nobody(self, plan: Plan) -> IsochroneError:
        query = plan.query
        return self._refusal(query) or NoEndpoint(
            f"no endpoint may and can serve {query.model} now (required: {query.requirement})",
            retry_after_s=soonest_s(plan),
            reasons=self._reasons(query),
        )

    def _refuse(self, asked: Asked, error: IsochroneError) -> None:
        record = asked.record
        record.code = error.code
        request_id = asked.query.request_id
        try:
            status = self._effects.refuse(asked.exchange, request_id, error, record.told)
            record.answered(status)
        except Exception:  # whoever else waits or runs has no part in it
            _log.exception("request %s cannot be refused", request_id)
            record.cut(IsochroneError.code)
            asked.exchange.abort()
        self._finish(asked)

    def _end(self, asked: Asked, error: IsochroneError | None) -> None:
        """It has been answered, or its client has gone; or it is to be refused."""
        if error is not None:
            self._refuse(asked, error)
        else:
            self._finish(asked)

    def _finish(self, asked: Asked) -> None:
        record = asked.record
        record.seconds = self._clock() - record.asked_s
        self._waiting.ended(asked)
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

    def _warm(self, cold: Scored, best: Scored, query: Query) -> None:
        """Too late for this one; the next will find the model warm, there or where it is best."""
        candidate, sooner_s = cold.candidate, best.seconds.total - least_s(cold.seconds)
        worth = cold is best or (
            sooner_s > 0
            and self._ledger.missed(candidate.endpoint, query.model, candidate.version, sooner_s)
        )
        if worth and not candidate.woken:
            self._effects.wake(cold.permit, query.model, candidate.version)
