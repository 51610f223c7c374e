"""The single writer of what the router knows: a fold over observations, with time as an argument.

It mutates its own records in place and hands them out as read-only `Candidate`s, so that nothing is
copied per request.
"""

import math
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from operator import attrgetter
from random import Random
from types import MappingProxyType

from isochrone.router.errors import IsochroneError
from isochrone.router.fleet.back_off import back_off_s
from isochrone.router.fleet.breaker import Tolerance
from isochrone.router.fleet.holding import Holding, StandingRefusal
from isochrone.router.fleet.index import Index
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.fleet.outlier import Sign, Thresholds
from isochrone.router.fleet.priors import Priors
from isochrone.router.fleet.quarantine import START_S, Quarantine, begin_trial, is_testable
from isochrone.router.fleet.site import Lease, Site
from isochrone.router.fleet.timetable import Timetable
from isochrone.router.fleet.waiting import WaitCurve
from isochrone.router.fleet.watch import IN_USE_S, Watch
from isochrone.router.geo.network import Path
from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.members.membership import Member, Membership
from isochrone.router.wire.report import CallReport, EndpointReport, ModelState, Waking

SILENCE_S = 1.0
"""Who was not heard of for so long is asked when it comes into use."""
LACK_LASTS_S = 5.0
"""How long a server that does not report is taken at its word that it lacks a model."""
REASONS_COUNT = 16
"""The words of so many endpoints are told."""
_ANSWERED = Outcome.ANSWERED
_rank = attrgetter("rank_s")


