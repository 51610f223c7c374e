"""Whom to probe when: every endpoint that has not been heard of for an interval, without a walk.

An answer to a request is as good as one to a probe, but not a cloud region's: it tells nothing of
the models there, which may have changed under a steady load. Whoever is in use, or out, is watched
closely; so is, in a small fleet, who may fall cold. The others less often, and in a large fleet so
seldom that all of that stays below a fixed rate.
"""

from heapq import heappop, heappush
from itertools import count

from isochrone.router.fleet.site import Site
from isochrone.router.members.endpoint import Tier

MOST_PER_S = 200.0
"""Probes a second that the watch over endpoints which are not in use may cost."""
QUIET_FACTOR = 5.0
"""So many times the interval for them at least."""
IN_USE_S = 2.0
"""Who was sent nothing for so long is not in use."""
_GRAIN_S = 0.01
_AT_ONCE = 64
"""Probes that leave in one go: a whole fleet is not asked at one instant."""


class Watch:
    """A heap of endpoints by the instant at which each may be due; only its last entry counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Site]] = []
        self._order = count()
        self._due_s: dict[Site, float] = {}
        self._hurried: dict[Site, None] = {}

    def add(self, site: Site) -> None:
        """Watch over it from now on; it is due at once."""
        self._due_s[site] = 0.0
        self._hurried[site] = None

    def drop(self, site: Site) -> None:
        """Watch over it no longer."""
        self._due_s.pop(site, None)
        self._hurried.pop(site, None)

    def hurry(self, site: Site) -> None:
        """Something is to be learned there: it is due at once."""
        if site in self._due_s:
            self._hurried[site] = None

    def due(self, now_s: float, interval_s: float) -> list[Site]:
        """Who should be probed now; each is told once, and comes again after its interval."""
        ready = [site for site in self._hurried if not site.probing][:_AT_ONCE]
        for site in ready:
            del self._hurried[site]
            self._push(site, now_s + interval_s)
        while self._heap and self._heap[0][0] <= now_s and len(ready) < _AT_ONCE:
            at_s, _, site = heappop(self._heap)
            if self._due_s.get(site) != at_s:
                continue
            again_s = _reported_s(site) + self._interval_s(site, now_s, interval_s)
            if again_s <= now_s and not site.probing:
                ready.append(site)
                again_s = now_s + interval_s
            self._push(site, max(again_s, now_s + _GRAIN_S))
        return ready

    def _interval_s(self, site: Site, now_s: float, interval_s: float) -> float:
        in_use = site.open or now_s - max(site.sent_s, site.wake_s) < IN_USE_S
        if in_use or site.health.out is not None or site.loading:
            return interval_s
        factor = 1.0 if site.cooling else QUIET_FACTOR
        return max(factor * interval_s, len(self._due_s) / MOST_PER_S)

    def _push(self, site: Site, at_s: float) -> None:
        self._due_s[site] = at_s
        heappush(self._heap, (at_s, next(self._order), site))


def _reported_s(site: Site) -> float:
    """When it last told, or was asked, how it is."""
    if site.endpoint.tier is Tier.CLOUD:
        return site.probed_s
    return max(site.heard_s, site.probed_s)
