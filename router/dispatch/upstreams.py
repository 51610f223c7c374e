"""The ways to all endpoints: one for each address, made when it is first needed."""

import asyncio
from collections.abc import Iterable

from router.dispatch.upstream import HttpUpstream, Upstream
from router.fleet.endpoint import Endpoint
from router.process.clock import Clock


class Upstreams:
    """Connection pools by URL; nothing outside knows which kind of way leads where."""

    def __init__(self, tasks: asyncio.TaskGroup, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock
        self._by_url: dict[str, Upstream] = {}

    def of(self, endpoint: Endpoint) -> Upstream:
        """The way to an endpoint."""
        upstream = self._by_url.get(endpoint.url)
        if upstream is None:
            upstream = HttpUpstream(endpoint.url, tasks=self._tasks, clock=self._clock)
            self._by_url[endpoint.url] = upstream
        return upstream

    def retain(self, endpoints: Iterable[Endpoint]) -> None:
        """Close the ways to everybody else."""
        kept = {endpoint.url for endpoint in endpoints}
        for url in self._by_url.keys() - kept:
            self._tasks.create_task(self._by_url.pop(url).close())

    async def close(self) -> None:
        """Close them all."""
        for upstream in self._by_url.values():
            await upstream.close()
        self._by_url.clear()
