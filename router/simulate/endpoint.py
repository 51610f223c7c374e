"""A simulated endpoint: slots and a line as agents have them, a model, and whatever goes wrong.

It answers what an agent answers: inference with a report of its load, its full report, a wake and
a sample. Everything that comes passes `reach`, so that a frozen process hears it later and a dead
one never. Priorities, lines and limits are the agents' own (`isochrone.router.admission`).
"""

import math
from collections import deque
from collections.abc import Callable, Sized
from functools import partial

from isochrone.router.admission.limit import Limit
from isochrone.router.admission.queue import Line, Outcome, Room
from isochrone.router.simulate.arrivals import Request, service_s
from isochrone.router.simulate.engine import Engine
from isochrone.router.simulate.scenario import EndpointEntry
from isochrone.router.simulate.telling import Telling
from isochrone.router.simulate.visit import Loss, Visit
from isochrone.router.simulate.warmth import Warmth
from isochrone.router.wire.report import Waking

FAST_FAIL_S = 0.001
"""How long an endpoint takes to say that it failed, where it fails at once."""
RATE_TAU_S = 5.0
"""Over how long the rate of requests is averaged."""
_LEAST_S = 1e-12


class SimulatedEndpoint:
    """One endpoint of a run; the instants are its engine's, and what it holds is the truth."""

    def __init__(self, entry: EndpointEntry, model: str, engine: Engine, horizon_s: float) -> None:
        """Costs are counted up to `horizon_s`."""
        self.entry = entry
        self.name = entry.name
        self.region = entry.region
        self.slots = entry.slots
        self.busy_s = 0.0
        """Slot-seconds of service so far."""
        self.factor = 1.0
        """How many times the usual a service takes that begins now."""
        self.failing = 0
        self.dead = 0
        self.frozen_until_s = 0.0
        self.running: dict[Visit, None] = {}
        self.waiting: dict[Visit, None] = {}
        self.aside: dict[Visit, None] = {}
        """Who waits for the model to load."""
        self.coming: dict[Visit, None] = {}
        """Who has left a router and is not here yet; `arrived_s` is when it will be."""
        self.starts: list[Callable[[], None]] = []
        """Who is to be told when a new process has started."""
        self._engine = engine
        self._rate = (0.0, 0.0)
        self._slowdowns: list[float] = []
        self._held: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()
        self._aside_limit = entry.slots + entry.queue
        self._open_gate()
        self.warmth = Warmth(
            engine,
            load_s=entry.load_s,
            keep_alive_s=entry.keep_alive_s,
            horizon_s=horizon_s,
            is_idle=lambda: not self.in_flight and not self.frozen,
            warmed=self._warmed,
        )
        self.telling = Telling(self, model, engine)
        if entry.starts == "warm":
            self.warmth.begin_warm()

    # The truth about it.

    @property
    def in_flight(self) -> int:
        """What runs and what waits."""
        return len(self.running) + len(self.waiting) + len(self.aside)

    @property
    def queued(self) -> int:
        """What waits, for a slot or for the model."""
        return len(self.waiting) + len(self.aside)

    @property
    def active(self) -> Sized:
        """What runs."""
        return self.running

    @property
    def frozen(self) -> bool:
        """It stands still."""
        return self.frozen_until_s > self._engine.now_s

    @property
    def cost(self) -> float:
        """Its price, times slots, times the seconds that the machine held the model."""
        return self.entry.price * self.slots * self.warmth.held_s

    @property
    def rate_s(self) -> float:
        """Requests per second that were sent here lately."""
        rate_s, at_s = self._rate
        return rate_s * math.exp((at_s - self._engine.now_s) / RATE_TAU_S)

    def service_s(self, request: Request) -> float:
        """How long this very request would hold a slot that it got now."""
        return service_s(self.entry.service, request) * self.factor

    def expected_s(self, work: float) -> float:
        """How long a request of so much work would, as far as can be known beforehand."""
        return self.entry.service.mean_s * work * self.factor

    # What reaches it.

    def expect(self, visit: Visit, arrives_s: float) -> None:
        """A request has left for here."""
        now_s = self._engine.now_s
        self._rate = (self.rate_s + 1 / RATE_TAU_S, now_s)
        visit.sent_s, visit.arrived_s = now_s, arrives_s
        visit.planned_s = self.service_s(visit.request)
        self.coming[visit] = None

    def reach(self, act: Callable[[], None], lost: Callable[[], None]) -> bool:
        """Let something happen here, when it can; False: the connection is refused.

        `lost` is called instead where the process ends before it could.
        """
        if self.dead:
            return False
        if self.frozen:
            self._held.append((act, lost))
        else:
            act()
        return True

    def take(self, visit: Visit) -> None:
        """An inference request has come."""
        self.coming.pop(visit, None)
        if visit.wanted:
            self.telling.note(visit)
            self._admit(visit)

    def sample(self, visit: Visit) -> None:
        """A warm-up sample is asked for; it loads nothing."""
        if not visit.wanted:
            return
        self.telling.note(visit)
        visit.is_sample = True
        if self.warmth.is_warm or self.failing:
            self._admit(visit)
        else:
            self._refuse(visit, self.warmth.due_s)

    def withdraw(self, visit: Visit) -> None:
        """Nobody wants the answer any more; what runs cannot be stopped."""
        self.aside.pop(visit, None)
        if visit in self.waiting and visit.ticket is not None:
            self._line.leave(visit.ticket)

    def wake(self) -> Waking:
        """Have the model warm soon; tells how far it is."""
        self.warmth.load()
        return self.telling.waking()

    # Its work.

    def _admit(self, visit: Visit) -> None:
        visit.arrived_s = self._engine.now_s
        if self.failing:
            self._engine.after(FAST_FAIL_S, visit.end, 500, self.telling.call(visit))
        elif self.warmth.is_warm:
            self._enter(visit)
        elif len(self.aside) >= self._aside_limit:
            self._refuse(visit, self.warmth.due_s)
        else:
            self.aside[visit] = None
            self.warmth.load()

    def _enter(self, visit: Visit) -> None:
        """As an agent's gate: a slot, or a place in the line, or a refusal."""
        if not visit.is_sample:
            self.warmth.use()
        if not self._line and self._limit.in_flight < self.slots:
            self._begin(visit)
            return
        visit.ticket = self._line.join(
            tenant="",
            priority=visit.priority,
            now_s=self._engine.now_s,
            deadline_s=visit.deadline_s,
            cost_s=self.telling.service_s,
            item=visit,
            settled=partial(self._settle, visit),
        )
        if visit.ticket is None:
            self._refuse(visit, self._full_s())
        elif visit.ticket.outcome is None:
            self.waiting[visit] = None

    def _settle(self, visit: Visit, outcome: Outcome) -> None:
        self.waiting.pop(visit, None)
        match outcome:
            case Outcome.STARTED:
                self._begin(visit)
            case Outcome.EXPIRED:
                visit.end(504, self.telling.call(visit))
            case Outcome.SHED:
                self._refuse(visit, self._full_s())
            case Outcome.WITHDRAWN:
                pass

    def _begin(self, visit: Visit) -> None:
        now_s = self._engine.now_s
        visit.lease = self._limit.acquire()
        visit.wait_s = now_s - visit.arrived_s
        visit.infer_s = self.service_s(visit.request)
        visit.due_s = now_s + visit.infer_s
        self.running[visit] = None
        self._engine.at(visit.due_s, self._end, visit)

    def _end(self, visit: Visit) -> None:
        if visit not in self.running or visit.lease is None:
            return
        now_s = self._engine.now_s
        if visit.due_s > now_s + _LEAST_S:  # the endpoint stood still in between
            if visit.due_s < math.inf:
                self._engine.at(visit.due_s, self._end, visit)
            return
        visit.infer_s = now_s - visit.arrived_s - visit.wait_s
        self.busy_s += visit.infer_s
        self.telling.served(visit.infer_s)
        del self.running[visit]
        visit.lease.release()
        visit.end(200, self.telling.call(visit))
        if not visit.is_sample:
            self._rest()

    def _freed(self) -> None:
        while self._limit.in_flight < self.slots and self._line.start(self._engine.now_s):
            pass

    def _warmed(self) -> None:
        waited, self.aside = self.aside, {}
        for visit in waited:
            visit.cold_s = self._engine.now_s - visit.arrived_s
            self._enter(visit)

    def _refuse(self, visit: Visit, due_s: float) -> None:
        visit.retry_after_s = due_s
        visit.end(503, self.telling.call(visit))

    def _full_s(self) -> float:
        return (len(self.running) + len(self.waiting)) * self.telling.service_s / self.slots

    def _rest(self) -> None:
        if all(visit.is_sample for visit in (*self.running, *self.waiting)):
            self.warmth.rest()

    def _open_gate(self) -> None:
        self._limit = Limit(self.slots, self._freed)
        self._line: Line[Visit] = Line(Room(self.entry.queue))

    # What goes wrong.

    def kill(self) -> None:
        """The process is gone, and with it whatever was there."""
        self.dead += 1
        lost = (*self.running, *self.waiting, *self.aside)
        for held in (self.running, self.waiting, self.aside):
            held.clear()
        unheard, self._held = self._held, deque()
        self._open_gate()
        self.warmth.unload()
        for visit in lost:
            visit.lose(Loss.RESET)
        for _, lose in unheard:
            lose()

    def revive(self) -> None:
        """A new process has started; one that keeps its model warm loads it first."""
        self.dead -= 1
        if self.dead:
            return
        self.telling.restart()
        for started in self.starts:
            started()
        if self.entry.starts == "warm":
            self.warmth.load()

    def freeze(self, until_s: float) -> None:
        """Nothing moves until then; all that was to happen happens so much later."""
        more_s = until_s - max(self._engine.now_s, self.frozen_until_s)
        if more_s <= 0:
            return
        self.frozen_until_s = until_s
        self.warmth.delay(more_s)
        for visit in self.running:
            visit.due_s += more_s

    def thaw(self) -> None:
        """What came in the meantime is heard now."""
        while self._held and not self.frozen and not self.dead:
            self._held.popleft()[0]()
        self._rest()

    def break_down(self) -> None:
        """From now on every call fails at once, while reports look well."""
        self.failing += 1

    def recover(self) -> None:
        """One such breakdown is over."""
        self.failing -= 1

    def slow(self, factor: float) -> None:
        """Service that begins from now on takes so many times as long."""
        self._slowdowns.append(factor)
        self.factor = math.prod(self._slowdowns)

    def quicken(self, factor: float) -> None:
        """One such slowdown is over."""
        self._slowdowns.remove(factor)
        self.factor = math.prod(self._slowdowns)
