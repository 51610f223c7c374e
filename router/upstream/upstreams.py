"""The upstreams of all endpoints: one for each URL, made when it is first needed."""

import asyncio

from isochrone.router.members.endpoint import Endpoint
from isochrone.router.process.clock import Clock
from isochrone.router.upstream.upstream import HttpUpstream, Upstream


class Upstreams:
    """Connection pools by URL."""

    def __init__(self, tasks: asyncio.TaskGroup, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock
        self._by_url: dict[str, HttpUpstream] = {}
        self._retired: list[HttpUpstream] = []

    def of(self, endpoint: Endpoint) -> Upstream:
        """The upstream of an endpoint."""
        upstream = self._by_url.get(endpoint.url)
        if upstream is None:
            upstream = HttpUpstream(
                endpoint.url, tasks=self._tasks, clock=self._clock, short=self.drop_idle
            )
            self._by_url[endpoint.url] = upstream
        return upstream

    def retire(self, endpoint: Endpoint) -> None:
        """Send nothing more there; requests in progress may end."""
        upstream = self._by_url.pop(endpoint.url, None)
        self._retired = [old for old in self._retired if not old.empty]
        if upstream is not None:
            upstream.retire()
            self._retired.append(upstream)

    def drop_idle(self) -> None:
        """Free descriptors: one that is kept for one endpoint may be what another needs."""
        for upstream in self._by_url.values():
            upstream.drop_idle()

    async def close(self) -> None:
        """Close them all."""
        for upstream in [*self._by_url.values(), *self._retired]:
            await upstream.close()
        self._by_url.clear()
