"""Everything that a region's ingress answers: its models through their replicas, and of itself."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from isochrone.cloud.catalogue import Catalogue
from isochrone.cloud.config import CloudConfig
from isochrone.cloud.forward import Forwarding
from isochrone.cloud.gate import RegionGate
from isochrone.cloud.replicas import Replicas
from isochrone.cloud.scale import Standing, slots
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.face.oip import OpenInference
from isochrone.edge_agent.runtime.loading.sample import Sampling
from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.router.errors import IsochroneError
from isochrone.router.process.clock import Clock
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.methods import check_method
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import json_response, problem_response
from isochrone.router.wire.report import ModelState, Pressure, Wake, Waking, told_to

OBSERVED_S = 1.0
"""How often Serve's controller is asked how the replicas stand; that costs some 15 ms."""
OLD_S = 10.0
"""What was seen of the replicas longer ago is told as such."""
_FIRST_S = 0.2
"""So long the first request of an ingress waits for what is seen first; no other does."""
_log = logging.getLogger(__name__)

Observe = Callable[[], Awaitable[Mapping[str, Standing]]]
"""Asks how the replicas of every model stand."""


def _always_ready() -> bool:
    """A model that sleeps is woken by its first call."""
    return True


class Region:
    """One ingress of one region."""

    def __init__(
        self,
        config: CloudConfig,
        manifests: list[Manifest],
        replicas: Mapping[str, Replicas],
        observe: Observe,
        *,
        instance: str,
        clock: Clock,
    ) -> None:
        """`instance` names this ingress and no other before or after it."""
        self._catalogue = Catalogue(manifests)
        self._manifests = {manifest.name: manifest for manifest in manifests}
        self._observe = observe
        self._clock = clock
        self._observed_s = clock()
        self._watching: asyncio.Task[None] | None = None
        gate = RegionGate(lambda: slots(config.models, self._catalogue.standings), clock)
        self._load = Load(config.name, config.region, instance, gate, self._catalogue, clock)
        self._forwarding = Forwarding(self._catalogue, replicas, gate, self._load, clock)
        self._face = OpenInference(self._catalogue, self._forwarding, _always_ready)
        self._sampling = Sampling(self._face.handle)
        self._control: Mapping[str, tuple[str, Callable[[Request], Response]]] = {
            "/isochrone/report": ("GET", self._report),
            "/isochrone/wake": ("POST", self._wake),
        }

    async def handle(self, request: Request) -> Response:
        """The answer, also where it is a refusal; nothing is raised but cancellation."""
        if self._watching is None:
            await self._begin()
        if request.path in self._control:
            return self._controlled(request)
        if request.path == "/isochrone/sample":
            return await self._sampled(request)
        return self._load.vouched(await self._face.handle(request))

    async def _begin(self) -> None:
        """Watch the replicas from now on, as long as this process lives."""
        looked = asyncio.Event()
        # no group holds this task: it ends with the process, and tells its failures itself
        self._watching = asyncio.get_running_loop().create_task(self._watch(looked))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await looked.wait()

    async def _watch(self, looked: asyncio.Event) -> None:
        failing = False
        while True:
            try:
                seen = await self._observe()
            except Exception:  # whatever Serve fails with: calls and reports go on without it
                if not failing:
                    _log.exception("how the replicas stand cannot be seen")
                failing = True
            else:
                failing = False
                self._observed_s = self._clock()
                self._catalogue.observe(seen, self._observed_s)
            looked.set()
            await asyncio.sleep(OBSERVED_S)

    def _controlled(self, request: Request) -> Response:
        method, answer = self._control[request.path]
        try:
            check_method(request.method, method)
            return answer(request)
        except IsochroneError as error:
            return problem_response(error)

    async def _sampled(self, request: Request) -> Response:
        try:
            check_method(request.method, "POST")
            asked = read_json(request.body, Wake, "sample")
            held = self._catalogue.model(asked.model, asked.version)
            return await self._sampling.run(
                request, self._manifests[held.name], lambda: self._catalogue.state(held.name)
            )
        except IsochroneError as error:
            return problem_response(error)

    def _report(self, request: Request) -> Response:
        """What is known, and as the field `age` how old that is, in seconds."""
        report = self._load.endpoint_report(ready=True, draining=False)
        age_s = self._clock() - self._observed_s
        if age_s > OLD_S:
            old = f"Serve's controller: its replicas were last seen {age_s:.0f} s ago"
            report = replace(report, pressure=Pressure(degraded=(old,)))
        response = json_response(told_to(request.headers, report))
        response.headers.append((b"age", b"%d" % age_s))
        return response

    def _wake(self, request: Request) -> Response:
        wake = read_json(request.body, Wake, "wake")
        held = self._catalogue.model(wake.model, wake.version)
        self._forwarding.rouse(held.name)
        expected_s = 0.0 if held.state is ModelState.WARM else held.load_s
        return json_response(Waking(held.name, held.version, held.state, expected_s), 202)
