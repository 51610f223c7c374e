"""From a coroutine to an exit code: the event loop, and the signals that end a daemon."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

try:
    import uvloop
except ImportError:  # not on this platform: the same loop interface, at half the speed
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_loop = uvloop.new_event_loop

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("isochrone")

HANGUP = "SIGHUP does nothing: configuration is read at the start only; restart to change it"

_GARBAGE = 5_000, 10, 10
"""Python looks for cycles whenever so many objects more have been made than freed.

It looks through whatever calls wait, and soon: at 700. Nothing on the way of a call leaves cycles.
"""

Main = Callable[[asyncio.Event], Coroutine[Any, Any, int]]
"""A daemon: it runs until the event is set, then ends in good order with an exit code."""


def keep_on_hangup() -> None:
    """SIGHUP is logged and does nothing else from now on: by default it would end the process."""

    def told(_number: int, _frame: FrameType | None) -> None:
        _log.warning(HANGUP)

    signal.signal(signal.SIGHUP, told)


def run(main: Main) -> int:
    """Run a daemon; SIGTERM and SIGINT ask it to end, a second one ends the process at once.

    SIGHUP is logged and does nothing.
    """
    keep_on_hangup()
    gc.set_threshold(*_GARBAGE)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_until_signalled(main))


async def _until_signalled(main: Main) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask() -> None:
        stop.set()
        for number in _SIGNALS:  # from here on a signal does what it does by default
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, ask)
    loop.add_signal_handler(signal.SIGHUP, _log.warning, HANGUP)
    return await main(stop)