class Ledger:
    """Every endpoint's record.

    `prior_rtt_s` gives a round trip to each region for endpoints not yet measured, `light_rtt_s`
    the least that is possible. `rng` spreads back-offs (None: they are exact). An endpoint first
    heard of within `start_s` of the start was there before, and needs no slow start.
    """

    def __init__(
        self,
        prior_rtt_s: Mapping[str, float],
        sender: str,
        *,
        light_rtt_s: Mapping[str, float] = MappingProxyType({}),
        thresholds: Thresholds | None = None,
        tolerance: Tolerance | None = None,
        rng: Random | None = None,
        start_s: float = START_S,
    ) -> None:
        self._rng = rng
        self._light_rtt_s = light_rtt_s
        self.generation = 0
        self._prior_rtt_s = prior_rtt_s
        self._sender = sender
        self._tolerance = tolerance or Tolerance()
        self._priors = Priors()
        self._curve = WaitCurve()
        self._sites: dict[str, Site] = {}
        self._index = Index()
        self.candidates, self.shortlist = self._index.held, self._index.shortlist
        self._watch = Watch()
        self._timetable = Timetable()
        self._quarantine = Quarantine(thresholds or Thresholds(), self._timetable, start_s)
        self._followed = 0
        self.sequence = 0
        """How many requests were sent."""

    # What it tells.

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
        for lawful in self._index.turn("rivals"):
            for holding in lawful.near:
                site = holding.site
                old = not site.probing and now_s - max(site.heard_s, site.probed_s) >= age_s
                if old and holding.out is None:
                    found[site] = min(holding.rank_s, found.get(site, math.inf))
        return nsmallest(most, found, key=found.__getitem__)

    def suspects(self, now_s: float, again_s: float) -> list[Holding]:
        """What is held back or doubted, can be tested, and was not lately."""
        return self._quarantine.suspects(now_s, again_s)

    def unused(self, now_s: float, age_s: float) -> list[Holding]:
        """Idle and long unused, and the best if only its model took no time there; in turn.

        Where the best one is not idle either, requests spill over and find out by themselves.
        """
        found: dict[Holding, None] = {}
        for lawful in self._index.turn("unused"):
            best = min(lawful.near, key=_rank, default=None)
            if best is None or best.site.occupancy.congestion_s > 0:
                continue
            for holding in lawful.near:
                within_s = best.net_s + best.service_s
                may_win = holding.net_s < within_s and holding.rank_s > best.rank_s
                if may_win and _is_unused(holding, now_s, age_s, self._quarantine.began_s):
                    found[holding] = None
        return sorted(found, key=lambda holding: holding.sampled_s)

    # What it learns.

    def follow(self, membership: Membership, now_s: float) -> list[Endpoint]:
        """Take over who has joined and left since the last time; returns who has left or moved."""
        self._quarantine.begin(now_s)
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
        sequence = self.sequence = self.sequence + 1
        holding, occupancy = site.holdings.get((model, version)), site.occupancy
        lease = Lease(site, holding, sequence, now_s, body_bytes, occupancy.place)
        own = site.open
        if not own:
            self._timetable.busy[site] = None
            if now_s - site.sent_s > IN_USE_S and now_s - site.heard_s > SILENCE_S:
                self._watch.hurry(site)  # it was watched from afar, and is now relied on
        site.sent_s = now_s
        own[sequence] = lease
        if holding is not None and holding.base_s == math.inf:
            _begin_out_of_turn(lease, holding)
        if sequence > occupancy.seen_sequence:
            occupancy.unseen += 1
        occupancy.weigh(len(own))
        return lease

    def answered(
        self, lease: Lease, report: CallReport | None, now_s: float, *, worked: bool = True
    ) -> None:
        """The first byte of an answer has come; `worked`: it says that the model has run."""
        site, holding = lease.site, lease.holding
        elapsed_s = now_s - lease.sent_s
        lease.answered = True
        if site.late_s:  # it was worth noting while nothing came; if others are late, so is that
            site.late_s = 0.0
            site.settle(now_s)
        if report is None:
            if site.endpoint.reports:  # it is not that endpoint which has answered
                self._watch.hurry(site)
            else:
                lease.vouched = True
                site.heard_s = now_s
            return
        lease.vouched = True
        if worked and report.infer_s > 0:  # a refusal says nothing of the network or the model
            rtt_s = elapsed_s - report.wait_s - report.infer_s
            site.path.observe(rtt_s, lease.body_bytes, now_s)
            if holding is not None:
                if report.models_generation != site.generation and site.endpoint.tier is Tier.EDGE:
                    lease.cold_s = lease.cold_s or holding.load_s  # perhaps it had to be loaded
                lease.cold_s = report.load_s or lease.cold_s
                holding.served(report.wait_s, report.infer_s, lease.body_bytes, now_s, lease)
        site.heard(report, now_s, 1)
        if site.stale:
            self._watch.hurry(site)

    def timed(self, lease: Lease, first_byte_s: float, now_s: float) -> None:
        """A model that ran at an endpoint without reports has answered after so many seconds.

        Called when the whole answer is there, before the lease is closed.
        """
        site, holding = lease.site, lease.holding
        if holding is not None and not site.endpoint.reports:
            run_s = max(0.0, first_byte_s - site.path.mean_s)
            holding.served(0.0, run_s, lease.body_bytes, now_s, lease)

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
        own = site.open
        del own[lease.sequence]
        if not own:
            self._timetable.busy.pop(site, None)
        well = outcome is _ANSWERED and not (lease.trial or site.late_s or site.health.missed)
        if well and holding is not None:  # as nearly always
            holding.breaker.succeed(now_s)
            if holding.refusals:
                self._has_served(holding, now_s)
        else:
            self._close_badly(lease, outcome, now_s, retry_after_s)
        occupancy, own_count = site.occupancy, len(own)
        if lease.sequence > occupancy.seen_sequence:
            occupancy.unseen -= 1
            occupancy.weigh(own_count)
        elif occupancy.reported + occupancy.unseen <= own_count:
            occupancy.weigh(own_count)  # else the last report has counted it out already

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
            self._timetable.settle(lease.site, now_s)

    def refused(self, lease: Lease, error: IsochroneError, why: str) -> None:
        """Keep what the endpoint said, for as long as it is taken to lack the model."""
        holding = lease.holding
        if holding is None:
            return
        if not lease.site.endpoint.reports:
            holding.refused(error, why, holding.full_until_s)
        elif holding.state is ModelState.ABSENT:
            holding.refused(error, why, math.inf)

    def refusal(
        self, model: str, version: str | None, regions: frozenset[str] | None, now_s: float
    ) -> IsochroneError | None:
        """What clients are told where every lawful endpoint says that it cannot serve this."""
        told: dict[str, str] = {}
        last: StandingRefusal | None = None
        for holding in self._index.shortlist(model, version, regions).every:
            last = holding.refusal
            if last is None or last.until_s <= now_s:
                return None
            if len(told) < REASONS_COUNT:
                told[holding.endpoint.name] = last.why
        return None if last is None else last.kind(last.text, reasons=told)

    def probe_sent(self, site: Site, now_s: float) -> None:
        """A probe leaves."""
        site.probing = True
        site.stale = False
        site.probed_s = now_s

    def probe_answered(
        self, site: Site, report: EndpointReport, rtt_s: float, now_s: float
    ) -> None:
        """A probe came back with a full report; who answers as another is no proof of anything.

        So is the answer of who has left meanwhile, or has joined anew.
        """
        site.probing = False
        if self._sites.get(site.endpoint.name) is not site:
            return
        if (report.name, report.region) != (site.endpoint.name, site.endpoint.region):
            site.silent = False
            self._quarantine.judge(site, Sign.IMPOSTOR, now_s)
            return
        site.path.observe(rtt_s, 0, now_s)
        self._probe_was_good(site, rtt_s, now_s)
        site.told(report, report.seen.get(self._sender, 0), now_s)
        self._reindex(site)

    def probe_ready(self, site: Site, rtt_s: float, now_s: float) -> None:
        """An endpoint that does not report is ready."""
        site.probing = False
        if self._sites.get(site.endpoint.name) is not site:
            return
        site.heard_s = now_s
        site.path.observe(rtt_s, 0, now_s)
        self._probe_was_good(site, rtt_s, now_s)
        site.settle(now_s)

    def _probe_was_good(self, site: Site, rtt_s: float, now_s: float) -> None:
        site.probe_rtt_s = rtt_s
        self._quarantine.judge(site, Sign.PROBE_ANSWERED, now_s)
        site.silent = site.silent and site.health.out is not None  # one more, and it is back

    def probe_missed(self, site: Site, now_s: float, *, silent: bool = False) -> bool:
        """A probe was lost, late or answered with rubbish; True: nobody should wait there.

        `silent`: nothing came at all, so that it may be the way, or a pause.
        """
        site.probing = False
        changed, site.silent = site.silent is not silent, silent
        self._quarantine.judge(site, Sign.PROBE_MISSED, now_s)
        if changed:
            self._timetable.settle(site, now_s)
        present = self._sites.get(site.endpoint.name) is site
        lost = self._quarantine.lost(site)
        if present and not lost:
            self._watch.hurry(site)  # one lost packet is no outage, and a second one is soon known
        return present and lost

    def probe_unsent(self, site: Site) -> None:
        """A probe could not be sent: which says nothing, and it is due again after the interval."""
        site.probing = False

    def sampled(self, holding: Holding, report: CallReport | None, now_s: float) -> None:
        """The model's own sample was run, to explore or to test; None: it failed."""
        self._quarantine.judge_sample(holding, good=report is not None, now_s=now_s)
        if report is not None:
            if report.infer_s > 0:
                usual_bytes = int(holding.service.mean_bytes)
                holding.service.replace_if_old(now_s)
                holding.served(report.wait_s, report.infer_s, usual_bytes, now_s)
            holding.site.heard(report, now_s)
        self._timetable.settle(holding.site, now_s)

    def doubt(self, endpoint: Endpoint, model: str, version: str) -> None:
        """A request was refused for what is expected of this one: find out whether it is true."""
        holding = self._holding(endpoint, model, version)
        if holding is not None:
            self._quarantine.doubt(holding)

    def missed(self, endpoint: Endpoint, model: str, version: str, seconds: float) -> bool:
        """A request would be answered so much sooner, were this one warm; True: it is worth a wake.

        What was never warm is worth one at once. What its endpoint has unloaded is, when requests
        have lost as many seconds as a load takes: whoever rents until the rent is what buying costs
        pays at most twice what it would have, had it known (Karlin et al., Algorithmica 1988).
        """
        holding = self._holding(endpoint, model, version)
        if holding is None:
            return False
        holding.missed_s += seconds
        return not holding.falls_cold or holding.missed_s >= holding.load_s

    def woken(self, endpoint: Endpoint, model: str, version: str, now_s: float) -> None:
        """A wake leaves."""
        holding = self._holding(endpoint, model, version)
        if holding is not None:
            self._timetable.wake(holding, now_s)
            self._watch.hurry(holding.site)

    def waking(
        self, endpoint: Endpoint, model: str, version: str, waking: Waking, now_s: float
    ) -> None:
        """The endpoint has answered a wake: how far the load is, and how long one takes there."""
        holding = self._holding(endpoint, model, version)
        if holding is not None:
            if waking.expected_s:  # who is warm says 0
                holding.measured_load_s = waking.expected_s
            holding.saw(waking.state, now_s)
            holding.settle(now_s)

    def sweep(self, now_s: float) -> None:
        """What happens because time passes; only where something is to happen."""
        self._timetable.sweep(now_s)
        self._quarantine.sweep()
        for lawful in self._index.turn("sort"):
            lawful.sort()

    def _holding(self, endpoint: Endpoint, model: str, version: str) -> Holding | None:
        site = self._sites.get(endpoint.name)
        return site.holdings.get((model, version)) if site else None

    def _close_badly(
        self, lease: Lease, outcome: Outcome, now_s: float, retry_after_s: float | None
    ) -> None:
        """Something in its end, or before it, was not as usual."""
        site, holding = lease.site, lease.holding
        others = site.occupancy.in_flight - 1
        if site.late_s:
            site.late_s = 0.0
            site.settle(now_s)
        if lease.trial:
            site.trial = False
        self._quarantine.judge_call(lease, outcome, now_s)
        if outcome is Outcome.BUSY and holding is not None:
            site.occupancy.fill(others, now_s)
            self._back_off(lease, holding, retry_after_s or 0.0, now_s)
        elif outcome is _ANSWERED and holding is not None and holding.refusals:
            self._has_served(holding, now_s)

    def _has_served(self, holding: Holding, now_s: float) -> None:
        """An answer ends a row of refusals. Where reports tell of room, it ends the wait, too."""
        holding.refusals = 0
        if holding.endpoint.reports and holding.full_until_s > now_s:
            holding.full_until_s = now_s
            self._timetable.settle(holding.site, now_s)

    def _back_off(self, lease: Lease, holding: Holding, told_s: float, now_s: float) -> None:
        """It is full: when to send there again.

        A report is finer than whole seconds, so an endpoint that reports is taken at its word for
        the last of them only once it has refused again.
        """
        # of those in a row, what left before the last one was known does not count
        if not holding.refusals or lease.sent_s > holding.refused_s:
            holding.refusals += 1
            holding.refused_s = now_s
        if holding.endpoint.reports and holding.refusals == 1:
            told_s -= 1.0
        pause_s = back_off_s(holding.refusals, holding.service_s, self._rng)
        until_s = now_s + max(pause_s, told_s)
        holding.full_until_s = max(until_s, holding.full_until_s)
        self._timetable.settle(holding.site, now_s)

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
            if site.differs(member.models):
                self._watch.hurry(site)  # a report is newer than what its renewal says
            return
        site.boot = member.instance
        self._quarantine.forget(site)
        site.stale = True
        site.occupancy.slots = member.slots
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
        self._timetable.drop(site)
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
        begin_trial(lease, holding)


def _is_unused(holding: Holding, now_s: float, age_s: float, began_s: float) -> bool:
    """After each sample that makes no difference, the next one is twice as far away."""
    age_s = max(age_s, holding.sampled_s - max(holding.site.sent_s, began_s))
    return (
        is_testable(holding)
        and holding.in_flight == 0
        and holding.held is None
        and now_s - max(holding.service.at_s, holding.sampled_s) >= age_s
    )
