"""What a pull needs of a place that packages come from, and what may go wrong there."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from isochrone.router.errors import IsochroneError

CHUNK_BYTES = 1 << 20


class SourceFailed(IsochroneError):
    """The source could not be reached, stalled or broke off; asking again may help."""

    code = "source_failed"
    retryable = True


class SourceRefused(IsochroneError):
    """The source has no such file, does not let us have it, or gives something else."""

    code = "source_refused"


@dataclass(frozen=True, slots=True)
class Opened:
    """A file at a source, to be read once; `start` is the place of its first byte."""

    start: int
    chunks: AsyncIterator[bytes]


class Source(Protocol):
    """Files by their path `NAME/VERSION/FILE`. Every wait is bounded."""

    @property
    def title(self) -> str:
        """How people call it."""
        ...

    def open(self, path: str, start: int = 0) -> AbstractAsyncContextManager[Opened]:
        """A file from byte `start` on; where the source cannot do that, from its beginning.

        Raises:
            SourceFailed, SourceRefused: it cannot be read, now or while its chunks come.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


async def small(source: Source, path: str, most_bytes: int) -> bytes:
    """A whole file that must not be longer than `most_bytes`.

    Raises:
        SourceFailed, SourceRefused: it cannot be read, or is longer.
    """
    content = bytearray()
    async with source.open(path) as opened:
        async for chunk in opened.chunks:
            content += chunk
            if len(content) > most_bytes:
                raise SourceRefused(f"{source.title}: {path} is over {most_bytes} bytes")
    return bytes(content)
