"""A comparison: every rule at every load under every seed, over several processes."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product

from isochrone.router.simulate.report import Run


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


def played(
    wanted: Sequence[Task], play: Play, jobs: int
) -> Generator[tuple[Task, Run], None, None]:
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
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(wanted)), context, _begin, (play,))
    try:
        waiting = {pool.submit(_play, task): task for task in wanted}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BaseException:  # Ctrl-C too: a run under way would hold us up until its end
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_PLAYS: list[Play] = []
"""What this worker process was given; a pool has no other place for it."""


def _begin(play: Play) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all; who began us ends us
    _PLAYS[:] = [play]


def _play(task: Task) -> Run:
    return _PLAYS[0](task)
