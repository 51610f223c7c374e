"""One run of the local system: its folder, its signals, and its beginning and end."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from isochrone.deploy.local.files import write_files
from isochrone.deploy.local.layout import lay_out
from isochrone.deploy.local.system import System, Tell
from isochrone.router.errors import ConfigError
from isochrone.router.process.run import keep_on_hangup

T = TypeVar("T")
_SHORT = Path("/tmp")
"""Ray makes sockets below its folder, and the system bounds the length of their paths."""


@dataclass(slots=True)
class Folder:
    """Where a run keeps its files; `kept` says whether they outlive it."""

    path: Path
    ray: Path
    kept: bool


@contextlib.contextmanager
def run_folder(keep: Path | None = None) -> Iterator[Folder]:
    """A new folder for one run. It stays where it is asked for, and where a part fails.

    Raises:
        ConfigError: the folder that is asked for is there already.
    """
    if keep is not None:
        _make(keep)
    path = keep.absolute() if keep else Path(tempfile.mkdtemp(prefix="isochrone-"))
    short = _SHORT if _SHORT.is_dir() else None
    folder = Folder(path, Path(tempfile.mkdtemp(prefix="isochrone-ray-", dir=short)), bool(keep))
    try:
        yield folder
    except BaseException as error:
        unexplained = isinstance(error, Exception) and not isinstance(error, ConfigError)
        folder.kept = folder.kept or unexplained
        raise
    finally:
        _tidy(folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}; name a new one") from error


def _tidy(folder: Folder) -> None:
    if folder.kept:
        for logs in folder.ray.glob("session_2*/logs"):
            shutil.copytree(logs, folder.path / "ray-logs", symlinks=True, dirs_exist_ok=True)
    else:
        shutil.rmtree(folder.path, ignore_errors=True)
    shutil.rmtree(folder.ray, ignore_errors=True)


@contextlib.asynccontextmanager
async def local_system(
    folder: Folder,
    packages: Path,
    tell: Tell,
    *,
    log: Mapping[str, str] | None = None,
    router_port: int = 0,
    admin_port: int = 0,
) -> AsyncIterator[System]:
    """The system, running and settled; `packages` holds the model packages.

    `log` is every part's `log`; the demo's evidence needs its defaults.

    Raises:
        PartError: a part did not start.
    """
    layout = lay_out(folder.path, folder.ray, router_port=router_port, admin_port=admin_port)
    write_files(layout, packages, log or {})
    async with System(layout, tell) as system:
        yield system


def run_to_end(play: Coroutine[None, None, T]) -> T:
    """Run a play; Ctrl-C and SIGTERM end it in good order, a second one in haste.

    SIGHUP is logged and does nothing.

    Raises:
        KeyboardInterrupt: one of these signals came.
    """
    keep_on_hangup()

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None  # we are in one
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await play

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
