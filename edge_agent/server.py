"""What an agent answers: OIP and its report to everybody, loading and metrics to administrators."""

import asyncio
import logging
import re
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from edge_agent.lifecycle import Lifecycle
from edge_agent.pressure import Pressing
from edge_agent.report import Report
from edge_agent.runtime.oip import OpenInference, check_method
from edge_agent.runtime.pool import Pool
from edge_agent.runtime.sample import Sampling
from router.errors import BadRequest, IsochroneError, NotFound, Unavailable
from router.process.metrics import render
from router.wire.http import Request, Response
from router.wire.peer_json import read_json
from router.wire.problem import json_response, problem_response
from router.wire.report import ModelState, Wake, Waking

_CONTROL_PATH = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")
_log = logging.getLogger("isochrone.agent.server")


class Public:
    """The public listener: OIP, `GET /isochrone/report`, `POST /isochrone/wake` and `/sample`."""

    def __init__(
        self,
        face: OpenInference,
        pool: Pool,
        report: Report,
        lifecycle: Lifecycle,
        pressing: Pressing,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Loads that a wake begins run in `tasks`."""
        self._face = face
        self._sampling = Sampling(face.handle)
        self._pool = pool
        self._report = report
        self._lifecycle = lifecycle
        self._pressing = pressing
        self._tasks = tasks

    async def handle(self, request: Request) -> Response:
        """The answer, also where it is a refusal."""
        try:
            if request.path == "/isochrone/report":
                check_method(request, "GET")
                return json_response(self._report.full())
            if request.path == "/isochrone/wake":
                check_method(request, "POST")
                return json_response(self._wake(request), HTTPStatus.ACCEPTED)
            if request.path == "/isochrone/sample":
                check_method(request, "POST")
                return await self._sample(request)
            if request.method == "POST" and request.path.startswith("/v2/models/"):
                self._pressing.admit()
        except IsochroneError as error:
            return problem_response(error)
        return await self._face.handle(request)

    def _wake(self, request: Request) -> Waking:
        wake = self._wish(request, "wake")
        version = self._pool.package(wake.model, wake.version).version
        if self._pool.state(wake.model, version) is ModelState.COLD:
            self._tasks.create_task(self._load(wake.model, version))
        held = next(m for m in self._pool.held() if (m.name, m.version) == (wake.model, version))
        expected_s = 0.0 if held.state is ModelState.WARM else held.load_s
        return Waking(wake.model, version, held.state, expected_s)

    async def _sample(self, request: Request) -> Response:
        asked = self._wish(request, "sample")
        package = self._pool.package(asked.model, asked.version)
        return await self._sampling.run(
            request,
            package.manifest,
            lambda: self._pool.state(package.name, package.version),
        )

    def _wish(self, request: Request, what: str) -> Wake:
        wish = read_json(request.body, Wake, what)
        self._pressing.admit()
        if self._lifecycle.draining:
            raise Unavailable("this agent is leaving")
        return wish

    async def _load(self, model: str, version: str) -> None:
        try:
            await self._pool.load(model, version)
        except IsochroneError:
            return  # the pool has said it in the log, and the report shows it cold
        except Exception:  # whatever a package may cause must not end the agent
            _log.exception("%s %s failed to load", model, version)


class Admin:
    """The admin listener: load (the newest version), unload (every version), metrics, health."""

    def __init__(self, pool: Pool, lifecycle: Lifecycle, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._lifecycle = lifecycle
        self._registry = registry

    async def handle(self, request: Request) -> Response:
        """The answer, also where it is a refusal."""
        try:
            return await self._answer(request)
        except IsochroneError as error:
            return problem_response(error)

    async def _answer(self, request: Request) -> Response:
        control = _CONTROL_PATH.fullmatch(request.path)
        if control:
            check_method(request, "POST")
            return await self._control(control[1], control[2], request.body)
        answers: dict[str, Callable[[], Response]] = {
            "/metrics": lambda: render(self._registry),
            "/health": self._health,
        }
        if request.path not in answers:
            raise NotFound(f"{request.path} is not offered here")
        check_method(request, "GET")
        return answers[request.path]()

    async def _control(self, model: str, verb: str, body: bytes) -> Response:
        if body.strip() not in (b"", b"{}") and verb == "load":
            raise BadRequest("load takes no configuration: packages on disk say everything")
        if verb == "load":
            newest, *_ = self._pool.metadata(model).versions
            await self._pool.load(model, newest)
        else:
            await self._pool.unload(model)
        return json_response({})

    def _health(self) -> Response:
        healthy = self._pool.is_healthy()
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return json_response({"phase": self._lifecycle.phase, "healthy": healthy}, status)
