"""The single writer of what the router knows: a fold over observations, with time as an argument.

It mutates its own records in place and hands them out as read-only `Candidate`s, so that nothing is
copied per request.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from heapq import nsmallest
from operator import attrgetter
from types import MappingProxyType

from router.fleet.breaker import Tolerance
from router.fleet.endpoint import ANY_COUNT, Candidate, Endpoint, Shortlist, Tier
from router.fleet.index import Index
from router.fleet.membership import Member, Membership
from router.fleet.outlier import UNPROVEN, Sign, Thresholds, step
from router.fleet.priors import Priors
from router.fleet.site import Holding, Lease, Site
from router.fleet.slowstart import RAMP_S
from router.fleet.waiting import WaitCurve
from router.fleet.watch import IN_USE_S, Watch
from router.geo.network import Path
from router.wire.report import CallReport, EndpointReport, ModelState, Waking

WAKE_LASTS_S = 10.0
"""A wake whose load was not seen to begin within this time may be sent again."""


START_S = 5.0
"""Whoever is first heard of this soon after the router's own start needs no slow start."""
SILENCE_S = 1.0
"""Who was not heard of for so long is asked when it comes into use."""
LACK_LASTS_S = 5.0
"""How long a server that does not report is taken at its word that it lacks a model."""
MOST_TURNS = 16.0
"""A wait that teaches more than this would be an endpoint's own story."""
LATE_FACTOR = 3.0
"""A request that takes so many times what was predicted counts before it has ended."""


_rank = attrgetter("rank_s")


class Outcome(Enum):
    """How one try on one endpoint ended."""

    ANSWERED = "answered"
    BUSY = "busy"
    UNABLE = "unable"
    FAILED = "failed"
    """It answered that it failed."""
    CRASHED = "crashed"
    """The connection was lost while the request was there."""
    REFUSED = "refused"
    LATE = "late"
    CANCELLED = "cancelled"


_FAULTS = frozenset({Outcome.FAILED, Outcome.CRASHED})
_ANSWERS = frozenset({Outcome.ANSWERED, Outcome.BUSY, Outcome.UNABLE, Outcome.FAILED})
"""The endpoint as a whole is there."""


