"""The `isochrone` program: Ctrl-C ends it without a traceback, also while modules are imported.

An interrupt in an import, or while Python shuts down, ends the process by the signal itself:
nothing has to be cleaned up then, and an exception there would be printed.
"""

import signal


def _end_by_interrupt() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else: ignored, as by nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)


_end_by_interrupt()

from isochrone.deploy import cli  # noqa: E402 - after the line above, by intention


def main() -> int:
    """Run the command that the arguments name; its exit code."""
    try:
        return cli.main()
    finally:
        _end_by_interrupt()
