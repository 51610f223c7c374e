"""A comparison: every rule at every load under every seed, over several processes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product

from router.simulate.report import Run


@dataclass(frozen=True, slots=True)
class Task:
    """One run: a rule's name, a load and a seed."""

    algorithm: str
    load: float
    seed: int


Play = Callable[[Task], Run]
"""Plays one run; it is pickled once for each process."""


def tasks(algorithms: Sequence[str], loads: Sequence[float], seeds: Sequence[int]) -> list[Task]:
    """All of them, in an order in which the first results can soon be compared."""
    return [Task(name, load, seed) for load, seed, name in product(loads, seeds, algorithms)]


def played(wanted: Sequence[Task], play: Play, jobs: int) -> Iterator[tuple[Task, Run]]:
    """Each run as it ends; which comes first depends on the machine, what it holds does not.

    Raises:
        IsochroneError: a run cannot be played; those not yet begun are given up.
    """
    if jobs <= 1 or len(wanted) <= 1:
        for task in wanted:
            yield task, play(task)
        return
    # A fresh interpreter for each: nothing of this one (threads, open files) is carried over.
    context = multiprocessing.get_context("spawn")
    workers = min(jobs, len(wanted))
    with ProcessPoolExecutor(workers, context, _remember, (play,)) as pool:
        waiting = {pool.submit(_play, task): task for task in wanted}
        try:
            yield from _ended(waiting)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ended(waiting: dict[Future[Run], Task]) -> Iterator[tuple[Task, Run]]:
    for future in as_completed(waiting):
        yield waiting[future], future.result()


_PLAYS: list[Play] = []
"""What this worker process was given; a pool has no other place for it."""


def _remember(play: Play) -> None:
    _PLAYS[:] = [play]


def _play(task: Task) -> Run:
    return _PLAYS[0](task)
