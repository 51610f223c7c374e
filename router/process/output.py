"""Standard output, which its reader may close at any time."""

import os
import sys


def say(line: str) -> None:
    """Print a line at once; a daemon goes on where nothing reads it."""
    try:
        print(line, flush=True)
    except OSError:
        close_output()


def close_output() -> None:
    """Send what is left in the buffer of standard output, and all that follows, nowhere.

    Python would try to write it once more at exit, and fail again.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
