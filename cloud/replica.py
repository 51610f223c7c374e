"""The Serve deployment that holds one model package on one device and answers for it."""

import secrets
from collections.abc import AsyncGenerator

from isochrone.cloud.asgi import closing
from isochrone.cloud.config import CloudConfig, ModelConfig
from isochrone.cloud.report import UP
from isochrone.edge_agent.runtime.calls.call import Calls
from isochrone.edge_agent.runtime.calls.gate import OpenGate
from isochrone.edge_agent.runtime.face.infer import Inference
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.face.oip import OpenInference
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.errors import Unavailable
from isochrone.router.http.limits import Limits, Room
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.http import Request, Response


class Replica:
    """One model in memory, behind the same face as on an edge agent."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: CloudConfig, model: ModelConfig, package: Package
    ) -> None:
        """Load the model and have it answer its warm-up samples: a replica that runs is warm."""
        at_once = min(model.max_ongoing_requests, max(1, int(model.num_cpus)))
        self._pool = Pool([package], slots=at_once, clock=monotonic)
        gate = self._gate = OpenGate(model.max_ongoing_requests)
        self._longest_run_s = model.longest_run_s
        instance = secrets.token_hex(8)
        load = Load(config.name, config.region, instance, gate, self._pool, monotonic)
        calls = Calls(
            self._pool, gate, monotonic, lambda name, _, infer_s: load.served(name, infer_s)
        )
        room = Room(max(Limits().in_flight_bytes, 2 * config.body_bytes))
        inference = Inference(calls, load, body_limit_bytes=config.body_bytes, room=room)
        self._face = OpenInference(self._pool, inference, self._pool.is_healthy)
        await self._pool.load(package.name)
        self._ready_s = monotonic()

    async def answer(self, request: Request) -> Response:
        """A whole answer."""
        response = await self._ask(request)
        if not isinstance(response.body, bytes):
            async with closing(response.body):
                response.body = b"".join([chunk async for chunk in response.body])
        return response

    async def parts(self, request: Request) -> AsyncGenerator[Response | bytes]:
        """A head, then the chunks of its body as they come."""
        response = await self._ask(request)
        body = response.body
        async with closing(body):
            yield Response(response.status, response.headers)
            if isinstance(body, bytes):
                yield body
                return
            async for chunk in body:
                yield chunk

    def check_health(self) -> None:
        """Serve replaces a replica for which this raises three times.

        Raises:
            Unavailable: the model can no longer answer.
        """
        if not self._pool.is_healthy():
            raise Unavailable("the model can no longer answer")
        if self._gate.longest_s > self._longest_run_s:
            raise Unavailable(f"a run goes on for {self._gate.longest_s:.0f} s")

    async def _ask(self, request: Request) -> Response:
        request.received_s = monotonic()  # the sender's instants mean nothing here
        response = await self._face.handle(request)
        response.headers.append((UP, b"%.6f" % (monotonic() - self._ready_s)))
        return response
