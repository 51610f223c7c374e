"""Work that goes on as long as the agent lives, whatever mistake of ours is in one round of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_AGAIN_S = 1.0
_LONGEST_S = 60.0
_log = logging.getLogger("isochrone.agent")


async def lasting(
    work: Callable[[], Awaitable[None]], name: str, again_s: float = _AGAIN_S
) -> None:
    """Do `work`; where it raises, say so in the log and begin it anew, later each time.

    It ends when the work does, or is cancelled. Raised in a task, the error would end the agent
    with it, and with the agent every answer that it could still give.
    """
    while True:
        try:
            await work()
        except Exception:  # a fault of one task must not end the agent
            _log.exception("%s failed; it is begun again in %g s", name, again_s)
            await asyncio.sleep(again_s)
            again_s = min(2 * again_s, _LONGEST_S)
        else:
            return
