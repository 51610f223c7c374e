"""The inference face: Open Inference Protocol V2 paths, each request decided and carried out.

The router reads the path and the header fields; a body passes untouched. What concerns one model
is asked of an endpoint; what concerns this server is answered here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.dispatcher import Dispatcher
from isochrone.router.errors import NotFound
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.frontend.asking import Asking
from isochrone.router.http.exchange import Exchange
from isochrone.router.wire.headers import CallHeaders
from isochrone.router.wire.http import Response
from isochrone.router.wire.methods import check_method
from isochrone.router.wire.problem import json_response
from isochrone.router.wire.report import ModelState

_MODEL_ACTIONS = {
    "": "GET",
    "ready": "GET",
    "infer": "POST",
    "generate": "POST",
    "generate_stream": "POST",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path below `/v2/models` names; `action` is empty for the model's metadata."""

    model: str
    version: str | None
    action: str


def read_target(path: str) -> Target:
    """`/v2/models/{model}[/versions/{version}][/{action}]`.

    Raises:
        NotFound: no such path.
    """
    model, *rest = path.removeprefix("/v2/models/").split("/")
    version = None
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    action = "/".join(rest)
    if not model or version == "" or action not in _MODEL_ACTIONS or rest == [""]:
        raise NotFound("this path is not offered here")
    return Target(model, version, action)


class Inference:
    """Everything below `/v2/models/{model}`."""

    def __init__(
        self, asking: Asking, ledger: Ledger, chooser: Chooser, dispatcher: Dispatcher
    ) -> None:
        self._asking = asking
        self._ledger = ledger
        self._chooser = chooser
        self._dispatcher = dispatcher

    def handle(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response | None:
        """Answer, or see to it that an endpoint does (None).

        Raises:
            IsochroneError: the request is refused.
        """
        request = exchange.request
        target = read_target(request.path)
        check_method(request.method, _MODEL_ACTIONS[target.action])
        query = self._asking.query(
            headers,
            request_id,
            target.model,
            target.version,
            target.action,
            body_bytes=len(request.body),
        )
        if target.action == "ready":
            ready = bool(self._chooser.best(query).order)
            return json_response({"name": target.model, "ready": ready}, 200 if ready else 503)
        self._dispatcher.dispatch(exchange, query)
        return None

    def index(self) -> list[dict[str, str]]:
        """Every model version that is held somewhere, READY where some endpoint has it warm."""
        states: dict[tuple[str, str], set[ModelState]] = {}
        for site in self._ledger.sites():
            for key, holding in site.holdings.items():
                states.setdefault(key, set()).add(holding.state)
        return [_indexed(name, version, held) for (name, version), held in sorted(states.items())]


def _indexed(name: str, version: str, states: set[ModelState]) -> dict[str, str]:
    ready = ModelState.WARM in states
    return {
        "name": name,
        "version": version,
        "state": "READY" if ready else "UNAVAILABLE",
        "reason": "" if ready else ", ".join(sorted(states)),
    }


Handler = Callable[[Exchange, CallHeaders, str], Response | None]
"""Answers a request at once, or sees to it that it is answered later (None)."""
