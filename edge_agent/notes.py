"""From the event loop to the journal on disk, and from there to a router: nobody waits for it."""

import asyncio
import logging
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import TypeVar

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout

from isochrone.edge_agent.journal import ENDED_BADLY, SERVED, Journal, Note
from isochrone.router.process import log
from isochrone.router.process.clock import Clock
from isochrone.router.wire import journal as wire
from isochrone.router.wire.headers import SEQUENCE
from isochrone.router.wire.http import Request
from isochrone.router.wire.report import WIRE_VERSION

T = TypeVar("T")

TELL_S = 2.0
"""How often a router is told what is new, where there is anything."""
_SUM_S = 300.0
_WAITING = 256
"""So many notes wait in memory for a disk that takes nothing."""
_CLOSE_S = 5.0
"""So long the end of an agent waits for the disk."""
_TIMEOUT = ClientTimeout(total=5.0, connect=2.0)
_JSON = {"content-type": "application/json"}
_OK = int(HTTPStatus.OK)
_INFERENCES = "/v2/models/"
_log = logging.getLogger("isochrone.agent.notes")


class Notes:
    """Takes notes at once and writes them beside the event loop.

    `lost` counts those that found no room in memory while the disk took nothing.
    """

    def __init__(self, journal: Journal, wall: Clock) -> None:
        self.lost = 0
        self.failing: str | None = None
        """Why nothing can be written; None where it can."""
        self._journal = journal
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: deque[Note] = deque()
        self._untold_lost = 0
        self._is_new = asyncio.Event()
        self._begun = False
        self._served: Counter[str] = Counter()
        """By the path that was called: there are as many as models, versions and ways to ask."""

    def note(
        self, kind: str, *, model: str = "", version: str = "", detail: str = "", count: int = 1
    ) -> None:
        """Something has happened that must not be lost."""
        self._waiting.append(Note(self._wall(), kind, model, version, detail, count))
        self._make_room()
        self._is_new.set()

    def answered(self, request: Request, status: int) -> None:
        """Count an answer of a model to a client that no router sent."""
        is_answer = status == _OK and request.method == "POST"
        if is_answer and request.path.startswith(_INFERENCES) and not request.header(SEQUENCE):
            self._served[request.path] += 1

    async def keep(self, again_s: float = TELL_S) -> None:
        """Write, for as long as this is not cancelled; where the disk takes nothing, try again."""
        while True:
            if await self.write():
                self._is_new.clear()
                await self._is_new.wait()
            else:
                await asyncio.sleep(again_s)

    async def sum_up(self, every_s: float = _SUM_S) -> None:
        """Note what was served, for as long as this is not cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self._note_served()

    async def write(self) -> bool:
        """Bring what waits to disk; False where it takes nothing."""
        notes, lost = self._take()
        try:
            await self._on_disk(lambda: self._write(notes, lost))
        except (sqlite3.Error, OSError) as error:
            self._fail(str(error))
            self._give_back(notes, lost)
            return False
        self._fail(None)
        return not self._waiting

    async def oldest(self) -> list[wire.Entry]:
        """What a router is to be told next."""
        try:
            return await self._on_disk(lambda: self._journal.oldest(wire.ENTRIES, self._wall()))
        except (sqlite3.Error, OSError):
            return []

    async def forget(self, entries: Sequence[wire.Entry]) -> bool:
        """A router keeps these; False: the disk takes nothing, so they will be told again."""
        try:
            await self._on_disk(lambda: self._journal.forget(entries))
        except (sqlite3.Error, OSError) as error:
            self._fail(str(error))
            return False
        return True

    async def close(self, most_s: float = _CLOSE_S) -> bool:
        """Write what waits, and that this run has ended in good order.

        False where the disk does not answer within `most_s`: then its thread is left to it.
        """
        self._note_served()
        try:
            async with asyncio.timeout(most_s):
                await self._end()
        except TimeoutError:
            log.event(_log, "journal_hangs", level=logging.ERROR, after_s=most_s)
            self._thread.shutdown(wait=False, cancel_futures=True)
            return False
        self._thread.shutdown()
        return True

    async def _end(self) -> None:
        if await self.write():
            with suppress(sqlite3.Error, OSError):  # the next run says that this one ended badly
                await self._on_disk(self._journal.end)

    def _take(self) -> tuple[list[Note], int]:
        taken, lost = list(self._waiting), self._untold_lost
        self._waiting.clear()
        self._untold_lost = 0
        return taken, lost

    def _give_back(self, notes: Sequence[Note], lost: int) -> None:
        self._waiting.extendleft(reversed(notes))
        self._untold_lost += lost
        self._make_room()

    def _make_room(self) -> None:
        while len(self._waiting) > _WAITING:
            self._waiting.popleft()
            self.lost += 1
            self._untold_lost += 1

    def _note_served(self) -> None:
        served: Counter[str] = Counter()
        for path, count in self._served.items():
            served[path.removeprefix(_INFERENCES).partition("/")[0]] += count
        for model, count in served.items():
            self.note(SERVED, model=model, count=count)
        self._served.clear()

    def _write(self, notes: Sequence[Note], lost: int) -> None:
        if not self._begun:
            if not self._journal.begin():
                self._journal.add([Note(self._wall(), ENDED_BADLY)])
            self._begun = True
        self._journal.add(notes, lost)

    def _fail(self, why: str | None) -> None:
        """Once per change: a disk that stays full does not fill the log."""
        if why != self.failing and why is not None:
            log.event(_log, "journal_fails", level=logging.ERROR, error=why)
        self.failing = why

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Whoever stops waiting does not keep it from being done."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, work))


class Reconciler:
    """Tells the first router that takes it what has happened, until it is kept there.

    An answer that is lost on its way means that the same comes again; ids tell.
    """

    def __init__(
        self, routers: Iterable[str], name: str, notes: Notes, session: ClientSession
    ) -> None:
        """`routers` are their URLs, `name` is our own."""
        self._urls = [f"{router}/isochrone/journal" for router in routers]
        self._name = name
        self._notes = notes
        self._session = session

    async def keep(self, every_s: float = TELL_S) -> None:
        """Tell, for as long as this is not cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.tell()

    async def tell(self) -> None:
        """Tell all that waits, as long as a router takes it."""
        while entries := await self._notes.oldest():
            if not (await self._told(entries) and await self._notes.forget(entries)):
                return

    async def _told(self, entries: Sequence[wire.Entry]) -> bool:
        body = msgspec.json.encode(wire.Journal(WIRE_VERSION, self._name, tuple(entries)))
        for url in self._urls:
            try:
                async with self._session.post(
                    url, data=body, headers=_JSON, timeout=_TIMEOUT, allow_redirects=False
                ) as answer:
                    if answer.status == HTTPStatus.OK:
                        return True
                    _log.debug("%s answered %d", url, answer.status)
            except (ClientError, OSError, ValueError) as error:
                _log.debug("%s was not told: %s", url, error)
        return False