class Ledger:
    """Every endpoint's record.

    `prior_rtt_s` gives a round trip to each region for endpoints not yet measured, `light_rtt_s`
    the least that is possible.
    """

    def __init__(
        self,
        prior_rtt_s: Mapping[str, float],
        sender: str,
        *,
        light_rtt_s: Mapping[str, float] = MappingProxyType({}),
        thresholds: Thresholds | None = None,
        tolerance: Tolerance | None = None,
    ) -> None:
        self._light_rtt_s = light_rtt_s
        self.generation = 0
        self._prior_rtt_s = prior_rtt_s
        self._sender = sender
        self._thresholds = thresholds or Thresholds()
        self._tolerance = tolerance or Tolerance()
        self._priors = Priors()
        self._curve = WaitCurve()
        self._sites: dict[str, Site] = {}
        self._index = Index()
        self._watch = Watch()
        self._timed: dict[Site, float] = {}
        self._busy: dict[Site, None] = {}
        self._woken: dict[Holding, None] = {}
        self._held: dict[Holding, None] = {}
        self._doubted: dict[Holding, None] = {}
        self._followed = 0
        self._began_s: float | None = None
        self.sequence = 0
        """How many requests were sent."""

    # What it tells.

    def candidates(self, model: str, version: str | None) -> Sequence[Candidate]:
        """Who holds that version; without one, each endpoint's newest."""
        return self._index.held(model, version)

    def shortlist(
        self, model: str, version: str | None, regions: frozenset[str] | None
    ) -> Shortlist:
        """Of these, those in one of the regions (None: in any)."""
        return self._index.shortlist(model, version, regions)

    def elsewhere(self, model: str, version: str | None) -> int:
        """How many endpoints do not hold it."""
        return len(self._sites) - self._index.count(model, version)

    def sites(self) -> Iterable[Site]:
        """Every endpoint's record, to read."""
        return self._sites.values()

    def site(self, name: str) -> Site | None:
        """One endpoint's record, to read."""
        return self._sites.get(name)

    def models(self) -> list[str]:
        """The models that some endpoint holds."""
        return sorted(self._index.models())

    def due(self, now_s: float, interval_s: float) -> list[Site]:
        """Who should be probed now: not heard of for `interval_s`, or known to have changed."""
        return self._watch.due(now_s, interval_s)

    def rivals(self, now_s: float, age_s: float, most: int) -> list[Site]:
        """The best endpoints of late decisions that have not been heard of for `age_s`."""
        found: dict[Site, float] = {}
        for lawful in self._index.turn():
            for holding in lawful.near:
                site = holding.site
                old = not site.probing and now_s - max(site.heard_s, site.probed_s) >= age_s
                if old and holding.out is None:
                    found[site] = min(holding.rank_s, found.get(site, math.inf))
        return nsmallest(most, found, key=found.__getitem__)

    def suspects(self, now_s: float, again_s: float) -> list[Holding]:
        """What is held back or doubted, can be tested, and was not lately."""
        tested = [
            holding
            for holding in (*self._held, *self._doubted)
            if _is_testable(holding)
            and now_s - holding.sampled_s >= again_s
            and now_s >= holding.breaker.until_s
        ]
        self._doubted.clear()
        return tested

    def unused(self, now_s: float, age_s: float) -> list[Holding]:
        """Idle and long unused, and the best if only it were as quick as who is; in turn.

        Where the best one is not idle either, requests spill over and find out by themselves.
        """
        found: dict[Holding, None] = {}
        for lawful in self._index.turn():
            best = min(lawful.near, key=_rank, default=None)
            if best is None or best.site.congestion_s > 0:
                continue
            for holding in lawful.near:
                nearer = holding.net_s <= best.net_s and holding.rank_s > best.rank_s
                if nearer and _is_unused(holding, now_s, age_s, self._began_s or 0.0):
                    found[holding] = None
        return sorted(found, key=lambda holding: holding.sampled_s)

    # What it learns.

    def follow(self, membership: Membership, now_s: float) -> list[Endpoint]:
        """Take over who has joined and left since the last time; returns who has left or moved."""
        if self._began_s is None:
            self._began_s = now_s
        gone: list[Endpoint] = []
        for change in membership.since(self._followed):
            self._followed = change.generation
            present = self._sites.get(change.name)
            if change.member is None:
                gone += self._leave(present)
            elif present is not None and present.endpoint != change.member.endpoint:
                gone += self._leave(present)
                self._join(change.member, now_s)
            else:
                self._join(change.member, now_s)
        return gone

    def sent(
        self, endpoint: Endpoint, model: str, version: str, now_s: float, body_bytes: int = 0
    ) -> Lease | None:
        """A request leaves for an endpoint; None: it has left the fleet meanwhile."""
        site = self._sites.get(endpoint.name)
        if site is None:
            return None
        self.sequence += 1
        holding = site.holdings.get((model, version))
        lease = Lease(site, holding, self.sequence, now_s, body_bytes)
        if not site.open:
            self._busy[site] = None
            if now_s - site.sent_s > IN_USE_S and now_s - site.heard_s > SILENCE_S:
                self._watch.hurry(site)  # it was watched from afar, and is now relied on
        site.sent_s = now_s
        site.open[self.sequence] = lease
        if holding is not None and holding.base_s == math.inf:
            _begin_out_of_turn(lease, holding)
        site.refresh()
        return lease

    def answered(self, lease: Lease, report: CallReport | None, now_s: float) -> None:
        """The first byte of an answer has come."""
        site, holding = lease.site, lease.holding
        elapsed_s = now_s - lease.sent_s
        lease.answered = True
        if report is None:
            site.heard_s = now_s
            if not site.endpoint.reports and holding is not None:
                self._served(lease, holding, 0.0, max(0.0, elapsed_s - site.path.mean_s), now_s)
                site.refresh()
            return
        if report.infer_s > 0:  # a refusal says nothing of the network or the model
            rtt_s = elapsed_s - report.wait_s - report.infer_s
            site.path.observe(rtt_s, lease.body_bytes, now_s)
            if holding is not None:
                if report.models_generation != site.generation and site.endpoint.tier is Tier.EDGE:
                    lease.cold_s = lease.cold_s or holding.load_s  # perhaps it had to be loaded
                self._served(lease, holding, report.wait_s, report.infer_s, now_s)
        site.heard(report, now_s)
        if site.stale:
            self._watch.hurry(site)

    def close(
        self, lease: Lease, outcome: Outcome, now_s: float, retry_after_s: float | None = None
    ) -> None:
        """A request has left an endpoint, in exactly one way.

        `retry_after_s` is when a full endpoint wants to be asked again.
        """
        if not lease.open:
            return
        lease.open = False
        site, holding = lease.site, lease.holding
        others = site.in_flight - 1
        del site.open[lease.sequence]
        if not site.open:
            self._busy.pop(site, None)
        if site.late_s:
            site.late_s = 0.0
            site.settle(now_s)
        if lease.trial:
            site.trial = False
        if holding is not None:
            if outcome is Outcome.ANSWERED and not lease.trial:
                holding.breaker.succeed(now_s)
            else:
                self._judge_call(lease, holding, outcome, now_s)
            if outcome is Outcome.BUSY:
                site.fill(others, now_s)
                self._fill(holding, retry_after_s, now_s)
        if outcome is Outcome.REFUSED:
            self._judge(site, Sign.CALL_REFUSED, now_s)
        elif outcome in _ANSWERS and site.health.missed:
            self._judge(site, Sign.CALL_ANSWERED, now_s)
        site.refresh()

    def lacks(self, lease: Lease, now_s: float) -> None:
        """The endpoint says that it does not hold the model; its next report may say otherwise."""
        holding = lease.holding
        if holding is None:
            return
        if lease.site.endpoint.reports:
            holding.saw(ModelState.ABSENT, now_s)
            holding.settle(now_s)
        else:  # nothing would say that it is back
            holding.full_until_s = now_s + LACK_LASTS_S
            self._time(lease.site, now_s)

    def probe_sent(self, site: Site, now_s: float) -> None:
        """A probe leaves."""
        site.probing = True
        site.stale = False
        site.probed_s = now_s

    def probe_answered(
        self, site: Site, report: EndpointReport, rtt_s: float, now_s: float
    ) -> None:
        """A probe came back with a full report; who answers as another is no proof of anything."""
        site.probing = False
        if (report.name, report.region) != (site.endpoint.name, site.endpoint.region):
            self._judge(site, Sign.IMPOSTOR, now_s)
            return
        site.path.observe(rtt_s, 0, now_s)
        self._judge(site, Sign.PROBE_ANSWERED, now_s)
        site.told(report, report.seen.get(self._sender, 0), now_s)
        self._reindex(site)

    def probe_ready(self, site: Site, rtt_s: float, now_s: float) -> None:
        """An endpoint that does not report is ready."""
        site.probing = False
        site.heard_s = now_s
        site.path.observe(rtt_s, 0, now_s)
        self._judge(site, Sign.PROBE_ANSWERED, now_s)
        site.settle(now_s)

    def probe_missed(self, site: Site, now_s: float) -> bool:
        """A probe was lost, late or answered with rubbish; True: nobody should wait there."""
        site.probing = False
        self._judge(site, Sign.PROBE_MISSED, now_s)
        present = self._sites.get(site.endpoint.name) is site
        lost = site.health.missed >= self._thresholds.missed_probes
        if present and not lost:
            self._watch.hurry(site)  # one lost packet is no outage, and a second one is soon known
        return present and lost

    def sampled(self, holding: Holding, report: CallReport | None, now_s: float) -> None:
        """The model's own sample was run, to explore or to test; None: it failed."""
        breaker = holding.breaker
        was_open = breaker.open
        if report is None:
            breaker.fail(now_s, "its sample fails", trial=True)
        else:
            breaker.pass_test(now_s)
            if report.infer_s > 0:
                holding.site.ran(report.infer_s, now_s)
                usual_bytes = int(holding.service.mean_bytes)
                holding.served(report.wait_s, report.infer_s, usual_bytes, now_s)
            holding.site.heard(report, now_s)
        if breaker.open is not was_open:
            self._turned(holding, now_s)
        self._settle(holding.site, now_s)

    def doubt(self, endpoint: Endpoint, model: str, version: str) -> None:
        """A request was refused for what is expected of this one: find out whether it is true."""
        site = self._sites.get(endpoint.name)
        holding = site.holdings.get((model, version)) if site else None
        if holding is not None and holding.site.in_flight == 0:
            self._doubted[holding] = None

    def missed(self, endpoint: Endpoint, model: str, version: str, seconds: float) -> bool:
        """A request would be answered so much sooner, were this one warm; True: it is worth a wake.

        What was never warm is worth one at once. What its endpoint has unloaded is, when requests
        have lost as many seconds as a load takes: whoever rents until the rent is what buying costs
        pays at most twice what it would have, had it known (Karlin et al., Algorithmica 1988).
        """
        site = self._sites.get(endpoint.name)
        holding = site.holdings.get((model, version)) if site else None
        if holding is None:
            return False
        holding.missed_s += seconds
        return not holding.falls_cold or holding.missed_s >= holding.load_s

    def woken(self, endpoint: Endpoint, model: str, version: str, now_s: float) -> None:
        """A wake leaves."""
        site = self._sites.get(endpoint.name)
        holding = site.holdings.get((model, version)) if site else None
        if holding is not None:
            holding.woken_until_s = now_s + WAKE_LASTS_S
            holding.woken = True
            self._woken[holding] = None
            holding.site.wake_s = now_s
            self._watch.hurry(holding.site)

    def waking(
        self, endpoint: Endpoint, model: str, version: str, waking: Waking, now_s: float
    ) -> None:
        """The endpoint has answered a wake: how far the load is, and how long one takes there."""
        site = self._sites.get(endpoint.name)
        holding = site.holdings.get((model, version)) if site else None
        if holding is not None:
            if waking.expected_s:  # who is warm says 0
                holding.measured_load_s = waking.expected_s
            holding.saw(waking.state, now_s)
            holding.settle(now_s)

    def sweep(self, now_s: float) -> None:
        """What happens because time passes; only where something is to happen."""
        for holding in [h for h in self._woken if not h.woken or h.woken_until_s <= now_s]:
            holding.woken = False
            del self._woken[holding]
        for holding in [h for h in self._held if h.gone]:
            del self._held[holding]
        for site in [site for site, change_s in self._timed.items() if change_s <= now_s]:
            self._time(site, now_s)
        for site in self._busy:
            _look_for_late(site, now_s)
        for lawful in self._index.turn():
            lawful.sort()

    def _served(
        self, lease: Lease, holding: Holding, wait_s: float, infer_s: float, now_s: float
    ) -> None:
        site = lease.site
        if not lease.cold_s:  # a load is no queue
            queued_s = max(0.0, wait_s - holding.overhead_s)
            turn_s = site.turn_s
            self._curve.observe(lease.place, min(queued_s / turn_s, MOST_TURNS), turn_s)
        site.ran(infer_s, now_s)
        holding.served(wait_s, infer_s, lease.body_bytes, now_s)

    def _judge_call(self, lease: Lease, holding: Holding, outcome: Outcome, now_s: float) -> None:
        breaker = holding.breaker
        was_open = breaker.open
        if lease.trial:
            breaker.trial = False
        if outcome is Outcome.ANSWERED:
            breaker.close(now_s)
        elif outcome in _FAULTS or (outcome is Outcome.LATE and _is_at_fault(lease, now_s)):
            breaker.fail(now_s, outcome.value, trial=lease.trial)
        if lease.trial and outcome in _ANSWERS:
            self._judge(lease.site, Sign.CALL_ANSWERED, now_s)
        if breaker.open is not was_open:
            self._turned(holding, now_s)

    def _fill(self, holding: Holding, retry_after_s: float | None, now_s: float) -> None:
        """It is full. One slot should be free after one service time.

        Who reports its load need not be taken at its word, which is in whole seconds.
        """
        told_s = None if holding.endpoint.reports else retry_after_s
        holding.full_until_s = now_s + (told_s or holding.service_s)
        self._time(holding.site, now_s)

    def _turned(self, holding: Holding, now_s: float) -> None:
        """A breaker has opened or closed."""
        site = holding.site
        if holding.breaker.open:
            self._held[holding] = None
            failing = {h.model for h in site.holdings.values() if h.breaker.open}
            if len(failing) > 1:
                self._judge(site, Sign.MODELS_FAIL, now_s)
        else:
            self._held.pop(holding, None)
            holding.ramps_from_s = now_s
        self._settle(site, now_s)

    def _judge(self, site: Site, sign: Sign, now_s: float) -> None:
        before = site.health
        site.health = step(before, sign, self._thresholds)
        if (before.out, before.trials) == (site.health.out, site.health.trials):
            return
        began_s = self._began_s if self._began_s is not None else now_s
        if site.health.out is None and (before.out != UNPROVEN.out or now_s - began_s > START_S):
            site.ramp_from_s = now_s
        self._settle(site, now_s)

    def _settle(self, site: Site, now_s: float) -> None:
        site.settle(now_s)
        self._time(site, now_s)

    def _time(self, site: Site, now_s: float) -> None:
        """Look at a site again as long as time alone changes its ranks."""
        if site.limit_until_s <= now_s:
            site.limit = ANY_COUNT
        change_s = min((at_s for at_s in _instants(site) if at_s > now_s), default=math.inf)
        if change_s < math.inf:
            self._timed[site] = change_s
        else:
            self._timed.pop(site, None)
        site.settle(now_s)

    def _join(self, member: Member, now_s: float) -> None:
        """Take a member in; nothing where it has only renewed."""
        endpoint = member.endpoint
        site = self._sites.get(endpoint.name)
        if site is None:
            site = self._sites[endpoint.name] = Site(
                endpoint,
                path=self._path_to(endpoint.region),
                priors=self._priors,
                curve=self._curve,
                tolerance=self._tolerance,
            )
            self._watch.add(site)
        elif member.instance == site.boot:
            return
        site.boot = member.instance
        site.health = UNPROVEN
        for holding in site.holdings.values():
            holding.breaker.forget()
            holding.samples = endpoint.reports
            self._held.pop(holding, None)
        site.stale = True
        site.slots = member.slots
        site.hold(member.models, now_s)
        site.settle(now_s)
        self._watch.hurry(site)
        self._reindex(site)

    def _path_to(self, region: str) -> Path:
        prior_s = self._prior_rtt_s.get(region, max(self._prior_rtt_s.values()))
        return Path(prior_s, self._light_rtt_s.get(region, 0.0))

    def _leave(self, site: Site | None) -> list[Endpoint]:
        if site is None:
            return []
        site.leave()
        self._watch.drop(site)
        self._timed.pop(site, None)
        self._busy.pop(site, None)
        del self._sites[site.endpoint.name]
        self._index.drop(site.endpoint.name)
        self.generation += 1
        return [site.endpoint]

    def _reindex(self, site: Site) -> None:
        if self._index.put(site):
            self.generation += 1


