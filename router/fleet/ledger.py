"""The single writer of what the router knows: a fold over observations, with time as an argument.

It mutates its own records in place and hands them out as read-only `Candidate`s, so that nothing is
copied per request.
"""

from collections.abc import Iterable, Sequence
from enum import Enum

from router.fleet.endpoint import Candidate, Endpoint
from router.fleet.membership import Member, Membership
from router.fleet.outlier import UNPROVEN, Sign, Thresholds, step
from router.fleet.site import Holding, Site
from router.wire.report import CallReport, EndpointReport, ModelState

WAKE_LASTS_S = 10.0
"""A wake whose load was not seen to begin within this time may be sent again."""


class Outcome(Enum):
    """How one try on one endpoint ended."""

    ANSWERED = "answered"
    BUSY = "busy"
    UNABLE = "unable"
    FAILED = "failed"
    REFUSED = "refused"
    LATE = "late"
    CANCELLED = "cancelled"

    @property
    def is_setback(self) -> bool:
        """Another endpoint is to be asked."""
        return self in (Outcome.BUSY, Outcome.UNABLE, Outcome.FAILED, Outcome.REFUSED)


_SIGNS = {
    Outcome.ANSWERED: Sign.CALL_ANSWERED,
    Outcome.BUSY: Sign.CALL_ANSWERED,
    Outcome.UNABLE: Sign.CALL_ANSWERED,
    Outcome.FAILED: Sign.CALL_FAILED,
    Outcome.REFUSED: Sign.CALL_REFUSED,
}


class Lease:
    """One request that is at an endpoint; closing it twice is the same as once."""

    __slots__ = ("model", "open", "sent_s", "sequence", "site", "version")

    def __init__(self, site: Site, model: str, version: str, sequence: int, sent_s: float) -> None:
        self.site = site
        self.model = model
        self.version = version
        self.sequence = sequence
        self.sent_s = sent_s
        self.open = True


