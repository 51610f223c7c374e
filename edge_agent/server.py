"""What an agent answers everybody: OIP, its report, wakes and samples."""

import asyncio
import logging
from http import HTTPStatus

from edge_agent.lifecycle import Lifecycle
from edge_agent.report import Report
from edge_agent.runtime.oip import OpenInference, check_method
from edge_agent.runtime.pool import Pool
from edge_agent.runtime.sample import Sampling
from router.errors import IsochroneError, Unavailable
from router.wire.http import Request, Response
from router.wire.peer_json import read_json
from router.wire.problem import json_response, problem_response
from router.wire.report import ModelState, Wake, Waking

_log = logging.getLogger("isochrone.agent.server")


class Public:
    """The public listener: OIP, `GET /isochrone/report`, `POST /isochrone/wake` and `/sample`."""

    def __init__(
        self,
        face: OpenInference,
        pool: Pool,
        report: Report,
        lifecycle: Lifecycle,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Loads that a wake begins run in `tasks`."""
        self._face = face
        self._sampling = Sampling(face.handle)
        self._pool = pool
        self._report = report
        self._lifecycle = lifecycle
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
