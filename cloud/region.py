"""Everything that a region's ingress answers: its models through their replicas, and of itself."""

from collections.abc import Awaitable, Callable, Mapping

from cloud.catalogue import Catalogue
from cloud.config import CloudConfig
from cloud.forward import Forwarding
from cloud.gate import RegionGate
from cloud.replicas import Replicas
from cloud.scale import Standing, slots
from edge_agent.runtime.load import Load
from edge_agent.runtime.manifest import Manifest
from edge_agent.runtime.oip import OpenInference
from edge_agent.runtime.sample import Sampling
from router.errors import IsochroneError
from router.process.clock import Clock
from router.wire.http import Request, Response
from router.wire.methods import check_method
from router.wire.peer_json import read_json
from router.wire.problem import json_response, problem_response
from router.wire.report import ModelState, Wake, Waking, told_to

OBSERVED_S = 1.0
"""What was seen of the replicas counts for this long: asking Serve costs some 15 ms."""
ROUSED_S = 10.0
"""A model that was woken is not woken again within this time."""

Observe = Callable[[], Awaitable[Mapping[str, Standing]]]
"""Asks how the replicas of every model stand."""


def _always_ready() -> bool:
    """A model that sleeps is woken by its first call."""
    return True


def _is_call(request: Request) -> bool:
    """Calls do not wait for what Serve's controller has to say."""
    return request.method == "POST" and request.path.startswith("/v2/models/")


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
        self._replicas = replicas
        self._observe = observe
        self._clock = clock
        self._observed_s = float("-inf")
        self._roused_s: dict[str, float] = {}
        gate = RegionGate(lambda: slots(config.models, self._catalogue.standings))
        self._load = Load(config.name, config.region, instance, gate, self._catalogue, clock)
        forwarding = Forwarding(self._catalogue, replicas, gate, self._load, clock)
        self._face = OpenInference(self._catalogue, forwarding, _always_ready)
        self._sampling = Sampling(self._face.handle)
        self._control: Mapping[str, tuple[str, Callable[[Request], Response]]] = {
            "/isochrone/report": ("GET", self._report),
            "/isochrone/wake": ("POST", self._wake),
        }

    async def handle(self, request: Request) -> Response:
        """The answer, also where it is a refusal; nothing is raised but cancellation."""
        if self._observed_s < 0 or not _is_call(request):
            await self._look()
        if request.path in self._control:
            return self._controlled(request)
        if request.path == "/isochrone/sample":
            return await self._sampled(request)
        return await self._face.handle(request)

    async def _look(self) -> None:
        """See how the replicas stand, unless that was seen just now."""
        now_s = self._clock()
        if now_s - self._observed_s < OBSERVED_S:
            return
        self._observed_s = now_s  # whoever comes meanwhile takes what was seen before
        self._catalogue.observe(await self._observe())

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
        report = self._load.endpoint_report(ready=True, draining=False)
        return json_response(told_to(request.headers, report))

    def _wake(self, request: Request) -> Response:
        wake = read_json(request.body, Wake, "wake")
        held = self._catalogue.model(wake.model, wake.version)
        if held.state is ModelState.COLD and self._may_rouse(held.name):
            self._replicas[held.name].rouse()
        expected_s = 0.0 if held.state is ModelState.WARM else held.load_s
        return json_response(Waking(held.name, held.version, held.state, expected_s), 202)

    def _may_rouse(self, model: str) -> bool:
        now_s = self._clock()
        if now_s - self._roused_s.get(model, float("-inf")) < ROUSED_S:
            return False
        self._roused_s[model] = now_s
        return True
