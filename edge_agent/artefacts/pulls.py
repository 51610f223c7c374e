"""Every pull that an agent does: each package once at a time, tried again until its time is up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from isochrone.edge_agent.artefacts.pull import Bringing, Progress, Wish
from isochrone.edge_agent.artefacts.source import Source, SourceFailed
from isochrone.edge_agent.pause import Pause
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.errors import BadRequest, IsochroneError, let_go
from isochrone.router.process import log

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
_log = logging.getLogger("isochrone.agent.pull")


@dataclass(slots=True)
class Pull:
    """One that was begun; `package` or `error` once `ended`."""

    progress: Progress
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    package: Package | None = None
    error: IsochroneError | None = None


class Pulls:
    """`spawn` runs them, in a group that cancels them; `arrived` is told of what came."""

    def __init__(
        self,
        bringing: Bringing,
        source: Callable[[], Awaitable[Source]],
        arrived: Callable[[Package], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        rng: Random,
        *,
        timeout_s: float,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._bringing = bringing
        self._source = source
        self._arrived = arrived
        self._spawn = spawn
        self._timeout_s = timeout_s
        self._pause = Pause(rng, first_pause_s, LONGEST_PAUSE_S)
        self._running: dict[tuple[str, str], Pull] = {}

    def running(self) -> list[Progress]:
        """How far each has come."""
        return [pull.progress for pull in self._running.values()]

    def begin(self, wish: Wish) -> Pull:
        """Begin a pull, or join the one that brings the same package.

        Raises:
            BadRequest: one runs for another digest of that version.
            Unavailable: this agent is starting or leaving.
        """
        key = wish.model, wish.version
        if key in self._running:
            pull = self._running[key]
            if wish.digest not in (None, pull.progress.wish.digest):
                raise BadRequest(f"{wish.title} is being pulled with another digest; wait for it")
            return pull
        pull = Pull(Progress(wish))
        self._spawn(self._run(key, pull))
        self._running[key] = pull
        return pull

    async def _run(self, key: tuple[str, str], pull: Pull) -> None:
        wish = pull.progress.wish
        try:
            pull.package = await self._brought(pull.progress)
            self._arrived(pull.package)
            log.event(_log, "pulled", model=wish.model, version=wish.version)
        except IsochroneError as error:
            pull.error = error
            self._tell(logging.ERROR, "not_pulled", wish, error)
            let_go(error)
        except Exception:  # a mistake of ours must not end the agent
            pull.error = IsochroneError(f"{wish.title}: internal error; see the log")
            _log.exception("%s could not be pulled", wish.title)
        finally:
            del self._running[key]
            pull.ended.set()

    async def _brought(self, progress: Progress) -> Package:
        try:
            async with asyncio.timeout(self._timeout_s):
                source = await self._source()
                try:
                    package: Package = await self._retrying(self._bringing.bring, source, progress)
                finally:
                    await source.close()
        except TimeoutError as error:
            raise SourceFailed(
                f"{progress.wish.title} was given up after {self._timeout_s:g} s with"
                f" {progress.bytes_done} of {progress.bytes_total} bytes here; pull it again, and"
                " it goes on from there"
            ) from error
        return package

    @property
    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception_type(SourceFailed),
            wait=self._pause,
            before_sleep=self._later,
        )

    def _later(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        progress: Progress = state.args[1]
        progress.interrupted = str(error)
        self._tell(logging.WARNING, "pull_interrupted", progress.wish, error)

    def _tell(self, level: int, event: str, wish: Wish, error: BaseException | None) -> None:
        log.event(
            _log, event, level=level, model=wish.model, version=wish.version, error=str(error)
        )
