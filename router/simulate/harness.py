"""One run: a world, its requests and a rule, played in virtual time to the end.

The harness is the judge: it knows the truth, sees every try leave, and holds each request to one
end. Whatever chance there is comes from the seed and is the same for every rule.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from isochrone.router.simulate.algorithm import Call, Site
from isochrone.router.simulate.arrivals import Request
from isochrone.router.simulate.asked import Asked
from isochrone.router.simulate.faults import disturbances
from isochrone.router.simulate.stage import LEAD_S, Stage
from isochrone.router.simulate.tally import Ending
from isochrone.router.simulate.way import Way
from isochrone.router.simulate.world import World

REGRET_EVERY = 8
"""The truth is asked about one request in so many: it takes longer than most decisions."""
_GRACE_S = 30.0
"""So long after the last deadline everything must have ended."""


class SimulatedRouter(Protocol):
    """One router of a run."""

    @property
    def probes(self) -> int:
        """How many control messages it has sent."""
        ...

    def join(self, index: int) -> None:
        """From now on it knows this endpoint."""
        ...

    def ask(self, asked: Asked) -> None:
        """A client has asked for something; it is to end, once."""
        ...


Build = Callable[[Stage, int], SimulatedRouter]
"""Makes the router with this index, on the stage that it will run on."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a run came to besides the endings of its requests; costs up to the scenario's end."""

    requests: int
    cost: float
    probes: int
    loads: int
    events: int


def play(
    world: World,
    requests: Iterable[Request],
    build: Build,
    *,
    seed: int,
    ended: Callable[[Request, Ending], None],
    regret_every: int = REGRET_EVERY,
) -> Played:
    """Play one run; `ended` is told of every request exactly once, in the order of their ends.

    Raises:
        RuntimeError: a request did not end, or ended twice: a mistake of the rule's or ours.
    """
    stage = Stage(world, disturbances(world.scenario, seed), seed)
    return Run(stage, build, ended, regret_every).play(requests)


class Run:
    """One run under way."""

    def __init__(
        self,
        stage: Stage,
        build: Build,
        ended: Callable[[Request, Ending], None],
        regret_every: int = REGRET_EVERY,
    ) -> None:
        self.stage = stage
        self.routers = [build(stage, index) for index in range(len(stage.world.scenario.routers))]
        self._truths = [stage.truth(index) for index in range(len(self.routers))]
        self._told = ended
        self._regret_every = regret_every
        self._coming: Iterator[Request] = iter(())
        self._arrived = 0
        self._open = 0
        self._closing = False
        self._known: list[int] = []
        self._lawful: dict[tuple[int, frozenset[str] | None], list[Site]] = {}
        self._laws = [
            (one.name, one.requirement, one.priority, stage.world.scenario.lawful(one.require))
            for one in stage.world.scenario.tenants
        ]

    def play(self, requests: Iterable[Request]) -> Played:
        """From the first request to the last end.

        Raises:
            RuntimeError: a request did not end.
        """
        stage = self.stage
        self._coming = iter(requests)
        for index in range(len(stage.endpoints)):
            stage.engine.at(stage.joins_s(index), self._join, index)
        stage.engine.at(0.0, self._next)
        stage.engine.run(stage.end_s + stage.world.scenario.deadline_s + _GRACE_S)
        if self._open:
            raise RuntimeError(f"{self._open} requests have not ended")
        return Played(
            requests=self._arrived,
            cost=stage.cost,
            probes=sum(router.probes for router in self.routers),
            loads=stage.loads,
            events=stage.engine.events,
        )

    def _join(self, index: int) -> None:
        self._known.append(index)
        self._lawful.clear()
        for router in self.routers:
            router.join(index)

    def _next(self) -> None:
        request = next(self._coming, None)
        if request is None:
            self.stage.engine.at(self.stage.end_s, self._close)
        else:
            self.stage.engine.at(request.at_s + LEAD_S, self._arrive, request)

    def _arrive(self, request: Request) -> None:
        stage = self.stage
        now_s = stage.engine.now_s
        tenant, requirement, priority, required_regions = self._laws[request.tenant]
        call = Call(
            number=request.number,
            model=stage.model,
            client_region=stage.world.clients[request.client].region,
            tenant=tenant,
            required_regions=required_regions,
            priority=priority,
            body_bytes=request.body_bytes,
            work=request.work,
            asked_s=now_s,
            deadline_s=now_s + stage.world.scenario.deadline_s,
        )
        asked = Asked(call, request, requirement, regret=self._regret_s, ended=self._ended)
        self._arrived += 1
        self._open += 1
        self._next()
        self.routers[request.router].ask(asked)

    def _ended(self, request: Request, ending: Ending) -> None:
        self._open -= 1
        self._told(request, ending)
        self._stop_if_over()

    def _close(self) -> None:
        """The scenario's time is over; what is under way may end."""
        self._closing = True
        self._stop_if_over()

    def _stop_if_over(self) -> None:
        if self._closing and not self._open:
            self.stage.engine.stop()

    def _regret_s(self, asked: Asked, way: Way) -> float | None:
        """True seconds of the way that a request takes, over those of the best one.

        Who never answers takes as long as the deadline.
        """
        if self._regret_every <= 0 or asked.request.number % self._regret_every:
            return None
        router, call = asked.request.router, asked.call
        truth = self._truths[router]
        times_s = {
            site.name: truth.total_s(call, site)
            for site in self._lawful_sites(router, call.required_regions)
        }
        longest_s = call.deadline_s - call.asked_s
        chosen_s = times_s.get(way.endpoint.name, longest_s)
        best_s = min(times_s.values(), default=longest_s)
        return min(chosen_s, longest_s) - min(best_s, longest_s)

    def _lawful_sites(self, router: int, required_regions: frozenset[str] | None) -> Sequence[Site]:
        """Those of the known endpoints that a request may go to."""
        lawful = self._lawful.get((router, required_regions))
        if lawful is None:
            every = self.stage.sites(router)
            lawful = self._lawful[router, required_regions] = [
                every[index]
                for index in self._known
                if required_regions is None or every[index].region in required_regions
            ]
        return lawful
