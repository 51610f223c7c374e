"""`slowing.py SERVICE_S agent --config FILE`: a real agent whose models slow down when told.

Each call holds a thread for SERVICE_S, and for twice as long between SIGUSR1 and SIGUSR2. As with a
real model, work that has begun goes on although nobody wants its answer any more.
"""

import signal
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

from isochrone.deploy import cli
from isochrone.edge_agent import app
from isochrone.edge_agent.runtime.package.thread import in_thread
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.wire.message import InferRequest, InferResponse

SERVICE_S = float(sys.argv[1])


class SlowingPool(Pool):
    """A pool whose calls take as long as they are told to."""

    factor = 1
    threads = ThreadPoolExecutor(64)

    def lend(self, name: str, version: str | None = None) -> None:
        """Nobody runs a model past `request`, and none share a run."""

    async def request(
        self, name: str, version: str | None, request: InferRequest, until_s: float | None = None
    ) -> AsyncIterator[InferResponse]:
        """The answers of a model, after the time that they take."""
        await in_thread(self.threads, time.sleep, SERVICE_S * self.factor)
        async for part in super().request(name, version, request, until_s):
            yield part


def slow_down(*_: object) -> None:
    """Everything that starts now takes twice as long."""
    SlowingPool.factor = 2


def speed_up(*_: object) -> None:
    """And now it does not."""
    SlowingPool.factor = 1


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, slow_down)
    signal.signal(signal.SIGUSR2, speed_up)
    with patch.object(app, "Pool", SlowingPool):
        sys.exit(cli.main(sys.argv[2:]))
