"""One run from a rule's name to its figures."""

from dataclasses import dataclass

from isochrone.router.simulate.arrivals import Request, requests
from isochrone.router.simulate.harness import play
from isochrone.router.simulate.report import Run, run_of
from isochrone.router.simulate.rules import rule_named
from isochrone.router.simulate.run import Task
from isochrone.router.simulate.tally import Ending, Tally
from isochrone.router.simulate.world import World


@dataclass(frozen=True, slots=True)
class Player:
    """Plays runs in a world. Satisfies `Play`.

    `trace` are the instants that a scenario with a trace follows, in seconds from the first.
    """

    world: World
    trace: tuple[float, ...] | None = None

    def __call__(self, task: Task) -> Run:
        """Play one run; what comes in the scenario's warm-up is played and not counted.

        Raises:
            ConfigError: a trace is wanted and none is given, or no request is left to count.
        """
        scenario = self.world.scenario
        tally = Tally(scenario.objective_s, scenario.deadline_s)

        def ended(request: Request, ending: Ending) -> None:
            if request.at_s >= scenario.warmup_s:
                tally.add(ending)

        played = play(
            self.world,
            requests(self.world, task.load, task.seed, self.trace),
            rule_named(task.algorithm).build(task.seed, len(scenario.routers)),
            seed=task.seed,
            ended=ended,
        )
        return run_of(
            task.algorithm,
            task.load,
            task.seed,
            tally,
            cost=played.cost,
            loads=played.loads,
            probes_per_request=played.probes / max(1, played.requests),
        )
