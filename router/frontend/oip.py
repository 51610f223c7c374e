"""The inference face: the model paths of the Open Inference Protocol V2.

The router reads the path and the header fields; a body passes unread. An endpoint answers what
concerns one model; the router answers what concerns this server.
"""

from collections.abc import Callable
from functools import partial

from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.dispatcher import Dispatcher
from isochrone.router.errors import NotFound
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.frontend.query_builder import QueryBuilder
from isochrone.router.http.exchange import Exchange
from isochrone.router.policy.query import Query
from isochrone.router.wire.headers import CallHeaders
from isochrone.router.wire.http import Request, Response
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

Handler = Callable[[Exchange, CallHeaders, str], Response | None]
"""Answers a request at once, or starts what answers it later (None)."""


def read_target(path: str) -> tuple[str, str | None, str]:
    """Model, version and action of `/v2/models/{model}[/versions/{version}][/{action}]`.

    The action is empty for the model's metadata.

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
    return model, version, action


class Inference:
    """Everything below `/v2/models/{model}`."""

    def __init__(
        self, queries: QueryBuilder, ledger: Ledger, chooser: Chooser, dispatcher: Dispatcher
    ) -> None:
        self._queries = queries
        self._ledger = ledger
        self._chooser = chooser
        self._dispatcher = dispatcher

    def handler(self, request: Request, headers: CallHeaders) -> Handler:
        """What answers requests with this head: path, method, tenant and law are checked here.

        Raises:
            IsochroneError: the request is refused.
        """
        model, version, action = read_target(request.path)
        check_method(request.method, _MODEL_ACTIONS[action])
        pattern = self._queries.pattern(headers, model, version, action)
        return partial(self._ready if action == "ready" else self._dispatch, pattern)

    def _dispatch(
        self, pattern: Query, exchange: Exchange, headers: CallHeaders, request_id: str
    ) -> None:
        body_bytes = len(exchange.request.body)
        query = self._queries.query(pattern, headers.timeout_s, request_id, body_bytes)
        self._dispatcher.dispatch(exchange, query)

    def _ready(
        self, pattern: Query, exchange: Exchange, headers: CallHeaders, request_id: str
    ) -> Response:
        del exchange
        query = self._queries.query(pattern, headers.timeout_s, request_id)
        ready = bool(self._chooser.best(query).order)
        return json_response({"name": query.model, "ready": ready}, 200 if ready else 503)

    def index(self) -> list[dict[str, str]]:
        """Every model version that an endpoint holds, READY where one has it warm."""
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