class Ledger:
    """Every endpoint's record. `prior_rtt_s` gives a round trip for endpoints not yet measured."""

    def __init__(
        self, prior_rtt_s: dict[str, float], sender: str, thresholds: Thresholds | None = None
    ) -> None:
        self.generation = 0
        self._prior_rtt_s = prior_rtt_s
        self._sender = sender
        self._thresholds = thresholds or Thresholds()
        self._sites: dict[str, Site] = {}
        self._newest: dict[str, list[Holding]] = {}
        self._followed = 0
        self._sequence = 0

    # What it tells.

    def candidates(self, model: str, version: str | None) -> Sequence[Candidate]:
        """Who holds that version; without one, each endpoint's newest."""
        if version is None:
            return self._newest.get(model, ())
        held = (site.holdings.get((model, version)) for site in self._sites.values())
        return [holding for holding in held if holding is not None]

    def elsewhere(self, model: str, version: str | None) -> int:
        """How many endpoints do not hold it."""
        return len(self._sites) - len(self.candidates(model, version))

    def sites(self) -> Iterable[Site]:
        """Every endpoint's record, to read."""
        return self._sites.values()

    def site(self, name: str) -> Site | None:
        """One endpoint's record, to read."""
        return self._sites.get(name)

    def models(self) -> list[str]:
        """The models that some endpoint holds."""
        return sorted(self._newest)

    def due(self, now_s: float, interval_s: float) -> list[Site]:
        """Who should be probed now: not asked for `interval_s`, or known to have changed."""
        return [
            site
            for site in self._sites.values()
            if not site.probing and (site.stale or now_s - site.probed_s >= interval_s)
        ]

    # What it learns.

    def follow(self, membership: Membership, now_s: float) -> list[Endpoint]:
        """Take over who has joined and left since the last time; returns who has left or moved."""
        before = dict(self._sites)
        joined = 0
        for change in membership.since(self._followed):
            self._followed = change.generation
            if change.member is not None:
                joined += self._join(change.member, now_s)
            else:
                self._sites.pop(change.name, None)
        gone = [s.endpoint for name, s in before.items() if self._sites.get(name) is not s]
        if joined or gone:
            self._reindex()
        return gone

    def sent(self, endpoint: Endpoint, model: str, version: str, now_s: float) -> Lease | None:
        """A request leaves for an endpoint; None: it has left the fleet meanwhile."""
        site = self._sites.get(endpoint.name)
        if site is None:
            return None
        self._sequence += 1
        site.open_sequences.append(self._sequence)
        site.refresh()
        return Lease(site, model, version, self._sequence, now_s)

    def answered(self, lease: Lease, report: CallReport | None, now_s: float) -> None:
        """The first byte of an answer has come."""
        site = lease.site
        holding = site.holdings.get((lease.model, lease.version))
        elapsed_s = now_s - lease.sent_s
        if report is None:
            if not site.endpoint.reports and holding is not None:
                holding.served(0.0, max(0.0, elapsed_s - site.net_s), now_s)
            return
        site.heard(report, now_s)
        if report.infer_s > 0:  # a refusal says nothing of the network or the model
            site.network.observe(max(0.0, elapsed_s - report.wait_s - report.infer_s), now_s)
            site.settle_net(now_s)
            if holding is not None:
                holding.served(report.wait_s, report.infer_s, now_s)

    def close(self, lease: Lease, outcome: Outcome, now_s: float) -> None:
        """A request has left an endpoint, in exactly one way."""
        if not lease.open:
            return
        lease.open = False
        site = lease.site
        site.open_sequences.remove(lease.sequence)
        site.refresh()
        sign = _SIGNS.get(outcome)
        if sign is not None:
            self._judge(site, sign)
        holding = site.holdings.get((lease.model, lease.version))
        if outcome is Outcome.BUSY and holding is not None:
            # One slot should be free after one service time.
            holding.full_until_s = now_s + holding.service_s

    def lacks(self, lease: Lease, now_s: float) -> None:
        """The endpoint says that it does not hold the model; its next report may say otherwise."""
        holding = lease.site.holdings.get((lease.model, lease.version))
        if holding is not None:
            holding.saw(ModelState.ABSENT, now_s)

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
            self._judge(site, Sign.IMPOSTOR)
            return
        site.network.observe(rtt_s, now_s)
        site.settle_net(now_s)
        before = set(site.holdings)
        site.told(report, report.seen.get(self._sender, 0), now_s)
        self._judge(site, Sign.PROBE_ANSWERED)
        if set(site.holdings) != before:
            self._reindex()

    def probe_ready(self, site: Site, rtt_s: float, now_s: float) -> None:
        """An endpoint that does not report is ready."""
        site.probing = False
        site.network.observe(rtt_s, now_s)
        site.settle_net(now_s)
        self._judge(site, Sign.PROBE_ANSWERED)

    def probe_missed(self, site: Site) -> bool:
        """A probe was lost, late or answered with rubbish; True: nobody should wait there."""
        site.probing = False
        self._judge(site, Sign.PROBE_MISSED)
        present = self._sites.get(site.endpoint.name) is site
        return present and site.health.missed >= self._thresholds.missed_probes

    def woken(self, endpoint: Endpoint, model: str, version: str, now_s: float) -> None:
        """A wake leaves."""
        site = self._sites.get(endpoint.name)
        holding = site.holdings.get((model, version)) if site else None
        if holding is not None:
            holding.woken_until_s = now_s + WAKE_LASTS_S
            holding.woken = True

    def sweep(self, now_s: float) -> None:
        """Forget wakes that came to nothing."""
        for site in self._sites.values():
            for holding in site.holdings.values():
                if holding.woken and holding.woken_until_s <= now_s:
                    holding.woken = False

    def _judge(self, site: Site, sign: Sign) -> None:
        site.health = step(site.health, sign, self._thresholds)

    def _join(self, member: Member, now_s: float) -> bool:
        """Take a member in; False where it has only renewed."""
        endpoint = member.endpoint
        site = self._sites.get(endpoint.name)
        if site is None or site.endpoint != endpoint:
            prior_s = self._prior_rtt_s.get(endpoint.region, max(self._prior_rtt_s.values()))
            site = self._sites[endpoint.name] = Site(endpoint, prior_s)
        elif member.instance == site.boot:
            return False
        site.boot = member.instance
        site.health = UNPROVEN
        site.stale = True
        site.slots = member.slots
        site.hold(member.models, now_s)
        return True

    def _reindex(self) -> None:
        self.generation += 1
        self._newest = {}
        for site in self._sites.values():
            for holding in site.newest():
                self._newest.setdefault(holding.model, []).append(holding)
