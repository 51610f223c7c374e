"""The public face of a router: one table of paths, and a guard that turns errors into answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import msgspec

from isochrone.router.errors import Forbidden, IsochroneError, NotFound
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.frontend.agents import Agents
from isochrone.router.frontend.measured import Measured
from isochrone.router.frontend.oip import Handler, Inference
from isochrone.router.frontend.place import Places
from isochrone.router.frontend.query_builder import QueryBuilder
from isochrone.router.frontend.refusal import Refusals
from isochrone.router.http.exchange import Exchange
from isochrone.router.process.clock import Clock
from isochrone.router.wire.headers import REQUEST_ID, CallHeaders, read_call_headers
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.methods import check_method
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import json_response

EXTENSIONS = ("binary_tensor_data", "generate")

_SOON_S = 1.0
"""By then, the first probe of every endpoint has been answered or has failed."""


class IndexQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v2/repository/index`."""

    ready: bool = False


@dataclass(slots=True)
class Readiness:
    """Whether this router may take traffic: it has heard from every endpoint and is not draining.

    Agents that only the previous process knew renew their leases by `joined_s`. `failing` names the
    housekeeping parts that fail: without one of them, answers may be late or wrong.
    """

    ledger: Ledger
    clock: Clock
    failing: Mapping[str, str] = field(default_factory=dict)
    joined_s: float = -math.inf
    settled: bool = False
    draining: bool = False

    def __bool__(self) -> bool:
        return not self.unsettled_s() and not self.draining and not self.failing

    def unsettled_s(self) -> float:
        """For how long agents that run already may still join; 0: all have joined."""
        left_s = self.joined_s - self.clock()
        if not self.settled:
            self.settled = left_s <= 0 and all(site.proven for site in self.ledger.sites())
        return 0.0 if self.settled else max(left_s, _SOON_S)

    def answer(self) -> Response:
        """The answer to `/v2/health/ready`."""
        ready = bool(self)
        state: dict[str, object] = {"ready": ready, "live": True}
        if self.failing:
            state["failing"] = dict(self.failing)
        return json_response(state, 200 if ready else 503)


class Server:
    """The service behind the public listener."""

    def __init__(
        self,
        *,
        version: str,
        readiness: Readiness,
        queries: QueryBuilder,
        inference: Inference,
        places: Places,
        measured: Measured,
        agents: Agents,
        refusals: Refusals,
        rng: Random,
    ) -> None:
        self._version = version
        self._readiness = readiness
        self._queries = queries
        self._inference = inference
        self._refusals = refusals
        self._rng = rng
        self._exact: dict[str, tuple[str, Handler]] = {
            "/v2": ("GET", self._metadata),
            "/v2/health/live": ("GET", self._live),
            "/v2/health/ready": ("GET", self._ready),
            "/v2/models": ("GET", self._models),
            "/v2/repository/index": ("POST", self._index),
            "/isochrone/place": ("POST", places.handle),
            "/isochrone/measurements": ("POST", measured.handle),
            "/isochrone/agents": ("POST", agents.enrol),
            "/isochrone/journal": ("POST", agents.journal),
        }
        self._agents = agents

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request, or start what answers it."""
        request = exchange.request
        request_id = f"{self._rng.getrandbits(64):016x}"
        try:
            headers = request.of_head(read_call_headers)
            request_id = headers.request_id or request_id
            handler: Handler | None = request.memo.get(self)
            if handler is None:
                handler = request.memo[self] = self._handler(request, headers)
            response = handler(exchange, headers, request_id)
        except IsochroneError as error:
            self._refusals.refuse(exchange, request_id, error)
            return
        if response is not None and isinstance(response.body, bytes):
            response.headers.append((REQUEST_ID, request_id.encode()))
            exchange.respond(response.status, response.headers, response.body)

    def _handler(self, request: Request, headers: CallHeaders) -> Handler:
        """What answers requests with this head."""
        path, method = request.path, request.method
        if path.startswith("/v2/models/"):
            return self._inference.handler(request, headers)
        if path.startswith("/isochrone/agents/"):
            wanted = ("GET", self._agents.seen) if method in ("GET", "HEAD") else None
            return _only(method, *(wanted or ("DELETE", self._agents.leave)))
        if path.startswith("/v2/repository/models/"):
            raise Forbidden("models are loaded and unloaded on an agent's admin listener")
        found = self._exact.get(path)
        if found is None:
            raise NotFound("this path is not offered here")
        return _only(method, *found)

    def _metadata(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        del exchange, headers, request_id
        return json_response(
            {"name": "isochrone", "version": self._version, "extensions": EXTENSIONS}
        )

    def _live(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        del exchange, headers, request_id
        return json_response({"live": True})

    def _ready(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        del exchange, headers, request_id
        return self._readiness.answer()

    def _models(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        del exchange, request_id
        return json_response({"models": self._queries.models(headers)})

    def _index(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        del request_id
        body = exchange.request.body or b"{}"
        asked = read_json(body, IndexQuery, 'the body must be {} or {"ready": true}')
        mine = frozenset(self._queries.models(headers))
        index = [m for m in self._inference.index() if m["name"] in mine]
        return json_response([m for m in index if not asked.ready or m["state"] == "READY"])


def _only(method: str, allowed: str, handler: Handler) -> Handler:
    check_method(method, allowed)
    return handler
