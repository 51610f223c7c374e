"""One thread for what is to be done in order, and another where it hangs."""

import gc
import weakref
from concurrent.futures import CancelledError
from threading import Event, current_thread
from time import monotonic

import pytest

from isochrone.edge_agent.runtime.loading.loader import Loader


class Thing:
    """Something that can be seen to be gone."""


@pytest.fixture
def loader():
    made = Loader()
    yield made
    made.shutdown()


def test_everything_is_done_in_order_in_one_thread(loader):
    done: list[int] = []
    tasks = [loader.submit(done.append, number) for number in range(50)]
    threads = {loader.submit(current_thread).result(10) for _ in range(3)}
    assert all(task.done() for task in tasks)
    assert done == list(range(50))
    assert len(threads) == 1


def test_an_error_belongs_to_who_asked(loader):
    with pytest.raises(ZeroDivisionError):
        loader.submit(divmod, 1, 0).result(10)
    assert loader.submit(divmod, 7, 2).result(10) == (3, 1)


def test_what_waits_behind_one_that_hangs_is_done_by_another_thread(loader):
    began, goes_on = Event(), Event()

    def hang():
        began.set()
        goes_on.wait(30)
        return current_thread()

    hanging, waiting = loader.submit(hang), loader.submit(current_thread)
    assert began.wait(10)
    assert loader.leave_behind(hanging)
    other = waiting.result(10)
    assert loader.hangs
    goes_on.set()
    assert hanging.result(10) is not other
    assert loader.submit(current_thread).result(10) is other
    assert not loader.hangs


def test_only_what_runs_can_be_left_behind(loader):
    done = loader.submit(divmod, 7, 2)
    thread = loader.submit(current_thread).result(10)
    assert not loader.leave_behind(done)
    assert loader.submit(current_thread).result(10) is thread


def test_what_was_taken_is_still_done_unless_it_is_cancelled():
    for cancelled in (False, True):
        loader, goes_on = Loader(), Event()
        first, second = loader.submit(goes_on.wait, 30), loader.submit(divmod, 7, 2)
        while not first.running():
            pass
        loader.shutdown(wait=False, cancel_futures=cancelled)
        goes_on.set()
        assert first.result(10)
        if cancelled:
            with pytest.raises(CancelledError):
                second.result(10)
        else:
            assert second.result(10) == (3, 1)
        with pytest.raises(RuntimeError):
            loader.submit(divmod, 7, 2)


def test_nothing_that_came_of_a_task_is_held(loader):
    gone = weakref.ref(loader.submit(Thing).result(10))
    until_s = monotonic() + 10.0
    while gone() is not None and monotonic() < until_s:
        gc.collect()
    assert gone() is None