def _begin_out_of_turn(lease: Lease, holding: Holding) -> None:
    """Whatever goes to what is held is a trial, and what goes to what is cold waits for a load."""
    if holding.state is not ModelState.WARM:
        lease.cold_s = holding.load_s
    if holding.held is not None:
        lease.trial = True
        lease.site.trial = lease.site.health.trials
        holding.breaker.trial = holding.breaker.open


def _look_for_late(site: Site, now_s: float) -> None:
    """A request that is out for much longer than was predicted says that the endpoint is slow."""
    lease = next((lease for lease in site.open.values() if not lease.answered), None)
    if lease is None or lease.holding is None:
        return
    out_s = now_s - lease.sent_s
    if out_s > _longest_s(lease, lease.holding) and out_s > site.late_s:
        site.late_s = out_s
        site.settle(now_s)


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
        and now_s - lease.sent_s > _longest_s(lease, holding)
    )


def _longest_s(lease: Lease, holding: Holding) -> float:
    """Beyond this a request is strangely late."""
    typical_s = holding.service.mean_s + 2 * holding.service.sigma_s
    queue_s = lease.site.turn_s * lease.site.curve.turns(lease.place)[0]
    beside_s = lease.site.path.mean_s + queue_s + holding.overhead_s
    return beside_s + LATE_FACTOR * (typical_s + lease.cold_s)


def _instants(site: Site) -> Iterator[float]:
    """When time alone changes a rank."""
    yield site.limit_until_s
    for holding in site.holdings.values():
        yield holding.full_until_s
        yield holding.ramp_from_s + RAMP_S


def _is_testable(holding: Holding) -> bool:
    warm = holding.state is ModelState.WARM
    return warm and holding.samples and not holding.sampling and holding.out is None


def _is_unused(holding: Holding, now_s: float, age_s: float, began_s: float) -> bool:
    """After each sample that makes no difference, the next one is twice as far away."""
    age_s = max(age_s, holding.sampled_s - max(holding.site.sent_s, began_s))
    return (
        _is_testable(holding)
        and holding.site.in_flight == 0
        and holding.held is None
        and now_s - max(holding.service.at_s, holding.sampled_s) >= age_s
    )
