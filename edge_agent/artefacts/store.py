"""The directory `packages` as pulls use it: a staging area, what fits, and what may be removed.

A package is put together in `.pulls/DIGEST` and becomes `NAME/VERSION` by one rename, after all of
it was synced: whoever looks sees no half of it, whenever the power fails. Blocking.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from isochrone.edge_agent.artefacts.partial import SUFFIX, unwritable
from isochrone.edge_agent.runtime.package.durable import sync, write_through
from isochrone.edge_agent.runtime.package.manifest import Manifest, StoredFile
from isochrone.edge_agent.runtime.package.package import (
    MANIFEST,
    SIGNATURE,
    Check,
    Package,
    PackageError,
    manifest_in,
    open_package,
    packages_in,
)
from isochrone.router.errors import Unavailable

PULLS = ".pulls"
ORIGIN = "origin.json"
"""Stands in packages that were pulled: those may be removed to make room, the others not."""
KEPT_S = 7 * 86400.0
"""So long is kept what has come of a pull that was cut."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Origin(msgspec.Struct, frozen=True):
    """Where a package was pulled from."""

    source: str
    digest: str


@dataclass(frozen=True, slots=True)
class Staging:
    """A package that is being put together."""

    path: Path
    manifest: Manifest
    digest: str

    def missing_bytes(self) -> int:
        """What is still to come."""
        return sum(self._missing(stored) for stored in self.manifest.files())

    def _missing(self, stored: StoredFile) -> int:
        if (self.path / stored.file).is_file():
            return 0
        return max(0, stored.bytes - _size(self.path / f"{stored.file}{SUFFIX}"))


