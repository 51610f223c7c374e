"""The model package on disk: `NAME/VERSION/` with `model.yaml` and the files of its variants.

A file's bytes leave this module only after their digest was found right, and engines parse those
bytes, never a path: what was checked is what runs.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from isochrone.edge_agent.runtime.package.durable import replace, sync, write_through
from isochrone.edge_agent.runtime.package.manifest import (
    Architecture,
    Engine,
    Manifest,
    Precision,
    StoredFile,
    Variant,
)
from isochrone.router.errors import ConfigError, IsochroneError
from isochrone.router.process.document import MAX_BYTES, document_in, written
from isochrone.router.process.regular_file import open_regular
from isochrone.router.process.settings import settings_in
from isochrone.router.process.shape import differences
from isochrone.router.wire.tensor import TensorSpec

MANIFEST = "model.yaml"
SIGNATURE = "manifest.sig"
MAX_SIGNATURE_BYTES = 4096
_REBUILD = "build or copy the package again"

Check = Callable[[Path, bytes], None]
"""Told a package's directory and the bytes of its manifest; raises PackageError to refuse it."""


class PackageError(IsochroneError):
    """A model package cannot be used; the message names the file and the remedy."""

    code = "package"


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one model on disk; its manifest was read, its weights were not."""

    path: Path
    manifest: Manifest
    digest: str = ""
    """The sha256 of the manifest as it stands on disk, which names every byte of the package."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.manifest.version

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """The inputs of the graph in its files, which a generative model hides from callers."""
        generate = self.manifest.generate
        return generate.takes() if generate else self.manifest.takes()

    @property
    def gives(self) -> tuple[TensorSpec, ...]:
        """The outputs of the graph in its files."""
        generate = self.manifest.generate
        return generate.gives() if generate else self.manifest.gives()

    def file(self, stored: StoredFile) -> Path:
        """Where a variant's weights are, or the data of a sample."""
        return self.path / stored.file

    def read(self, stored: StoredFile) -> bytes:
        """A file's bytes, their digest found right.

        Raises:
            PackageError: the file is gone, a link, truncated, or not what the manifest promises.
        """
        with self.opened(stored) as file:
            data = file.read(stored.bytes + 1)
        self.check(stored, len(data), hashlib.sha256(data).hexdigest())
        return data

    @contextmanager
    def opened(self, stored: StoredFile) -> Iterator[FileIO]:
        """A file to read from, not checked; a link is not followed.

        Raises:
            PackageError: it cannot be read, now or while the block runs.
            MemoryError: there is no memory for what is done with it.
        """
        path = self.file(stored)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with FileIO(descriptor) as file:
                yield file
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError(f"{path}: does not fit into memory") from error
            reason = os.strerror(error.errno or 0)
            raise PackageError(f"{path}: cannot be read: {reason}; {_REBUILD}") from error

    def kept_files(self) -> dict[str, bytes]:
        """The content of every file that holds data of warm-up samples.

        Raises:
            PackageError: one of them is not what the manifest promises.
        """
        return {one.file: self.read(one) for one in self.manifest.kept()}

    def check(self, stored: StoredFile, size_bytes: int, digest: str) -> None:
        """Hold what was read, which may be one byte too many, to what the manifest promises.

        Raises:
            PackageError: it is something else.
        """
        path = self.file(stored)
        if size_bytes != stored.bytes:
            found = "more" if size_bytes > stored.bytes else str(size_bytes)
            raise PackageError(
                f"{path}: {stored.bytes} bytes were promised, {found} are there; {_REBUILD}"
            )
        if digest != stored.sha256:
            raise PackageError(
                f"{path}: sha256 is {digest}, {MANIFEST} says {stored.sha256}; {_REBUILD}"
            )


def open_package(path: Path, check: Check | None = None) -> Package:
    """The package in a directory `NAME/VERSION`.

    Raises:
        PackageError: the manifest is wrong, does not fit the directory, or a file is missing or of
            another size, or `check` refuses it. Digests are checked by `Package.read`.
    """
    raw = _manifest_bytes(path / MANIFEST)
    if check is not None:
        check(path, raw)
    manifest = manifest_in(path / MANIFEST, raw)
    place = path.absolute()
    if (place.parent.name, place.name) != (manifest.name, manifest.version):
        raise PackageError(
            f"{path / MANIFEST}: is {manifest.name}/{manifest.version}; move the directory to"
            f" {manifest.name}/{manifest.version}, or correct name and version"
        )
    package = Package(path, manifest, hashlib.sha256(raw).hexdigest())
    for stored in manifest.files():
        _check_file(package.file(stored), stored.bytes)
    return package


def manifest_in(path: Path, raw: bytes) -> Manifest:
    """The manifest that `raw` is; `path` says in the refusal where it stands.

    Raises:
        PackageError: it is none.
    """
    try:
        return settings_in(document_in(path, raw), Manifest)
    except ConfigError as error:
        raise PackageError(error.message) from error


