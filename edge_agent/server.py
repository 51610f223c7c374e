"""What an agent answers everybody: OIP, its report, wakes and samples."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from isochrone.edge_agent.lifecycle import Lifecycle
from isochrone.edge_agent.pressure import Pressing
from isochrone.edge_agent.report import Report
from isochrone.edge_agent.runtime.face.infer import Inference
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.face.oip import OpenInference, inference_target
from isochrone.edge_agent.runtime.loading.sample import Sampling
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.errors import IsochroneError, Unavailable
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.methods import check_method
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import json_response, problem_response
from isochrone.router.wire.report import Wake, Waking, told_to

_CONTROL = frozenset({"/isochrone/report", "/isochrone/wake", "/isochrone/sample"})


class Public:
    """The public listener: OIP, `GET /isochrone/report`, `POST /isochrone/wake` and `/sample`."""

    def __init__(
        self,
        face: OpenInference,
        inference: Inference,
        pool: Pool,
        report: Report,
        lifecycle: Lifecycle,
        pressing: Pressing,
        load: Load,
    ) -> None:
        self._face = face
        self._inference = inference
        self._sampling = Sampling(face.handle)
        self._pool = pool
        self._report = report
        self._lifecycle = lifecycle
        self._pressing = pressing
        self._load = load

    def begin(
        self, request: Request, tell: Callable[[Response], None]
    ) -> Callable[[], None] | None:
        """Answer without a task, where that is possible; see `Inference.begin`."""
        target = inference_target(request)
        if target is None or self._pressing.refuses:
            return None
        return self._inference.begin(target, tell)

    async def handle(self, request: Request) -> Response:
        """The answer, also where it is a refusal; what a router may have sent brings our load."""
        if request.path in _CONTROL:
            return await self._control(request)
        return self._load.vouched(await self._protocol(request))

    def _protocol(self, request: Request) -> Awaitable[Response]:
        if request.method == "POST" and request.path.startswith("/v2/models/"):
            try:
                self._pressing.admit()
            except IsochroneError as error:
                return _refused(error)
        return self._face.handle(request)

    async def _control(self, request: Request) -> Response:
        try:
            if request.path == "/isochrone/report":
                check_method(request.method, "GET")
                return json_response(told_to(request.headers, self._report.full()))
            if request.path == "/isochrone/wake":
                check_method(request.method, "POST")
                return json_response(self._wake(request), HTTPStatus.ACCEPTED)
            check_method(request.method, "POST")
            return await self._sample(request)
        except IsochroneError as error:
            return problem_response(error)

    def _wake(self, request: Request) -> Waking:
        wake = self._wish(request, "wake")
        version = self._pool.package(wake.model, wake.version).version
        self._pool.wake(wake.model, version)
        state = self._pool.state(wake.model, version)
        expected_s = self._pool.time_to_warm_s(wake.model, version)
        return Waking(wake.model, version, state, expected_s)

    async def _sample(self, request: Request) -> Response:
        asked = self._wish(request, "sample")
        package = self._pool.package(asked.model, asked.version)
        return await self._sampling.run(
            request,
            package.manifest,
            lambda: self._pool.state(package.name, package.version),
            package,
        )

    def _wish(self, request: Request, what: str) -> Wake:
        wish = read_json(request.body, Wake, what)
        self._pressing.admit()
        if self._lifecycle.draining:
            raise Unavailable("this agent is leaving")
        return wish


async def _refused(error: IsochroneError) -> Response:
    return problem_response(error)
