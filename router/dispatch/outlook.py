"""What a request may expect where nobody can take it now: whether it pays to wait, and how long.

Also how sure it must be to make its deadline, which is what sheds the lowest class first.
"""

import math
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from operator import attrgetter
from typing import NamedTuple

from isochrone.router.admission.ticket import DEFAULT, LOWEST
from isochrone.router.dispatch.chooser import QUICKEST_COUNT, Chooser
from isochrone.router.errors import DeadlineExceeded, Overloaded
from isochrone.router.fleet.candidate import Candidate
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.policy import Plan
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import Seconds, seconds
from isochrone.router.wire.report import ModelState

LASTS_S = 0.1
"""How long what a lane's endpoints can do is taken as known."""
HELD_COUNT = 8
"""Where nobody is full, so many endpoints are looked at for one that is held back."""
_MOST_LANES = 4096


class Lane(NamedTuple):
    """What requests for a model have in common that could start in the same places."""

    version: str | None
    required_regions: frozenset[str] | None
    excluded: frozenset[str] = frozenset()
    """Names of endpoints that had the request already, in vain."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What those who could serve a lane can do, whether or not they can just now.

    `slots` is how much of it runs at once, `cost_s` how long the quickest then holds a slot;
    `quickest` are the few that would have answered first, had each been asked alone.
    """

    slots: int
    cost_s: float
    able: Sequence[Candidate]
    quickest: Sequence[Candidate]

    def seconds(self, query: Query) -> Seconds:
        """What the quickest is predicted to take for this query, once asked."""
        return min([seconds(query, c) for c in self.quickest], key=attrgetter("total"))

    def opens_s(self, now_s: float) -> float:
        """When the first of them may be asked again, after all have said that they are full."""
        return earliest_s(self.able, now_s)

    def shared_with(self, other: "Prospect") -> float:
        """The share of these slots that are the other's as well."""
        if other is self:
            return 1.0
        names = {c.endpoint.name for c in other.able}
        common = sum(c.slots for c in self.able if c.endpoint.name in names)
        return common / max(1, self.slots)


class Outlook:
    """The prospects of every lane, each as of a moment ago."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._known: dict[tuple[str, Lane], tuple[float, Prospect]] = {}

    def of(self, query: Query, lane: Lane, now_s: float) -> Prospect:
        """What those who could serve this query, in its lane, can do."""
        where = query.model, lane
        known = self._known.get(where)
        if known is not None and known[1].slots and now_s - known[0] < LASTS_S:
            return known[1]
        if len(self._known) >= _MOST_LANES:
            self._known.clear()
        near = self._chooser.near(query)
        prospect = _prospect(c for c in near if c.endpoint.name not in lane.excluded)
        self._known[where] = now_s, prospect
        return prospect


def may_wait(plan: Plan, excluded: Container[str]) -> bool:
    """Somebody lawful may have room before long, and has not had it in vain."""
    return any(candidate.endpoint.name not in excluded for candidate in plan.busy)


def is_one_full(plan: Plan, excluded: Container[str]) -> bool:
    """Somebody of these is only full, and not on trial."""
    return any(c.held is None and c.endpoint.name not in excluded for c in plan.busy)


def sigmas_of(priority: int) -> float:
    """How sure a request must be to make its deadline, so that the lowest class is shed first.

    From -1 (one chance in six will do) at priority 1, over 0, to 1 (five in six) at priority 9.
    """
    return (priority - DEFAULT) / (LOWEST - DEFAULT)


def surest(order: Collection[Scored], sigmas: float) -> Scored:
    """Who is the soonest to have answered, at so many standard deviations."""
    return min(order, key=lambda s: s.seconds.total + sigmas * s.seconds.sigma)


def within(order: Sequence[Scored], left_s: float) -> list[Scored]:
    """Who could make it, if nothing were to be waited for."""
    return [scored for scored in order if least_s(scored.seconds) <= left_s]


def least_s(needs: Seconds) -> float:
    """What is left of a prediction where nobody is ahead and the model is warm."""
    return needs.net + needs.service


def too_late(needs_s: float, least_s: float, left_s: float) -> Overloaded | DeadlineExceeded:
    """A refusal that says by how much a deadline cannot be made; and when it could be, if ever."""
    text = f"it would take {needs_s:.3f} s and must be answered within {left_s:.3f} s"
    if least_s > left_s:
        return DeadlineExceeded(text)
    return Overloaded(text, retry_after_s=needs_s - left_s)


def earliest_s(candidates: Sequence[Candidate], now_s: float) -> float:
    """When the first of these may be asked again; `now_s` at the latest where one may be now."""
    opens_s = min([c.full_until_s for c in candidates], default=now_s)
    if opens_s <= now_s or any(c.held is not None for c in candidates[:HELD_COUNT]):
        return min(opens_s, now_s)  # a trial may go to what is held back
    return opens_s


def opens_s(plan: Plan, excluded: Container[str]) -> float:
    """When the first that a plan's request may wait for may be asked again."""
    waited_for = [c for c in plan.busy if c.endpoint.name not in excluded]
    return earliest_s(waited_for, plan.query.now_s)


def soonest_s(plan: Plan) -> float:
    """When the first lawful endpoint may be asked again; a second where nothing says better."""
    now_s = plan.query.now_s
    waits = [c.full_until_s - now_s for c in plan.busy if c.full_until_s > now_s]
    if not waits:
        few = (c for c in plan.busy[:HELD_COUNT] if c.held is not None)
        waits = [c.held_until_s - now_s for c in few if now_s < c.held_until_s < math.inf]
    return min(waits, default=1.0)


def _prospect(near: Iterable[Candidate]) -> Prospect:
    found = [c for c in near if c.able]
    able = [c for c in found if c.out is None] or found  # who has fallen silent comes last
    return Prospect(
        slots=sum(c.slots for c in able),
        cost_s=min((c.service_s for c in able), default=0.0),
        able=able,
        quickest=nsmallest(QUICKEST_COUNT, able, key=_alone_s),
    )


def _alone_s(candidate: Candidate) -> float:
    warm_s = candidate.net_s + candidate.service_s
    return warm_s if candidate.state is ModelState.WARM else warm_s + candidate.load_s