def packages_in(
    store: Path, check: Check | None = None
) -> tuple[list[Package], list[PackageError]]:
    """Every package below a directory, by name and version, and what is wrong with the others.

    Names that begin with a dot are left out: they are packages still being written.
    """
    packages: list[Package] = []
    errors: list[PackageError] = []
    if not store.is_dir():
        return [], [PackageError(f"{store}: is no directory; make it, or correct the path")]
    for path in sorted(store.glob("[!.]*/[!.]*/")):
        try:
            packages.append(open_package(path, check))
        except PackageError as error:
            errors.append(error)
    return packages, errors


def described(
    data: bytes,
    *,
    name: str,
    engine: Engine,
    file: str,
    precision: Precision = "fp32",
    architecture: Architecture | None = None,
) -> Variant:
    """A variant whose weights are `data`."""
    return Variant(
        name=name,
        engine=engine,
        precision=precision,
        file=file,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        architecture=architecture,
    )


def write_package(store: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Package:
    """Write `store/NAME/VERSION` so that it is there whole or not at all.

    The same manifest and files give the same bytes; writing them twice changes nothing.

    Raises:
        PackageError: the manifest is not a valid one, that version is there with other content, or
            the place cannot be written.
    """
    _check(manifest)
    target = store / manifest.name / manifest.version
    content = {**files, MANIFEST: _written(manifest)}
    try:
        if target.exists():
            _check_same(target, content)
        else:
            _write_whole(target, content)
    except OSError as error:
        raise PackageError(f"{target}: cannot be written: {error.strerror}") from error
    return open_package(target)


def add_variant(package: Package, variant: Variant, data: bytes) -> Package:
    """The package with one more variant: first its file, then the manifest, each whole.

    At every moment the package on disk is the old one or the new one. A signature of the old one
    does not hold for the new one.

    Raises:
        PackageError: the name or the file is taken, or the place cannot be written.
    """
    variants = package.manifest.variants
    if any(variant.name == one.name or variant.file == one.file for one in variants):
        raise PackageError(
            f"{package.path}: has a variant {variant.name} or a file {variant.file} already;"
            " give the new one another name"
        )
    manifest = msgspec.structs.replace(package.manifest, variants=(*variants, variant))
    _check(manifest)
    try:
        for name, content in ((variant.file, data), (MANIFEST, _written(manifest))):
            replace(package.path / name, content)
    except OSError as error:
        package.file(variant).unlink(missing_ok=True)  # no manifest names it
        raise PackageError(f"{package.path}: cannot be written: {error.strerror}") from error
    return open_package(package.path)


def _check(manifest: Manifest) -> None:
    # Structs that were made by code have not seen their own bounds yet.
    plain = msgspec.json.decode(msgspec.json.encode(manifest))
    for fault in differences(inspect.type_info(Manifest), plain):
        title = f"{manifest.name} {manifest.version}"
        raise PackageError(f"{title}: {written(fault.at)} {fault.message}")


def _manifest_bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}; {_REBUILD}") from error


def _check_file(path: Path, promised: int) -> None:
    if path.is_symlink() or not path.is_file():
        raise PackageError(f"{path}: is no plain file of this directory; {_REBUILD}")
    size = path.stat().st_size
    if size != promised:
        raise PackageError(f"{path}: {promised} bytes were promised, {size} are there; {_REBUILD}")


def _written(manifest: Manifest) -> bytes:
    data = _without_defaults(msgspec.to_builtins(manifest), manifest)
    text: str = yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True, default_flow_style=None, width=96
    )
    return text.encode()


def _without_defaults(data: Any, value: object) -> Any:  # noqa: ANN401 - plain data of any shape
    """What stands in `value` beyond its defaults, so that a manifest is short to read."""
    if isinstance(value, msgspec.Struct):
        kept = {
            field.encode_name: _without_defaults(data[field.encode_name], given)
            for field in msgspec.structs.fields(value)
            if (given := getattr(value, field.name)) not in (field.default, {})
        }
        tag = value.__struct_config__.tag_field
        return {tag: data[tag], **kept} if tag else kept
    if isinstance(value, tuple):
        return [_without_defaults(*pair) for pair in zip(data, value, strict=True)]
    return data


def _check_same(target: Path, content: Mapping[str, bytes]) -> None:
    for name, data in content.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != data:
            raise PackageError(
                f"{target}: is there already with another {name}; choose another version,"
                " or remove that directory first"
            )


def _write_whole(target: Path, content: Mapping[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, data in content.items():
            write_through(draft / name, data)
        draft.chmod(0o755)
        sync(draft)
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():
                raise
            _check_same(target, content)  # somebody else was faster
        sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # renamed, it is not there any more
