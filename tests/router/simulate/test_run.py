"""A comparison over processes: the same runs in whatever order, and errors that come through."""

import multiprocessing
from dataclasses import dataclass

import pytest

from isochrone.router.errors import ConfigError
from isochrone.router.simulate.report import Run, run_of
from isochrone.router.simulate.run import Task, played, tasks
from isochrone.router.simulate.tally import Ending, Tally


@dataclass(frozen=True)
class Toy:
    """A play whose p99 is its task's numbers."""

    refuses: int | None = None

    def __call__(self, task: Task) -> Run:
        if task.seed == self.refuses:
            raise ConfigError("this one not")
        tally = Tally(0.4, 10.0)
        tally.add(Ending("eu", "any", True, task.load * task.seed, "e"))
        return run_of(task.algorithm, task.load, task.seed, tally, cost=0.0)


def test_rules_are_compared_seed_by_seed_and_load_by_load():
    assert tasks(["a", "b"], [0.5, 0.6], [1])[:3] == [
        Task("a", 0.5, 1),
        Task("b", 0.5, 1),
        Task("a", 0.6, 1),
    ]


def test_several_processes_give_what_one_gives():
    wanted = tasks(["a", "b"], [0.5], [1, 2])
    alone = dict(played(wanted, Toy(), 1))
    together = dict(played(wanted, Toy(), 2))
    assert together == alone
    assert list(alone) == wanted
    assert alone[Task("b", 0.5, 2)].p99_ms == pytest.approx(1000)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_run_refuses_is_told(jobs):
    with pytest.raises(ConfigError, match="this one not"):
        list(played(tasks(["a"], [0.5], [1, 2]), Toy(refuses=1), jobs))


def test_giving_up_ends_every_process():
    before = multiprocessing.active_children()
    runs = played(tasks(["a"], [0.5], range(1, 500)), Toy(), 2)
    next(runs)
    runs.close()
    assert multiprocessing.active_children() == before
