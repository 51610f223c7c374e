"""Telling the service manager how the agent is: ready, stopping, and that it still makes progress.

The protocol is that of sd_notify(3): datagrams of `NAME=VALUE` lines to the socket that the
environment names. Where it names none, nobody is told.
"""

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

from isochrone.router.process.clock import Clock
from isochrone.router.wire.headers import MAX_TIMEOUT_S

_BEATS = 3
"""So many signs of life in the time after which the manager would lose patience."""
STUCK_S = MAX_TIMEOUT_S + 30.0
"""No call has longer than the first part: slots that are all held for more are held for ever."""


class Supervisor:
    """The service manager; without an address, nobody."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`watchdog_s`: after so long without a sign of life it restarts us."""
        self.watchdog_s = watchdog_s
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """We serve."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """We were told to go, and finish what runs."""
        self._tell("STOPPING=1\nSTATUS=draining")

    def alive(self) -> None:
        """We make progress."""
        self._tell("WATCHDOG=1")

    def _tell(self, lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(lines.encode(), self._address)
        except OSError:  # it has other ways to see how we are
            return


def supervisor_of(environment: MutableMapping[str, str], pid: int) -> Supervisor:
    """The manager of this process. What names it is taken out: our children are none of its."""
    address = environment.pop("NOTIFY_SOCKET", "")
    watchdog_us = environment.pop("WATCHDOG_USEC", "")
    watched = environment.pop("WATCHDOG_PID", str(pid))
    is_ours = watched == str(pid) and watchdog_us.isdecimal() and int(watchdog_us) > 0
    return Supervisor(address, int(watchdog_us) / 1e6 if is_ours else None)


def own_supervisor() -> Supervisor:
    """The one that started this process."""
    return supervisor_of(os.environ, os.getpid())  # noqa: TID251  # the protocol is the environment


class Headway:
    """Do inferences come to an end? Not where every slot is held and nothing came out for long."""

    def __init__(self, stuck_s: float = STUCK_S) -> None:
        self._stuck_s = stuck_s
        self._finished = -1
        self._since_s = 0.0

    def on(self, finished: int, now_s: float, *, full: bool) -> bool:
        """`finished` calls in all have come to an end; `full`: every slot is held now."""
        if finished != self._finished or not full:
            self._finished, self._since_s = finished, now_s
        return now_s - self._since_s < self._stuck_s


async def keep_watchdog(
    supervisor: Supervisor, progresses: Callable[[float], bool], clock: Clock
) -> None:
    """Give signs of life from the event loop, as long as this is not cancelled.

    A loop that hangs gives none; nor is one given where `progresses` says no at an instant.
    """
    if supervisor.watchdog_s is None:
        return
    while True:
        if progresses(clock()):
            supervisor.alive()
        await asyncio.sleep(supervisor.watchdog_s / _BEATS)