class Store:
    """`packages`, below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pulls = root / PULLS

    def place(self, name: str, version: str) -> Path:
        """Where a package belongs."""
        return self.root / name / version

    def lying(self, name: str, version: str | None, check: Check | None) -> list[Package]:
        """The packages of a model that lie here, or one version; sound, as `check` demands.

        Raises:
            PackageError: one is not, and none is sound.
        """
        found: list[Package] = []
        errors: list[PackageError] = []
        one_or_all = "[!.]*/" if version is None else version
        for path in sorted((self.root / name).glob(one_or_all)):
            try:
                found.append(open_package(path, check))
            except PackageError as error:
                errors.append(error)
        if errors and not found:
            raise errors[0]
        return found

    def used_bytes(self) -> int:
        """What everything in it takes; a file with two names counts once."""
        sizes: dict[int, int] = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                with _ignored_if_gone():
                    found = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - of many files
                    sizes[found.st_ino] = found.st_size
        return sum(sizes.values())

    def own_bytes(self, package: Package) -> int:
        """What would be free without it: a file that another package has, too, would stay."""
        sizes = (package.file(stored).lstat() for stored in package.manifest.files())
        return sum(found.st_size for found in sizes if found.st_nlink == 1)

    def free_bytes(self) -> int:
        """What the disk still has for us."""
        return shutil.disk_usage(self.root).free

    def installed(self, manifest: Manifest, digest: str) -> Package | None:
        """That very package, every byte of it found right; None where it is not here.

        Raises:
            PackageError: that version is here, sound, and another one.
        """
        try:
            package = open_package(self._place_of(manifest))
        except PackageError:
            return None
        if not all(_holds(package.file(one), one) for one in package.manifest.files()):
            return None  # spoiled: it is brought anew
        if package.digest == digest:
            return package
        raise PackageError(
            f"{package.path}: is here already with another manifest ({package.digest[:12]}, not"
            f" {digest[:12]}); give the new content another version"
        )

    @contextmanager
    def stage(self, title: str, raw: bytes, signature: bytes | None) -> Iterator[Staging]:
        """Put a package together; what has come of it stays, until it is installed or dropped.

        Raises:
            PackageError: the manifest is none, or nothing can be written here.
            NoSpace: the disk is full.
            Unavailable: another process is at it.
        """
        digest = hashlib.sha256(raw).hexdigest()
        manifest = manifest_in(Path(title), raw)
        path = self._pulls / digest
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        with _locked(path) as locked:
            if not locked:
                raise Unavailable(f"another process pulls {manifest.name} {manifest.version}")
            try:
                _write_heads(path, raw, signature)
            except OSError as error:
                shutil.rmtree(path, ignore_errors=True)
                raise unwritable(path, error) from error
            yield Staging(path, manifest, digest)

    def has(self, staging: Staging, stored: StoredFile) -> bool:
        """The file is whole, or became so by a second name for one that is here."""
        if _holds(staging.path / stored.file, stored):
            return True
        same = (one for package in packages_in(self.root)[0] for one in _same(package, stored))
        return any(_linked(path, staging.path / stored.file) for path in same)

    def install(self, staging: Staging, origin: Origin) -> Package:
        """Make the package be there, at once and for good.

        Raises:
            NoSpace, PackageError: it cannot be written; what was there before is there still.
        """
        target = self._place_of(staging.manifest)
        try:
            write_through(staging.path / ORIGIN, msgspec.json.encode(origin))
            staging.path.chmod(0o755)
            sync(staging.path)
            target.parent.mkdir(exist_ok=True)
            sync(self.root)
            if target.exists():  # it was found spoiled
                self._take_away(target)
            staging.path.rename(target)
            sync(target.parent)
        except OSError as error:
            raise unwritable(target, error) from error
        return open_package(target)

    def drop(self, staging: Staging) -> None:
        """Nothing of it is wanted any more."""
        shutil.rmtree(staging.path, ignore_errors=True)

    def pulled(self, package: Package) -> bool:
        """It came from a source, and may come again."""
        return (package.path / ORIGIN).is_file()

    def remove(self, package: Package) -> None:
        """Take a package away, whole.

        Raises:
            PackageError: it cannot be removed.
        """
        try:
            self._take_away(package.path)
        except OSError as error:
            raise unwritable(package.path, error) from error

    def remove_abandoned(self, but: Staging) -> None:
        """Drop what has come of every other pull that nobody is at."""
        for path in self._pulls.glob("*"):
            if path != but.path:
                _drop_unless(path, lambda _path: False)

    def sweep(self, now_s: float) -> list[tuple[Manifest, str]]:
        """Remove what crashed pulls left behind; manifest and digest of those that may go on.

        `now_s` is wall-clock time: what was last touched a week ago is no longer wanted.
        """
        for path in self._pulls.glob("*"):
            _drop_unless(path, lambda path: self._goes_on(path, now_s))
        for draft in self.root.glob("[!.]*/.[!.]*"):  # of a package that was being built
            with _ignored_if_gone():
                if now_s - draft.stat().st_mtime > KEPT_S:
                    shutil.rmtree(draft, ignore_errors=True)
        found = (_staged(path) for path in sorted(self._pulls.glob("*")))
        return [(staged.manifest, staged.digest) for staged in found if staged is not None]

    def _goes_on(self, path: Path, now_s: float) -> bool:
        staged = _staged(path)
        if staged is None or now_s - path.stat().st_mtime > KEPT_S:
            return False
        try:
            return open_package(self._place_of(staged.manifest)).digest != staged.digest
        except PackageError:
            return True

    def _place_of(self, manifest: Manifest) -> Path:
        return self.place(manifest.name, manifest.version)

    def _take_away(self, path: Path) -> None:
        """By a rename, so that no half of it is ever seen."""
        gone = self._pulls / f"gone-{path.parent.name}-{path.name}"
        self._pulls.mkdir(exist_ok=True)
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        sync(path.parent)
        shutil.rmtree(gone, ignore_errors=True)


def _write_heads(path: Path, raw: bytes, signature: bytes | None) -> None:
    """The manifest's name appears last, so that it never stands for less than all of it."""
    draft = path / f"{MANIFEST}{SUFFIX}"
    if signature is not None:
        write_through(path / SIGNATURE, signature)
    write_through(draft, raw)
    draft.rename(path / MANIFEST)


def _staged(path: Path) -> Staging | None:
    """What is being put together in a folder; None where that cannot be told."""
    try:
        raw = (path / MANIFEST).read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        if path.name == digest:
            return Staging(path, manifest_in(path / MANIFEST, raw), digest)
    except (OSError, PackageError):
        pass
    return None


def _drop_unless(path: Path, wanted: Callable[[Path], bool]) -> None:
    with _ignored_if_gone(), _locked(path) as locked:
        if locked and not (_DIGEST.fullmatch(path.name) and wanted(path)):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether nobody else has it; the kernel lets go of it when a process ends, however it does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextmanager
def _ignored_if_gone() -> Iterator[None]:
    """Another process may have removed what was just listed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise


def _same(package: Package, stored: StoredFile) -> Iterator[Path]:
    """Files of a package that hold what is promised of a stored one."""
    for other in package.manifest.files():
        if other.sha256 == stored.sha256 and _holds(package.file(other), stored):
            yield package.file(other)


def _holds(path: Path, stored: StoredFile) -> bool:
    try:
        if path.is_symlink() or _size(path) != stored.bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == stored.sha256
    except OSError:
        return False


def _linked(path: Path, target: Path) -> bool:
    try:
        target.unlink(missing_ok=True)
        target.hardlink_to(path)
    except OSError:  # not every file system can
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
