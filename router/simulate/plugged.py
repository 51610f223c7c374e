"""A rule of the `Algorithm` kind as a router: the product's `Machine` carries its choices out.

Law is filtered before the rule is asked, for every rule alike. A rule that names nobody keeps the
call waiting at the router, first come, first served among calls of one law, until something changes
there: an answer, a probe or an endpoint more.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from isochrone.router.dispatch.attempt import Attempt
from isochrone.router.dispatch.classify import retry_after_s
from isochrone.router.dispatch.command import (
    Cancel,
    Choose,
    Command,
    Deliver,
    GiveUp,
    Send,
    Settle,
)
from isochrone.router.dispatch.event import DeadlinePassed, Next
from isochrone.router.dispatch.machine import Machine
from isochrone.router.fleet.candidate import FrozenCandidate
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.law.permit import Permit, permit
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.scores import Seconds
from isochrone.router.simulate.algorithm import Algorithm, Factory, Reply, Site
from isochrone.router.simulate.asked import Asked
from isochrone.router.simulate.harness import Build
from isochrone.router.simulate.hearing import events
from isochrone.router.simulate.stage import Stage, known_as
from isochrone.router.simulate.visit import Visit
from isochrone.router.simulate.way import Way
from isochrone.router.upstream.event import Head
from isochrone.router.wire.report import CallReport

PROBE_TIMEOUT_S = 0.5
"""A probe without an answer for so long has failed."""
_UNPREDICTED = Seconds(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""These rules tell no seconds."""


def plugged(factory: Factory, seed: int) -> Build:
    """Routers that follow a rule; each has chance of its own."""

    def build(stage: Stage, index: int) -> PluggedRouter:
        return PluggedRouter(stage, index, factory, Random(f"rule/{seed}/{index}"))

    return build


@dataclass(frozen=True, slots=True)
class _Known:
    """An endpoint that the router knows."""

    site: Site
    way: Way
    candidate: FrozenCandidate


Lane = frozenset[str] | None


class PluggedRouter:
    """One router that asks a rule."""

    def __init__(self, stage: Stage, index: int, factory: Factory, rng: Random) -> None:
        self.stage = stage
        self.engine = stage.engine
        self.name = stage.world.scenario.routers[index].name
        self.tries = stage.world.scenario.tries
        self.probes = 0
        self.sequence = 0
        self._index = index
        self._ways = stage.ways(index)
        self._known: dict[str, _Known] = {}
        self._lawful: dict[Lane, list[_Known]] = {}
        self._waiting: dict[Lane, deque[_Run]] = {}
        self._serving = False
        first = [
            site for number, site in enumerate(stage.sites(index)) if not stage.joins_s(number)
        ]
        self.rule: Algorithm = factory(first, rng, stage.truth(index))

    def join(self, index: int) -> None:
        """From now on it knows this endpoint."""
        site = self.stage.sites(self._index)[index]
        entry = self.stage.world.scenario.endpoints[index]
        candidate = FrozenCandidate(known_as(entry))
        self._known[site.name] = _Known(site, self._ways[site.name], candidate)
        self._lawful.clear()
        self.serve()

    def ask(self, asked: Asked) -> None:
        """Choose, or let it wait; then probe whoever the rule wants to know about."""
        run = _Run(self, asked)
        self.engine.at(asked.call.deadline_s, run.expire)
        lane = self._waiting.get(asked.call.required_regions)
        if lane or not run.start():
            self.wait(run)
        sites = [known.site for known in self.lawful(asked.call.required_regions)]
        for site in self.rule.due(asked.call, sites, self.engine.now_s):
            self._probe(site)

    def lawful(self, lane: Lane) -> list[_Known]:
        """Whom calls under this law may go to."""
        lawful = self._lawful.get(lane)
        if lawful is None:
            lawful = self._lawful[lane] = [
                known for known in self._known.values() if lane is None or known.site.region in lane
            ]
        return lawful

    def known(self, name: str) -> _Known:
        """An endpoint by its name."""
        return self._known[name]

    def wait(self, run: "_Run") -> None:
        """It waits behind the others of its law."""
        self._waiting.setdefault(run.asked.call.required_regions, deque()).append(run)

    def serve(self) -> None:
        """Something has changed: ask the rule again for those who wait."""
        if self._serving:
            return
        self._serving = True
        for lane in self._waiting.values():
            while lane and (lane[0].asked.done or lane[0].start()):
                lane.popleft()
        self._serving = False

    def _probe(self, site: Site) -> None:
        self.probes += 1
        _Probe(self, self._known[site.name]).send()


