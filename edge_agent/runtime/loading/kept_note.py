"""What was measured of a package on this machine, kept beside its directory for the next start."""

import hashlib
import importlib.util
import logging
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from isochrone.edge_agent.runtime.engines.table import NEEDS
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.process import log

_GPU = Path("/dev/nvidiactl")
_PROCESSOR = Path("/proc/cpuinfo")
_log = logging.getLogger(__name__)
Note = TypeVar("Note", bound=msgspec.Struct)


def has_gpu() -> bool:
    """The machine has a GPU, whether or not an engine can use it."""
    return _GPU.exists()


def place(package: Package, what: str) -> Path:
    """Where a note is kept; stores skip names that begin with a dot."""
    return package.path.parent / f".{package.version}.{what}.json"


def fingerprint(variants: Iterable[Variant], threads: int, *more: object) -> str:
    """Names files, engines, cores for one call, processor, and `more`: what a note holds for."""
    chosen = tuple(variants)
    engines = sorted({NEEDS[one.engine][0] for one in chosen})
    facts = [
        *(f"{one.name} {one.sha256} {one.accelerator}" for one in chosen),
        *(f"{name} {_installed_at(name)}" for name in engines),
        f"{threads} {has_gpu()} {platform.machine()} {_processor()}",
        *map(str, more),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def read(path: Path, kind: type[Note]) -> Note | None:
    """The note; None where it is absent, cut short, or not ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write(path: Path, note: msgspec.Struct) -> None:
    """Keep it, where the place can be written."""
    draft = path.with_suffix(".draft")
    try:
        draft.write_bytes(msgspec.json.encode(note))
        draft.replace(path)
    except OSError as error:
        log.event(_log, "note_not_kept", level=logging.DEBUG, error=str(error))


def _installed_at(module: str) -> int | None:
    """When an engine was installed: told without importing it, whatever its distribution's name."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).stat().st_mtime_ns if spec and spec.origin else None


def _processor() -> str:
    """What tells processors apart that run the same program differently fast."""
    try:
        lines = _PROCESSOR.read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    told = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))
