"""The Open Inference Protocol V2 over REST, in front of whatever holds the models.

The same face stands before an edge agent's pool and before a cloud replica's. What it does not
offer (statistics, shared memory, tracing, ...) is an unknown path; loading is for administrators.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol

from isochrone.edge_agent.runtime.calls.holder import Shelf
from isochrone.edge_agent.runtime.face.infer import Target
from isochrone.router.errors import BadRequest, Forbidden, IsochroneError, NotFound
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.methods import check_method
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import json_response, problem_response
from isochrone.router.wire.report import HeldModel, ModelState

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "generate",
    "model_repository",
    "parameters",
    "schedule_policy",
)
_VERSION = version("isochrone")
_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/([a-z_]+))?")
_CONTROL_PATH = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)")
_log = logging.getLogger(__name__)


class Answering(Protocol):
    """Whoever answers the calls of models: an `Inference`, or something that forwards them."""

    def infer(self, target: Target, /) -> Awaitable[Response]:
        """Tensors in, tensors out."""
        ...

    def generate(self, target: Target, /) -> Awaitable[Response]:
        """A text in, a text out."""
        ...

    def generate_stream(self, target: Target, /) -> Awaitable[Response]:
        """A text in, its pieces out as they come; the body must be iterated or closed."""
        ...


class OpenInference:
    """Answers every OIP path."""

    def __init__(self, shelf: Shelf, inference: Answering, ready: Callable[[], bool]) -> None:
        """`ready` says whether traffic is welcome."""
        self._shelf = shelf
        self._ready = ready
        self._server: Mapping[str, tuple[str, Callable[[Request], Response]]] = {
            "/v2": ("GET", self._about),
            "/v2/health/live": ("GET", lambda _: json_response({"live": True})),
            "/v2/health/ready": ("GET", self._readiness),
            "/v2/models": ("GET", self._models),
            "/v2/repository/index": ("POST", self._index),
        }
        self._model: Mapping[str | None, tuple[str, Callable[[Target], Awaitable[Response]]]] = {
            None: ("GET", self._metadata),
            "ready": ("GET", self._model_readiness),
            "infer": ("POST", inference.infer),
            "generate": ("POST", inference.generate),
            "generate_stream": ("POST", inference.generate_stream),
        }

    async def handle(self, request: Request) -> Response:
        """The answer, also where it is a refusal; nothing is raised but cancellation."""
        try:
            return await self._answer(request)
        except IsochroneError as error:
            return problem_response(error)
        except Exception:  # whatever an engine may raise must not reach the client
            _log.exception("a request failed: %s %s", request.method, request.path)
            return problem_response(IsochroneError("the model failed"))

    def _answer(self, request: Request) -> Awaitable[Response]:
        if request.path in self._server:
            method, action = self._server[request.path]
            check_method(request.method, method)
            return _at_once(action(request))
        name, version, what = _parts(request.path)
        if name is None or what not in self._model:
            if _CONTROL_PATH.fullmatch(request.path):
                raise Forbidden("models are loaded and unloaded through the admin listener only")
            raise NotFound(f"{request.path} is not offered here")
        method, answer = self._model[what]
        check_method(request.method, method)
        return answer(Target(name, version, request))

    def _about(self, _request: Request) -> Response:
        about = {"name": "isochrone", "version": _VERSION, "extensions": EXTENSIONS}
        return json_response(about)

    def _readiness(self, _request: Request) -> Response:
        if self._ready():
            return json_response({"live": True, "ready": True})
        return json_response({"live": True, "ready": False, "error": "not ready"}, 503)

    def _models(self, _request: Request) -> Response:
        return json_response({"models": sorted({model.name for model in self._shelf.held()})})

    def _index(self, request: Request) -> Response:
        only_ready = _only_ready(request.body)
        entries = [
            _index_entry(model)
            for model in self._shelf.held()
            if model.state is ModelState.WARM or not only_ready
        ]
        return json_response(entries)

    async def _metadata(self, target: Target) -> Response:
        return json_response(self._shelf.metadata(target.model, target.version))

    async def _model_readiness(self, target: Target) -> Response:
        state = self._shelf.state(target.model, target.version)
        if state is ModelState.WARM:
            return json_response({"name": target.model, "ready": True})
        problem = f"{target.model} is {state}"
        return json_response({"name": target.model, "ready": False, "error": problem}, 503)


async def _at_once(response: Response) -> Response:
    return response


def inference_target(request: Request) -> Target | None:
    """What a call of a model's `infer` is for; None where a request is something else."""
    name, version, what = _parts(request.path)
    if name is None or what != "infer" or request.method != "POST":
        return None
    return Target(name, version, request)


@lru_cache(maxsize=256)
def _parts(path: str) -> tuple[str | None, str | None, str | None]:
    """The model, its version and what is wanted of it; no model where a path names none."""
    found = _MODEL_PATH.fullmatch(path)
    return (found[1], found[2], found[3]) if found else (None, None, None)


def _only_ready(body: bytes) -> bool:
    wish = read_json(body or b"{}", dict[str, Any], "the body must be a JSON object")
    ready = wish.get("ready", False)
    if not isinstance(ready, bool):
        raise BadRequest("ready must be true or false")
    return ready


_INDEX_STATES = {
    ModelState.WARM: ("READY", ""),
    ModelState.LOADING: ("LOADING", ""),
    ModelState.WARMING: ("LOADING", ""),
    ModelState.DRAINING: ("UNLOADING", ""),
}


def _index_entry(model: HeldModel) -> dict[str, str]:
    state, reason = _INDEX_STATES.get(model.state, ("UNAVAILABLE", str(model.state)))
    return {"name": model.name, "version": model.version, "state": state, "reason": reason}
