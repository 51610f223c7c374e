"""The one thread that loads, unloads and measures models, one after another.

A thread that hangs in a load cannot be stopped. It is left behind, and another goes on with what
waits.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_Task = tuple[Future[Any], Callable[[], Any]]


class Loader(Executor):
    """Does what it is given in order, in a thread that does not keep the process from ending."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = Lock()
        self._running: Future[Any] | None = None
        self._left: list[Future[Any]] = []
        self._closed = False
        self._begin()

    def submit(
        self, fn: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> Future[_Result]:
        """What `fn` comes to, once everything before it is done.

        Raises:
            RuntimeError: it was shut down.
        """
        future: Future[_Result] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the loader was shut down")
            self._waiting.put((future, partial(fn, *args, **kwargs)))
        return future

    def leave_behind(self, task: Future[Any]) -> bool:
        """Go on without waiting for a task; False where it is not the one that runs."""
        with self._lock:
            if self._running is not task or task.done():
                return False
            self._running = None
            self._left.append(task)
            self._begin()
        task.add_done_callback(self._left.remove)
        return True

    @property
    def hangs(self) -> bool:
        """A task that was left behind goes on."""
        return bool(self._left)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; what was taken is done, or cancelled."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._cancel_all()
            self._waiting.put(None)
        if wait:
            self._thread.join()

    def _cancel_all(self) -> None:
        try:
            while task := self._waiting.get_nowait():
                task[0].cancel()
        except Empty:
            return

    def _begin(self) -> None:
        self._thread = Thread(target=self._work, name="load", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while self._did_next():
            pass

    def _did_next(self) -> bool:
        """Do what comes next; False where nothing is to be done here any more."""
        task = self._waiting.get()
        if task is None:
            return False
        future, work = task
        with self._lock:
            self._running = future
        if future.set_running_or_notify_cancel():
            _do(future, work)
        with self._lock:
            goes_on = self._running is future
            if goes_on:
                self._running = None  # what came of it belongs to who asked
        del task, future, work  # as below
        return goes_on


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        outcome = work()
    except BaseException as error:  # whoever waits for it is to see it, as with any executor
        future.set_exception(error)
    else:
        future.set_result(outcome)
    del future, work  # an error knows the frames it came through, and would keep itself
