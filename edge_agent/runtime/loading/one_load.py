"""One load on its way through the loader's thread, waited for on the event loop: not for ever."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from isochrone.edge_agent.runtime.loading.load import Loaded, Processes, shut_down
from isochrone.edge_agent.runtime.loading.loader import Loader
from isochrone.router.errors import Unavailable

Load = Callable[[Processes, Callable[[], None]], Loaded]
"""Blocks until a model is warm; it tells of the processes that it begins, and of the weights."""


class OneLoad:
    """`outcome` is what it comes to: a model, an error, or cancelled where it never began.

    Once it has run for `timeout_s`, its outcome is an error: the processes that it began are ended,
    its thread is left to it, and a model that comes of it after all is shut down.
    """

    def __init__(
        self,
        title: str,
        loader: Loader,
        load: Load,
        *,
        began: Callable[[], None],
        read: Callable[[], None],
        timeout_s: float,
    ) -> None:
        """`load` runs in the loader's thread.

        `began` is called here when its turn has come, `read` when the weights are in memory.
        """
        self._title = title
        self._loop = asyncio.get_running_loop()
        self._loader = loader
        self._timeout_s = timeout_s
        self._began = began
        self._read = read
        self._processes = Processes()
        self._watch: asyncio.TimerHandle | None = None
        self._is_over = False
        self._then: Callable[[], None] | None = None
        self.outcome: asyncio.Future[Loaded] = self._loop.create_future()
        self._task: Future[Loaded] | None = loader.submit(self._run, load)
        self._task.add_done_callback(lambda task: self._tell(lambda: self._ended(task)))

    @property
    def hangs(self) -> bool:
        """It has an outcome, and its thread works on."""
        return self.outcome.done() and not self._is_over

    def when_over(self, then: Callable[[], None]) -> None:
        """Call `then` when its thread works no more, and nothing of it is in memory or is its."""
        if self._is_over:
            then()
        else:
            self._then = then

    def call_off(self) -> None:
        """Where it has not begun, it does not begin."""
        if self._task is not None:
            self._task.cancel()

    def forsake(self) -> None:
        """Nobody waits for it any more."""
        self.call_off()
        self._processes.end()
        self.outcome.cancel()

    def _run(self, load: Load) -> Loaded:
        self._tell(self._begins)
        return load(self._processes, lambda: self._tell(self._has_read))

    def _tell(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(what)

    def _begins(self) -> None:
        if not self.outcome.done():
            self._began()
            self._watch = self._loop.call_later(self._timeout_s, self._give_up)

    def _has_read(self) -> None:
        if not self.outcome.done():
            self._read()

    def _give_up(self) -> None:
        task = self._task
        if task is not None and not self.outcome.done() and self._loader.leave_behind(task):
            self._processes.end()
            self.outcome.set_exception(
                Unavailable(
                    f"{self._title} was not warm after {self._timeout_s:g} s; see what its files"
                    " or its warm-up wait for, or raise load_timeout_s"
                )
            )

    def _ended(self, task: Future[Loaded]) -> None:
        self._task = None  # it would keep what it tells of its end, which is this
        if self._watch is not None:
            self._watch.cancel()
        if not self.outcome.done():
            self._is_over = True
            _copy(task, self.outcome)
        elif task.cancelled() or task.exception() is not None:
            self._end()
        else:
            with suppress(RuntimeError):  # it was shut down: everything ends now
                dropping = self._loader.submit(shut_down, task.result().model)
                dropping.add_done_callback(lambda _: self._tell(self._end))

    def _end(self) -> None:
        self._is_over = True
        if self._then is not None:
            self._then()


def _copy(task: Future[Loaded], outcome: asyncio.Future[Loaded]) -> None:
    if task.cancelled():
        outcome.cancel()
        return
    error = task.exception()
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
