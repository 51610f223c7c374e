"""Who may still wait: a tenant's part of the queue, by its weight and by the places that are free.

A fair order alone makes no fair shares: in a full queue, who asks most often takes most of the
places, and only who has a place has a turn. So whoever comes is let in only while its tenant waits
with less than its share of 7 times the places that are free: an eighth of the queue stays free for
those who have nothing in it yet, and nobody who was let in has to leave again for an equal. The
thresholds are those of Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory
Packet Switches" (IEEE/ACM Transactions on Networking 6(2), 1998), with weights.

A class sees those below it as if they were not there: they give way to it.
"""

from collections.abc import Mapping

from isochrone.router.admission.ticket import HIGHEST, LOWEST

_FREE_PART = 8
"""One of so many places stays free."""


class Backlogs:
    """How many wait, by class and tenant."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` are tenants' shares; who is not named has 1."""
        self._weights = weights
        self._classes = {priority: _Class() for priority in range(HIGHEST, LOWEST + 1)}

    def put(self, tenant: str, priority: int) -> None:
        """One more waits."""
        of_class = self._classes[priority]
        if tenant not in of_class.waiting:
            of_class.waiting[tenant] = 0
            of_class.weight += self._weight(tenant)
        of_class.waiting[tenant] += 1
        of_class.count += 1

    def gone(self, tenant: str, priority: int) -> None:
        """One waits no more."""
        of_class = self._classes[priority]
        of_class.count -= 1
        of_class.waiting[tenant] -= 1
        if not of_class.waiting[tenant]:
            del of_class.waiting[tenant]
            of_class.weight -= self._weight(tenant)

    def takes(self, tenant: str, priority: int, places: int, spare: int) -> bool:
        """One more may wait in `places`, beside `spare` that are about to start."""
        of_class = self._classes[priority]
        own = of_class.waiting.get(tenant, 0)
        weight = self._weight(tenant)
        share = weight / (of_class.weight if own else of_class.weight + weight)
        ahead = sum([self._classes[number].count for number in range(HIGHEST, priority + 1)])
        return within(own - spare, places, places + spare - ahead, share)

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)


class _Class:
    """Those of one priority; `weight` is the sum of the weights of those who wait."""

    __slots__ = ("count", "waiting", "weight")

    def __init__(self) -> None:
        self.count = 0
        self.weight = 0.0
        self.waiting: dict[str, int] = {}


def within(own: int, places: int, free: int, share: float = 1.0) -> bool:
    """A tenant that has `own` of the places may have one more of the `free` ones."""
    if own <= 0 or free <= 0:
        return free > 0
    kept = max(1.0, places / _FREE_PART)
    return own + 1 <= share * free * (places - kept) / kept
