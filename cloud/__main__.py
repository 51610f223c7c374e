"""The process that `cloud.app.main` becomes: `python -m isochrone.cloud FILE [FOLDER]`."""

import contextlib
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from isochrone.cloud.cluster import running, watch
from isochrone.cloud.config import CloudConfig, check
from isochrone.router.errors import IsochroneError
from isochrone.router.process.output import say
from isochrone.router.process.run import keep_on_hangup

_FINE = 0
_PROBLEM = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Told(BaseException):
    """Somebody asked this process to stop; not an error, so that nothing swallows it."""


def run(config: CloudConfig, folder: Path | None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. SIGHUP is logged and does nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what Ray starts inherits this
    _on_signals(_stop)
    told = contextlib.suppress(_Told, SystemExit)  # the latter from Ray's handler, while it starts
    try:
        with _cleared(config, folder), told, running(config, folder) as url:
            keep_on_hangup()
            _on_signals(_stop)  # Ray has put its own in their place
            say(f"ready {url}")
            watch()
    except IsochroneError as error:
        print(f"isochrone: {error.message}", file=sys.stderr)
        return _PROBLEM
    return _FINE


def _stop(_number: int, _frame: FrameType | None) -> None:
    _on_signals(signal.SIG_IGN)  # we are stopping already
    raise _Told


def _on_signals(action: "signal._HANDLER") -> None:
    for number in _SIGNALS:
        signal.signal(number, action)


@contextlib.contextmanager
def _cleared(config: CloudConfig, folder: Path | None) -> Iterator[None]:
    """Leave nothing behind but logs, and those only where a folder was named for them."""
    try:
        yield
    finally:
        if folder is not None:
            (folder / "auth_token").unlink(missing_ok=True)
            if config.ray.temp_dir is None:
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run(check(Path(sys.argv[1])), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
