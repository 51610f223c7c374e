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
from isochrone.router.dispatch.request import RoutedRequest
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
    ended: Callable[[RoutedRequest], None]
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
        gate: Gate[RoutedRequest],
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
        request = RoutedRequest(self._runner, exchange, query, plan)
        error = self._turned_away(query, now_s)
        if error is not None:
            self._refuse(request, error)
        elif self._waiting.must(query, now_s):
            self._join(request, now_s)
        else:
            self._decide(request, now_s)

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

    def _join(self, request: RoutedRequest, now_s: float) -> None:
        """Wait behind others; whose lane has nobody else may be able to start at once."""
        model = request.query.model
        alone = not self.gate.line(model, now_s).queued(request.lane)
        self._wait(request, now_s)
        if alone:
            self._turns.freed([model], now_s)

    def _wait(
        self, request: RoutedRequest, now_s: float, before: IsochroneError | None = None
    ) -> None:
        """Put it in line, or refuse it; `before` is why its last run came to nothing."""
        prospect = self._outlook.of(request.query, request.lane, now_s)
        if not prospect.slots:
            self._refuse(request, self._nobody(self._plan(request, now_s)))
            return
        error = self._waiting.join(request, prospect, now_s)
        if error is None:
            return
        if before is not None:
            error.reasons = {**before.reasons, **error.reasons}
            if error.retry_after_s is not None and before.retry_after_s is not None:
                error.retry_after_s = max(error.retry_after_s, before.retry_after_s)
        self._refuse(request, error)

    # A decision, now or when its turn in line has come.

    def _decide(self, request: RoutedRequest, now_s: float) -> None:
        plan = self._plan(request, now_s)
        if plan.order:
            self._admit(request, plan, now_s)
        elif may_wait(plan, request.excluded) and self._refusal(plan.query) is None:
            self._wait(request, now_s)
        else:
            self._refuse(request, self._nobody(plan))

    def _plan(self, request: RoutedRequest, now_s: float) -> Plan:
        """The decision; explained beside it, where that is asked for, which changes nothing."""
        query = request.query
        if now_s != query.now_s:
            query = structs.replace(query, now_s=now_s)
        plan = request.plan = self._chooser.best(query, request.excluded)
        if query.explain:
            self._explain(request)
        return plan

    def _explain(self, request: RoutedRequest) -> None:
        request.explained = self._chooser.explained(request.plan, request.excluded)

    def _reasons(self, query: Query) -> Mapping[str, str]:
        """Why nobody can serve this: for whoever asks, or has a law that may be why."""
        if not query.explain and query.required_regions is None:
            return {}
        return self._chooser.reasons(query)

    def _admit(self, request: RoutedRequest, plan: Plan, now_s: float) -> None:
        """Start it, unless nobody can make its deadline."""
        query, best = request.query, plan.order[0]
        if not query.action:  # metadata: what a run or a load takes does not matter
            request.start(plan, self._ran)
            return
        left_s = query.deadline_s - now_s
        if best.seconds.total + best.seconds.sigma > left_s:  # as sure as any priority has to be
            sure = self._in_time(request, plan, left_s)
            if sure is None:
                return
            plan = sure
        if plan.wake is not None:
            self._wake(plan, plan.wake)
        request.start(plan, self._ran)

    def _in_time(self, request: RoutedRequest, plan: Plan, left_s: float) -> Plan | None:
        """A plan that makes the deadline as surely as its priority asks; None: it was refused."""
        query, best = request.query, plan.order[0]
        sigmas = sigmas_of(query.priority)
        if best.seconds.total + sigmas * best.seconds.sigma <= left_s:
            return plan
        quickest = self._chooser.quickest(plan.query, request.excluded)
        best = surest([*plan.order, *quickest], sigmas)
        plan = request.plan = structs.replace(plan, order=(best,))
        if query.explain:
            self._explain(request)
        if best.seconds.total + sigmas * best.seconds.sigma <= left_s:
            return plan
        self._turn_away(request, quickest, best, left_s)
        return None

    def _begin(self, request: RoutedRequest, plan: Plan, now_s: float) -> None:
        """Its turn has come."""
        if plan.order:
            self._admit(request, plan, now_s)
        else:
            self._refuse(request, self._nobody(plan))

    def _ran(self, request: RoutedRequest, gave_up: GiveUp | None) -> None:
        """A run has ended: somebody who waits may have its place."""
        now_s = self._clock()
        if gave_up is None:
            self._finish(request)
        elif self._may_wait_on(request, gave_up, now_s):
            self._wait(request, now_s, gave_up.error)
        else:
            self._refuse(request, gave_up.error)
        if self.gate.waiting:
            self._turns.freed(self._freed(request, now_s), now_s)

    def _may_wait_on(self, request: RoutedRequest, gave_up: GiveUp, now_s: float) -> bool:
        """Everybody was full, or nobody but who is full is left to ask, and may be asked."""
        error, in_time = gave_up.error, now_s < request.query.deadline_s
        if isinstance(error, Overloaded):
            return in_time and self._runner.spare.repeat_full(request, now_s)
        if not (gave_up.stranded or isinstance(error, NoEndpoint)):
            return False
        plan = self._plan(request, now_s)
        if isinstance(error, NoEndpoint):
            error.reasons = {**self._reasons(plan.query), **error.reasons}
            error.retry_after_s = soonest_s(plan)
        if not (in_time and is_one_full(plan, request.excluded)):
            return False
        return not gave_up.owing or self._runner.spare.repeat(request, now_s)

    def _freed(self, request: RoutedRequest, now_s: float) -> list[str]:
        """The models for which somebody waits and that the endpoints of a run hold."""
        sites = map(self._ledger.site, {tried.endpoint for tried in request.attempts})
        held = {model for site in sites if site is not None for model, _ in site.holdings}
        return [model for model in self.gate.models(now_s) if model in held]

    # Its end.

    def _turn_away(
        self, request: RoutedRequest, quickest: Sequence[Scored], best: Scored, left_s: float
    ) -> None:
        """Nobody is sure enough to make its deadline; some might, without a queue or when warm.

        Whether what was expected of the surest is true, a sample will tell; of a cold model only
        once it is warm, so it is woken although its service, as expected, takes too long.
        """
        plan = request.plan
        sigmas = sigmas_of(request.query.priority)
        able = within(quickest, left_s)
        if able:
            best = surest(able, sigmas)
        cold = [s for s in able or [best] if s.candidate.state is ModelState.COLD]
        if cold and best.seconds.net < left_s:
            self._warm(min(cold, key=lambda s: least_s(s.seconds)), best, plan.query)
        candidate = best.candidate
        self._ledger.doubt(candidate.endpoint, plan.query.model, candidate.version)
        needs_s = best.seconds.total + sigmas * best.seconds.sigma
        self._refuse(request, too_late(needs_s, least_s(best.seconds), left_s))

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

    def _refuse(self, request: RoutedRequest, error: IsochroneError) -> None:
        request.code = error.code
        request_id = request.query.request_id
        try:
            status = self._effects.refuse(request.exchange, request_id, error, request.told)
            request.answered(status)
        except Exception:  # whoever else waits or runs has no part in it
            _log.exception("request %s cannot be refused", request_id)
            request.cut(IsochroneError.code)
            request.exchange.abort()
        self._finish(request)

    def _end(self, request: RoutedRequest, error: IsochroneError | None) -> None:
        """It has been answered, or its client has gone; or it is to be refused."""
        if error is not None:
            self._refuse(request, error)
        else:
            self._finish(request)

    def _finish(self, request: RoutedRequest) -> None:
        request.seconds = self._clock() - request.query.now_s
        if request.ticket is not None:
            self._waiting.ended(request)
        try:
            self._effects.ended(request)
        except Exception:  # a listener's fault must not end the sweep that others wait for
            _log.exception("the end of request %s cannot be told", request.query.request_id)
        request.release()

    def _wake(self, plan: Plan, asleep: Permit) -> None:
        """Have a cold endpoint load the model that would have answered sooner, had it been warm."""
        query, cold = plan.query, self._chooser.holder(plan.query, asleep.endpoint.name)
        if cold is None:
            return
        needs = seconds(query, cold)
        sooner_s = plan.order[0].seconds.total - (needs.total - needs.cold)
        if self._ledger.missed(cold.endpoint, query.model, cold.version, sooner_s):
            self._effects.wake(asleep, query.model, cold.version)

    def _warm(self, cold: Scored, best: Scored, query: Query) -> None:
        """Too late for this one; the next will find the model warm, there or where it is best."""
        candidate, sooner_s = cold.candidate, best.seconds.total - least_s(cold.seconds)
        worth = cold is best or (
            sooner_s > 0
            and self._ledger.missed(candidate.endpoint, query.model, candidate.version, sooner_s)
        )
        if worth and not candidate.woken:
            self._effects.wake(cold.permit, query.model, candidate.version)
