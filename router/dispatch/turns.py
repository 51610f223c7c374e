"""Whose turn it is among those who wait, and when to look whether somebody can take them.

Looking costs a decision for each lane, so those who wait for a model are looked at when something
of that model has changed, when an endpoint that was full should have room again, and otherwise ten
times a second; and one sweep passes over so many lanes only.
"""

from collections.abc import Callable, Iterable

from isochrone.router.admission.gate import Gate
from isochrone.router.dispatch.outlook import Lane, may_wait, opens_s, soonest_s
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.policy.policy import Plan

LANES_COUNT = 4
"""In how many lanes somebody is looked for when a place becomes free."""
LOOKS_COUNT = 16
"""In how many lanes of a model one sweep finds nobody who can start."""
LOOK_AGAIN_S = 0.1
"""Where nothing is known to have changed, those who wait are looked at so often."""


class Turns:
    """Starts those who wait in a gate, most urgent first, passing over lanes that are blocked.

    `plan` decides for a request, `begin` carries that out; neither is called from within the other.
    """

    def __init__(
        self,
        gate: Gate[RoutedRequest],
        plan: Callable[[RoutedRequest, float], Plan],
        begin: Callable[[RoutedRequest, Plan, float], None],
    ) -> None:
        self._gate = gate
        self._plan = plan
        self._begin = begin
        self._due_s: dict[str, float] = {}
        self._passed: dict[str, set[Lane]] = {}  # what the last, unfinished look has seen
        self._serving = False

    def sweep(self, now_s: float) -> None:
        """Start everybody whose turn it is and whom somebody can take."""
        if not self._gate.waiting or self._serving:
            return
        for model in self._gate.models(now_s):
            if self._due_s.get(model, 0.0) <= now_s:
                self._look(model, now_s)

    def news(self, models: Iterable[str]) -> None:
        """Something has been heard that concerns these: the next sweep looks again."""
        for model in models:
            self._due_s.pop(model, None)

    def freed(self, models: Iterable[str], now_s: float) -> None:
        """One place may have become free for these models; the next sweep looks for more."""
        if self._serving:
            return
        looks = LANES_COUNT
        for model in models:
            self._due_s.pop(model, None)
            blocked: set[Lane] = set()
            line = self._gate.line(model, now_s)
            while looks and (ticket := line.peek(now_s, blocked)) is not None:
                looks = 0 if self._start(ticket.item, blocked, now_s) else looks - 1

    def _look(self, model: str, now_s: float) -> None:
        """See to one model; of very many lanes, the next sweep looks at the others."""
        blocked = self._passed.pop(model, set())
        due_s = now_s + LOOK_AGAIN_S
        looks = 0
        while looks < LOOKS_COUNT:
            ticket = self._gate.line(model, now_s).peek(now_s, blocked)
            if ticket is None:
                self._due_s[model] = due_s
                return
            if not self._start(ticket.item, blocked, now_s):
                due_s = min(due_s, now_s + soonest_s(ticket.item.plan))
                looks += 1
        self._passed[model] = blocked

    def _start(self, request: RoutedRequest, blocked: set[Lane], now_s: float) -> bool:
        """Decide for whose turn it is; False: it has to wait on, and its lane is blocked."""
        plan = self._plan(request, now_s)
        if not plan.order and self._may_wait(request, plan):
            blocked.add(request.lane)
            return False
        self._serving = True
        try:
            self._gate.line(request.query.model, now_s).start(now_s, blocked)
            self._begin(request, plan, now_s)
        finally:
            self._serving = False
        return True

    @staticmethod
    def _may_wait(request: RoutedRequest, plan: Plan) -> bool:
        """Somebody may have room for it before its deadline."""
        if not may_wait(plan, request.excluded):
            return False
        return opens_s(plan, request.excluded) < request.query.deadline_s
