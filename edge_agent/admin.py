"""What an agent answers its administrators: models pulled, loaded, changed; metrics and health."""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec
from prometheus_client import CollectorRegistry

from isochrone.edge_agent.artefacts.pull import Wish
from isochrone.edge_agent.artefacts.repository import Repository
from isochrone.edge_agent.guard import Guard
from isochrone.edge_agent.lifecycle import Lifecycle
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.errors import BadRequest, IsochroneError, NotFound, let_go
from isochrone.router.process.metrics import render
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.methods import check_method
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import json_response, problem_response
from isochrone.router.wire.report import Name

_MODEL_PATH = re.compile(
    r"/v2/repository/models/([^/]+)/(load|unload)|/isochrone/models/([^/]+)/(pull|rollback)"
)
_WAIT_S = 2.0
"""So long the answer to a pull waits for its end; who asks again joins it."""
T = TypeVar("T")
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class _Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Name | None = None
    unload_dependents: bool = False
    """Part of the protocol; nothing here depends on another model."""


class _Control(msgspec.Struct, forbid_unknown_fields=True):
    """The body of load and unload; packages say everything else themselves."""

    parameters: _Parameters = _Parameters()


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object."""


class _Pull(msgspec.Struct, forbid_unknown_fields=True):
    version: Name
    digest: Digest | None = None
    """The sha256 of its manifest."""


class Admin:
    """The admin listener. Health is told to everybody, everything else to who has the token."""

    def __init__(
        self,
        repository: Repository,
        pool: Pool,
        lifecycle: Lifecycle,
        registry: CollectorRegistry,
        guard: Guard,
    ) -> None:
        self._repository = repository
        self._pool = pool
        self._lifecycle = lifecycle
        self._registry = registry
        self._guard = guard
        self._control: dict[str, Callable[[str, bytes], Awaitable[Response]]] = {
            "load": self._load,
            "unload": self._unload,
            "pull": self._pull,
            "rollback": self._rollback,
        }

    async def handle(self, request: Request) -> Response:
        """The answer, also where it is a refusal."""
        try:
            return await self._answer(request)
        except IsochroneError as error:
            response = problem_response(_with_cause(error))
            let_go(error)
            return response

    async def _answer(self, request: Request) -> Response:
        if request.path == "/health":
            check_method(request.method, "GET")
            return self._health()
        self._guard.check(request)
        path = _MODEL_PATH.fullmatch(request.path)
        if path is not None:
            check_method(request.method, "POST")
            return await self._control[path[2] or path[4]](path[1] or path[3], request.body)
        if request.path not in ("/metrics", "/isochrone/models"):
            raise NotFound(f"{request.path} is not offered here")
        check_method(request.method, "GET")
        return render(self._registry) if request.path == "/metrics" else await self._models()

    async def _models(self) -> Response:
        models, pulls = await self._repository.models(), self._repository.pulling()
        told = {"schema": "isochrone.models/1", "ok": True, "models": models, "pulls": pulls}
        return json_response(told)

    async def _load(self, model: str, body: bytes) -> Response:
        wished = _read(body, _Control).parameters.version
        version = await self._repository.load(_name(model), wished)
        return _version(model, version)

    async def _unload(self, model: str, body: bytes) -> Response:
        done = await self._repository.unload(model, _read(body, _Control).parameters.version)
        return json_response({}, HTTPStatus.OK if done else HTTPStatus.ACCEPTED)

    async def _rollback(self, model: str, body: bytes) -> Response:
        _read(body, _Nothing)
        return _version(model, await self._repository.rollback(model))

    async def _pull(self, model: str, body: bytes) -> Response:
        asked = _read(body, _Pull)
        wish = Wish(_name(model), asked.version, asked.digest)
        told = await self._repository.pull(wish, _WAIT_S)
        return json_response(told, HTTPStatus.OK if told.done else HTTPStatus.ACCEPTED)

    def _health(self) -> Response:
        healthy = self._pool.is_healthy()
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return json_response({"phase": self._lifecycle.phase, "healthy": healthy}, status)


def _version(model: str, version: str) -> Response:
    return json_response({"name": model, "version": version})


def _read(body: bytes, kind: type[T]) -> T:
    return read_json(body.strip() or b"{}", kind, "the body is not what is taken here")


def _name(text: str) -> str:
    try:
        return msgspec.convert(text, Name)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{text[:80]!r} is no model's name") from error


def _with_cause(error: IsochroneError) -> IsochroneError:
    """Administrators are told what lies behind a refusal, with its files."""
    if isinstance(error.__cause__, IsochroneError):
        error.reasons["cause"] = error.__cause__.message
    return error
