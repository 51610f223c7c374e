"""One package on its way from a source into the store: checked at every step, resumed anywhere."""

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

from isochrone.edge_agent.artefacts.disk import Disk
from isochrone.edge_agent.artefacts.partial import Partial
from isochrone.edge_agent.artefacts.parts import Trust
from isochrone.edge_agent.artefacts.room import Room
from isochrone.edge_agent.artefacts.source import Source, SourceFailed, SourceRefused, small
from isochrone.edge_agent.artefacts.store import Origin, Staging, Store
from isochrone.edge_agent.runtime.package.manifest import StoredFile
from isochrone.edge_agent.runtime.package.package import (
    MANIFEST,
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
    Package,
    PackageError,
    manifest_in,
)
from isochrone.router.errors import IsochroneError
from isochrone.router.process import log
from isochrone.router.process.document import MAX_BYTES

_TOLD_SHARE = 0.1
_log = logging.getLogger("isochrone.agent.pull")


@dataclass(frozen=True, slots=True)
class Wish:
    """Which package: `digest` is the sha256 of its manifest, where one was named."""

    model: str
    version: str
    digest: str | None = None

    @property
    def title(self) -> str:
        """How people call it."""
        return f"{self.model} {self.version}"


@dataclass(slots=True)
class Progress:
    """How far a pull has come."""

    wish: Wish
    bytes_done: int = 0
    bytes_total: int = 0
    interrupted: str = ""
    """Why it waits before the source is asked again; nothing while it goes on."""
    _told_share: float = field(default=0.0, repr=False)

    def on(self, count: int) -> None:
        """So many more bytes are here; every tenth of the whole is told in the log."""
        self.bytes_done += count
        share = self.bytes_done / max(1, self.bytes_total)
        if share < self._told_share + _TOLD_SHARE:
            return
        self._told_share = share
        wish, done, total = self.wish, self.bytes_done, self.bytes_total
        log.event(_log, "pulling", model=wish.model, version=wish.version, done=done, of=total)


class Bringing:
    """What every pull needs; `bring` may run for several packages at once."""

    def __init__(self, store: Store, disk: Disk, room: Room, trust: Trust | None) -> None:
        self._store = store
        self._disk = disk
        self._room = room
        self._trust = trust

    async def bring(self, source: Source, progress: Progress) -> Package:
        """Have a package in the store.

        Raises:
            SourceFailed: asking again may help, and goes on where this ended.
            SourceRefused, PackageError, NoSpace, Unavailable: it cannot be had like this.
        """
        raw, signature = await self._heads(source, progress.wish)
        progress.interrupted = ""
        manifest = manifest_in(self._store.place(progress.wish.model, progress.wish.version), raw)
        given = Wish(manifest.name, manifest.version).title
        if given != progress.wish.title:
            raise SourceRefused(f"{source.title}: {progress.wish.title} is {given} inside")
        digest = hashlib.sha256(raw).hexdigest()
        here = await self._disk.do(self._store.installed, manifest, digest)
        if here is not None:
            return here
        async with self._staged(progress.wish.title, raw, signature) as staging:
            await self._fill(source, staging, progress)
            origin = Origin(source.title, staging.digest)
            return await self._disk.do(self._store.install, staging, origin)

    async def _heads(self, source: Source, wish: Wish) -> tuple[bytes, bytes | None]:
        """The manifest, found to be the wanted one, and its signature.

        Raises:
            SourceFailed, SourceRefused: they cannot be had, or are others than were wished for.
            PackageError: nothing says that they are right.
        """
        place = f"{wish.model}/{wish.version}"
        raw = await small(source, f"{place}/{MANIFEST}", MAX_BYTES)
        found = hashlib.sha256(raw).hexdigest()
        if wish.digest not in (None, found):
            raise SourceRefused(
                f"{source.title}: {place}/{MANIFEST} has sha256 {found}, not {wish.digest}"
            )
        try:
            signature = await small(source, f"{place}/{SIGNATURE}", MAX_SIGNATURE_BYTES)
        except SourceRefused:  # there is none
            signature = None
        if self._trust is not None:
            self._trust.check(f"{source.title}: {place}", raw, signature)
        elif wish.digest is None:
            raise PackageError(
                f"{wish.title}: nothing says which content is right; name its digest (isochrone"
                " package inspect tells it), or sign it and configure artefacts.trusted_keys"
            )
        return raw, signature

    @asynccontextmanager
    async def _staged(
        self, title: str, raw: bytes, signature: bytes | None
    ) -> AsyncIterator[Staging]:
        """What came is kept where asking the source again may help; else it is of no use."""
        async with self._disk.held(self._store.stage(title, raw, signature)) as staging:
            try:
                yield staging
            except SourceFailed:
                raise
            except IsochroneError:
                await self._disk.do(self._store.drop, staging)
                raise

    async def _fill(self, source: Source, staging: Staging, progress: Progress) -> None:
        files = staging.manifest.files()
        progress.bytes_total = sum(stored.bytes for stored in files)
        progress.bytes_done = 0
        missing = []
        for stored in files:
            if await self._disk.do(self._store.has, staging, stored):
                progress.on(stored.bytes)
            else:
                missing.append(stored)
        async with self._room.made(staging):
            for stored in missing:
                await self._fetch(source, staging, stored, progress)

    async def _fetch(
        self, source: Source, staging: Staging, stored: StoredFile, progress: Progress
    ) -> None:
        partial = await self._disk.do(Partial, staging.path, stored)
        async with self._disk.held(closing(partial)):
            if partial.size < stored.bytes:
                path = f"{staging.manifest.name}/{staging.manifest.version}/{stored.file}"
                async with source.open(path, partial.size) as opened:
                    if opened.start != partial.size:
                        await self._disk.do(partial.restart)
                    progress.on(partial.size)
                    async for chunk in opened.chunks:
                        await self._disk.do(partial.append, chunk)
                        progress.on(len(chunk))
            await self._disk.do(partial.finish)
