"""How many requests are at one endpoint, and what one more would cost there."""

import math
from functools import lru_cache
from typing import TypeVar

from isochrone.router.fleet.candidate import ANY_COUNT
from isochrone.router.fleet.congestion import price
from isochrone.router.fleet.latency import Ewma
from isochrone.router.fleet.priors import SERVICE_S
from isochrone.router.fleet.waiting import place

_T = TypeVar("_T")

REPORT_LASTS_S = 10.0
"""What one replica of a cloud region said counts for this long."""
LIMIT_LASTS_S = 10.0
"""How long the load at which an endpoint refused is not sent there again."""
USUAL_WEIGHT = 1 / 8
"""What one report weighs in how many requests of others are usually there."""
_GRAIN = 8
"""What is expected is reckoned in eighths of a request, so that few prices are ever worked out."""


class Occupancy:
    """The requests at one endpoint: what it reports, and what was sent that it cannot know of.

    `in_flight` is the sum, `unseen` our own part that its last report could not have seen, `place`
    the point of the wait curve where that load lies. With `limit` there it refuses more. `turn_s`
    is how long whatever runs there holds a slot; `congestion_s` prices one more request, in
    seconds, beside those `expected`. Only the ledger writes it.

    A report has travelled half a round trip, and what is sent on it travels the other half. By
    then others' requests that it counted have gone and new ones have come: of what it says beyond
    the usual, only `exp(-trip / turn)` is still to be expected. So an endpoint far away is
    neither fled nor rushed at for what it was a round trip ago. (That stale reports are to be
    interpreted by their age and the rate of arrivals: Dahlin, "Interpreting Stale Load
    Information", ICDCS 1999.)
    """

    __slots__ = (
        "_drift",
        "_instance",
        "_newest",
        "_one_process",
        "_sequence",
        "_usual",
        "congestion_s",
        "has_room",
        "in_flight",
        "limit",
        "limit_until_s",
        "place",
        "reported",
        "seen_sequence",
        "slots",
        "turn",
        "turn_s",
        "unseen",
    )

    def __init__(self, *, one_process: bool) -> None:
        """An agent is one process; a cloud region is the sum of its replicas' newest reports."""
        self.slots = 1
        self.limit = ANY_COUNT
        self.limit_until_s = 0.0
        self.in_flight = 0
        self.unseen = 0
        self.place = place(0, 1)
        self.turn_s = SERVICE_S
        self.congestion_s = 0.0
        self.has_room = True
        self._one_process = one_process
        self._usual = 0.0
        self._drift = 0
        self.reported = 0
        """How many requests the endpoint said are there."""
        self.seen_sequence = 0
        self._instance: str | None = None
        self._sequence = -1
        self._newest: dict[str, tuple[int, int, float]] = {}
        self.turn = Ewma(SERVICE_S)

    @property
    def expected(self) -> float:
        """How many will be there when a request sent now arrives."""
        return self.in_flight + self._drift / _GRAIN

    def hears(self, instance: str, sequence: int, in_flight: int, now_s: float) -> bool:
        """Take over a process's newer report; False: it is an old one, and changes nothing."""
        if not self._one_process:
            return self._sum(instance, sequence, in_flight, now_s)
        if instance != self._instance:
            self._instance = instance
            self.seen_sequence = 0  # a new process has seen nothing of ours yet
            self.limit = ANY_COUNT
        elif sequence <= self._sequence:
            return False
        self._sequence = sequence
        self.reported = in_flight
        return True

    def knows(self, instance: str) -> bool:
        """A report of that process counts."""
        return instance == self._instance or instance in self._newest

    def fill(self, count: int, now_s: float) -> None:
        """It refused when so many were there; for a while that counts as its limit."""
        self.limit = max(self.slots, count)
        self.limit_until_s = now_s + LIMIT_LASTS_S

    def count(self, own: dict[int, _T], trip_s: float | None = None, ended_count: int = 0) -> None:
        """Count anew; `own` are our requests there by their sequence, which grows.

        `trip_s` is how far away the report comes from that was just heard, if one was, and
        `ended_count` how many of `own` have ended by that.
        """
        unseen, seen = 0, self.seen_sequence
        for sequence in reversed(own):
            if sequence <= seen:
                break
            unseen += 1
        self.unseen = unseen
        own_count = len(own)
        if trip_s is not None:
            others = max(0, self.reported + unseen + ended_count - own_count)
            beyond = others - self._usual
            self._usual += USUAL_WEIGHT * beyond
            passed = 1.0 - math.exp(-trip_s / self.turn_s)
            self._drift = -round(_GRAIN * passed * beyond)
        self.weigh(own_count)

    def weigh(self, own_count: int) -> None:
        """Work out the load and its price; `own_count` of our requests are there."""
        in_flight = self.in_flight = max(self.reported + self.unseen, own_count)
        self.place, turns = _weighed(in_flight, self._drift, self.slots)
        self.has_room = in_flight < self.limit
        self.congestion_s = self.turn_s * turns if self.has_room else math.inf

    def _sum(self, instance: str, sequence: int, in_flight: int, now_s: float) -> bool:
        present = self._newest.get(instance)
        if present is not None and sequence <= present[0]:
            return False
        self._newest[instance] = (sequence, in_flight, now_s)
        total = 0
        for name, (_, count, heard_s) in list(self._newest.items()):
            if now_s - heard_s <= REPORT_LASTS_S:
                total += count
            else:
                del self._newest[name]
        self.reported = total
        return True


@lru_cache(maxsize=1 << 16)
def _weighed(in_flight: int, drift: int, slots: int) -> tuple[int, float]:
    """Where that many lie on the wait curve; the turns that one more costs beside who will come."""
    return place(in_flight, slots), price(in_flight + drift / _GRAIN, slots)
