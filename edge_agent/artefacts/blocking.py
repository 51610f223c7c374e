"""A source whose reads block, such as a directory or boto3: they run in a thread of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from isochrone.edge_agent.artefacts.source import CHUNK_BYTES, Opened, SourceFailed

T = TypeVar("T")


class Readable(Protocol):
    """A file, or what reads like one."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Shelves(Protocol):
    """Opens files for reading, blocking; raises SourceFailed and SourceRefused."""

    title: str

    def open(self, path: str, start: int) -> Readable:
        """A file from byte `start` on."""
        ...

    def failed(self, path: str, error: Exception) -> Exception | None:
        """What to say of an error that reading raised; None where it was none of the source's."""
        ...


class BlockingSource:
    """Reads from `shelves`, no longer than `stall_s` for each chunk."""

    def __init__(self, shelves: Shelves, stall_s: float) -> None:
        self._shelves = shelves
        self._stall_s = stall_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="source")

    @property
    def title(self) -> str:
        """How people call it."""
        return self._shelves.title

    @asynccontextmanager
    async def open(self, path: str, start: int = 0) -> AsyncIterator[Opened]:
        """A file from byte `start` on."""
        file = await self._bounded(path, lambda: self._shelves.open(path, start))
        try:
            yield Opened(start, self._chunks(path, file))
        finally:
            self._thread.submit(file.close)

    async def close(self) -> None:
        """A read that hangs is left to its thread."""
        self._thread.shutdown(wait=False, cancel_futures=False)

    async def _chunks(self, path: str, file: Readable) -> AsyncIterator[bytes]:
        while chunk := await self._bounded(path, lambda: file.read(CHUNK_BYTES)):
            yield chunk

    async def _bounded(self, path: str, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._stall_s):
                return await loop.run_in_executor(self._thread, self._told, path, work)
        except TimeoutError as error:
            text = f"{self.title}: {path}: nothing came for {self._stall_s:g} s"
            raise SourceFailed(text) from error

    def _told(self, path: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:  # a client library may raise its own kinds
            told = self._shelves.failed(path, error)
            if told is None:
                raise
            raise told from error
