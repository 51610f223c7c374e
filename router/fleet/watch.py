"""Whom to probe when: every endpoint that has not been heard of for an interval, without a walk.

An answer to a request is as good as one to a probe. A large fleet is asked less often, so that the
watch as a whole stays below a fixed rate: its agents renew their leases anyway.
"""

from heapq import heappop, heappush
from itertools import count

from router.fleet.site import Site

MOST_PER_S = 200.0
"""Probes a second that the watch over idle endpoints may cost."""
_GRAIN_S = 0.01


class Watch:
    """A heap of endpoints by the instant at which each may be due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Site]] = []
        self._order = count()
        self._watched: set[Site] = set()
        self._hurried: dict[Site, None] = {}

    def add(self, site: Site) -> None:
        """Watch over it from now on; it is due at once."""
        self._watched.add(site)
        self._hurried[site] = None
        self._push(site, 0.0)

    def drop(self, site: Site) -> None:
        """Watch over it no longer."""
        self._watched.discard(site)
        self._hurried.pop(site, None)

    def hurry(self, site: Site) -> None:
        """Something is to be learned there: it is due at once."""
        if site in self._watched:
            self._hurried[site] = None

    def due(self, now_s: float, interval_s: float) -> list[Site]:
        """Who should be probed now; each is told once, and comes again after the interval."""
        interval_s = max(interval_s, len(self._watched) / MOST_PER_S)
        ready = {site: None for site in self._hurried if not site.probing}
        for site in ready:
            del self._hurried[site]
        while self._heap and self._heap[0][0] <= now_s:
            site = heappop(self._heap)[2]
            if site not in self._watched:
                continue
            again_s = max(site.heard_s, site.probed_s) + interval_s
            if again_s <= now_s and not site.probing:
                ready[site] = None
                again_s = now_s + interval_s
            self._push(site, max(again_s, now_s + _GRAIN_S))
        return list(ready)

    def _push(self, site: Site, at_s: float) -> None:
        heappush(self._heap, (at_s, next(self._order), site))
