"""Who is held back for failures, who may be trusted again, and what should be tested for it."""

from math import inf

from isochrone.router.fleet.holding import Holding
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.fleet.outlier import UNPROVEN, Sign, Thresholds, step
from isochrone.router.fleet.site import Lease, Site
from isochrone.router.fleet.timetable import Timetable, longest_s
from isochrone.router.wire.report import ModelState

START_S = 5.0
"""Whoever is first heard of this soon after the router's own start needs no slow start."""

_FAULTS = (Outcome.FAILED, Outcome.CRASHED)
_ANSWERS = (Outcome.BUSY, Outcome.UNABLE, Outcome.QUARANTINED, Outcome.FAILED)
"""If the endpoint itself says so, it is there as a whole."""


class Quarantine:
    """The breakers of model versions and the health of endpoints, and whom they hold back."""

    def __init__(
        self, thresholds: Thresholds, timetable: Timetable, start_s: float = START_S
    ) -> None:
        self._thresholds = thresholds
        self._timetable = timetable
        self._start_s = start_s
        self.began_s = -inf
        """When the router started."""
        self._held: dict[Holding, None] = {}
        self._doubted: dict[Holding, None] = {}

    def begin(self, now_s: float) -> None:
        """The router has started; only the first call counts."""
        if self.began_s == -inf:
            self.began_s = now_s

    def judge(self, site: Site, sign: Sign, now_s: float) -> None:
        """A piece of evidence about an endpoint as a whole."""
        before = site.health
        site.health = step(before, sign, self._thresholds)
        if (before.out, before.trials) == (site.health.out, site.health.trials):
            return
        new = before.out == UNPROVEN.out and now_s - self.began_s <= self._start_s
        if site.health.out is None and not new:
            site.ramp_from_s = now_s
        self._timetable.settle(site, now_s)

    def lost(self, site: Site) -> bool:
        """So many probes were missed that nobody should wait there."""
        return site.health.missed >= self._thresholds.missed_probes

    def judge_call(self, lease: Lease, outcome: Outcome, now_s: float) -> None:
        """A request has ended: what that says of the model version, and of its endpoint."""
        site, holding = lease.site, lease.holding
        if holding is not None:
            self._judge_model(lease, holding, outcome, now_s)
        if outcome is Outcome.REFUSED:
            self.judge(site, Sign.CALL_REFUSED, now_s)
        elif (lease.trial or site.health.missed) and _is_there(lease, outcome):
            self.judge(site, Sign.CALL_ANSWERED, now_s)

    def judge_sample(self, holding: Holding, *, good: bool, now_s: float) -> None:
        """The model's own sample was run."""
        breaker = holding.breaker
        was_open = breaker.open
        if good:
            breaker.pass_test(now_s)
        else:
            breaker.fail_test(now_s, "its sample fails")
        if breaker.open is not was_open:
            self._turned(holding, now_s)

    def doubt(self, holding: Holding) -> None:
        """Requests are refused for what is expected of it: find out whether that is true."""
        if holding.in_flight == 0:
            self._doubted[holding] = None

    def suspects(self, now_s: float, again_s: float) -> list[Holding]:
        """What is held back or doubted, can be tested, and was not lately."""
        tested = [
            holding
            for holding in (*self._held, *self._doubted)
            if is_testable(holding)
            and now_s - max(holding.sampled_s, holding.breaker.opened_s) >= again_s
        ]
        self._doubted.clear()
        return tested

    def forget(self, site: Site) -> None:
        """A new process runs there: what the old one did is not its fault."""
        site.health = UNPROVEN
        for holding in site.holdings.values():
            holding.breaker.forget()
            holding.refusals = 0
            holding.samples = site.endpoint.reports
            self._held.pop(holding, None)

    def sweep(self) -> None:
        """Forget what is not held by anybody any more."""
        for holding in [h for h in self._held if h.gone]:
            del self._held[holding]

    def _judge_model(self, lease: Lease, holding: Holding, outcome: Outcome, now_s: float) -> None:
        breaker = holding.breaker
        was_open = breaker.open
        if lease.trial:
            breaker.trial = False
        if outcome is Outcome.ANSWERED:
            if lease.trial:
                breaker.close(now_s)
            else:
                breaker.succeed(now_s)
        elif outcome in _FAULTS or (outcome is Outcome.LATE and _is_at_fault(lease, now_s)):
            breaker.fail(now_s, outcome.value, trial=lease.trial)
        if breaker.open is not was_open:
            self._turned(holding, now_s)

    def _turned(self, holding: Holding, now_s: float) -> None:
        """A breaker has opened or closed."""
        site = holding.site
        if holding.breaker.open:
            self._held[holding] = None
            failing = {h.model for h in site.holdings.values() if h.breaker.open}
            if len(failing) > 1:
                self.judge(site, Sign.MODELS_FAIL, now_s)
        else:
            self._held.pop(holding, None)
            holding.ramps_from_s = now_s
        self._timetable.settle(site, now_s)


def begin_trial(lease: Lease, holding: Holding) -> None:
    """Whatever goes to what is held is a trial."""
    lease.trial = True
    lease.site.trial = lease.site.health.trials
    holding.breaker.trial = holding.breaker.open


def is_testable(holding: Holding) -> bool:
    """Its sample can be run now."""
    warm = holding.state is ModelState.WARM
    return warm and holding.samples and not holding.sampling and holding.out is None


def _is_there(lease: Lease, outcome: Outcome) -> bool:
    """The endpoint itself has answered."""
    return outcome is Outcome.ANSWERED or (outcome in _ANSWERS and lease.vouched)


def _is_at_fault(lease: Lease, now_s: float) -> bool:
    """A deadline has passed: it is the endpoint's fault where nothing came for far too long.

    A trial that was not answered has failed, whoever was in a hurry.
    """
    if lease.trial:
        return True
    holding = lease.holding
    return (
        holding is not None
        and not lease.answered
        and now_s - lease.sent_s > longest_s(lease, holding)
    )