class _Run:
    """One request under way, or waiting. `made` are the tries of its present attempt."""

    __slots__ = ("asked", "held", "machine", "made", "query", "router", "tried")

    def __init__(self, router: PluggedRouter, asked: Asked) -> None:
        self.router = router
        self.asked = asked
        self.machine: Machine | None = None
        self.held = False
        self.tried: list[str] = []
        self.made: dict[Attempt, tuple[Visit, _Known]] = {}
        self.query = asked.query()

    def start(self) -> bool:
        """Ask the rule; False: the call has to wait."""
        scored = self._pick()
        if scored is None:
            return False
        self.made = {}
        self.machine = Machine(most=self.router.tries - len(self.tried))
        self._obey(self.machine.start(scored))
        return True

    def expire(self) -> None:
        """The deadline has come."""
        if self.asked.done:
            return
        if self.machine is None:
            self.asked.end(self.router.engine.now_s)
        else:
            self._obey(self.machine.on(DeadlinePassed()))
            self.router.serve()

    def heard(self, visit: Visit) -> None:
        """A try has come to an end."""
        machine, now_s = self.machine, self.router.engine.now_s
        if machine is None:
            return
        attempt = next(one for one, (made, _) in self.made.items() if made is visit)
        heard = events(visit)
        if isinstance(heard[0], Head):
            attempt.report = visit.report
            attempt.retry_after_s = retry_after_s(heard[0].headers, self.router.engine.clock)
        self._obey(machine.hear(attempt, heard, now_s))
        self.router.serve()

    def _pick(self) -> Scored | None:
        call = self.asked.call
        lawful = self.router.lawful(call.required_regions)
        sites = [known.site for known in lawful if known.site.name not in self.tried]
        self.held = False
        if not sites:
            return None
        site = self.router.rule.choose(call, sites, self.router.engine.now_s)
        if site is None:
            self.held = True
            return None
        candidate = self.router.known(site.name).candidate
        leave = permit(self.query, candidate)
        if not isinstance(leave, Permit):
            return None
        return Scored(candidate, leave, _UNPREDICTED, 0.0, 0.0)

    def _obey(self, commands: Sequence[Command]) -> None:
        if commands and isinstance(commands[-1], Choose) and self.machine is not None:
            commands = [*commands[:-1], *self.machine.on(Next(self._pick()))]
        for command in commands:
            match command:
                case Send(attempt):
                    self._send(attempt)
                case Settle():
                    self._settle(command)
                case Cancel(attempt):
                    visit, known = self.made[attempt]
                    known.way.cancel(visit)
                case Deliver(attempt):
                    _, known = self.made[attempt]
                    self.asked.end(self.router.engine.now_s, known.site.name)
                case GiveUp():
                    self._give_up()
                case _:
                    raise AssertionError(f"short answers are held, not streamed: {command}")

    def _send(self, attempt: Attempt) -> None:
        router, call = self.router, self.asked.call
        known = router.known(attempt.endpoint)
        router.sequence += 1
        visit = self.asked.visit(router.name, router.sequence, self.heard)
        self.tried.append(known.site.name)
        self.made[attempt] = visit, known
        self.asked.leaves(known.way)
        router.rule.sent(call, known.site, router.engine.now_s)
        known.way.send(visit)

    def _settle(self, settle: Settle) -> None:
        rule, call, now_s = self.router.rule, self.asked.call, self.router.engine.now_s
        visit, known = self.made[settle.attempt]
        if settle.outcome is Outcome.ANSWERED and visit.report is not None:
            reply = _reply(visit.report, now_s - visit.sent_s)
            rule.answered(call, known.site, reply, now_s)
        else:
            rule.failed(call, known.site, settle.outcome, now_s)

    def _give_up(self) -> None:
        now_s = self.router.engine.now_s
        if self.held and now_s < self.asked.call.deadline_s:
            self.machine = None
            self.router.wait(self)
        else:
            self.asked.end(now_s)


class _Probe:
    """One probe under way; it is told once, or once given up."""

    def __init__(self, router: PluggedRouter, known: _Known) -> None:
        self._router = router
        self._known = known
        self._sent_s = router.engine.now_s
        self._done = False

    def send(self) -> None:
        """Ask."""
        self._known.way.ask(self._known.way.endpoint.telling.probe, self._heard)
        self._router.engine.after(PROBE_TIMEOUT_S, self._heard, None)

    def _heard(self, load: CallReport | None) -> None:
        if self._done:
            return
        self._done = True
        now_s = self._router.engine.now_s
        reply = None if load is None else _reply(load, now_s - self._sent_s)
        self._router.rule.probed(self._known.site, reply, now_s)
        self._router.serve()


def _reply(load: CallReport, latency_s: float) -> Reply:
    return Reply(
        latency_s=latency_s,
        wait_s=load.wait_s,
        infer_s=load.infer_s,
        in_flight=load.in_flight,
        slots=load.slots,
        recent_s=load.latency_s,
    )
