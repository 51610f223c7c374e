"""The administration's face, on its own listener: health, metrics, fleet, decisions, policy."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from isochrone.router.errors import IsochroneError, MethodNotAllowed, NotFound
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.site import Site
from isochrone.router.frontend.decisions import Decisions
from isochrone.router.frontend.server import Readiness
from isochrone.router.law.region_policy import RegionPolicy
from isochrone.router.members.store import Store
from isochrone.router.process.metrics import render
from isochrone.router.wire.http import Response
from isochrone.router.wire.problem import json_response, problem_response

_JOURNAL_MOST = 1000
_log = logging.getLogger("isochrone.router.admin")
_Answer = Callable[[web.Request], Response]


class Admin:
    """Everything an operator may ask of a running router."""

    def __init__(
        self,
        *,
        name: str,
        region: str,
        readiness: Readiness,
        ledger: Ledger,
        decisions: Decisions,
        law: RegionPolicy,
        store: Store,
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._region = region
        self._readiness = readiness
        self._ledger = ledger
        self._decisions = decisions
        self._law = law
        self._store = store
        self._registry = registry

    def application(self) -> web.Application:
        """The routes, for aiohttp."""
        routes: dict[str, _Answer] = {
            "/v2/health/live": lambda _: json_response({"live": True}),
            "/v2/health/ready": self._ready,
            "/metrics": lambda _: render(self._registry),
            "/isochrone/fleet": self._fleet,
            "/isochrone/decisions/{id}": self._decision,
            "/isochrone/policy": self._policy,
        }
        application = web.Application(middlewares=[_in_json])
        for path, answer in routes.items():
            application.router.add_get(path, _handler(answer))
        application.router.add_get("/isochrone/journal", self._journal)
        return application

    def _ready(self, request: web.Request) -> Response:
        del request
        return self._readiness.answer()

    def _fleet(self, request: web.Request) -> Response:
        del request
        return json_response(
            {
                "schema": "isochrone.fleet/1",
                "ok": True,
                "router": {"name": self._name, "region": self._region},
                "generation": self._ledger.generation,
                "endpoints": [_site(site) for site in self._ledger.sites()],
            }
        )

    async def _journal(self, request: web.Request) -> web.Response:
        """What agents have told, newest first."""
        del request
        told = await self._store.told(_JOURNAL_MOST)
        entries = [{"agent": agent, **msgspec.structs.asdict(entry)} for agent, entry in told]
        answer = {"schema": "isochrone.journal/1", "ok": True, "entries": entries}
        return web.json_response(body=msgspec.json.encode(answer))

    def _decision(self, request: web.Request) -> Response:
        told = self._decisions.tell(request.match_info["id"])
        if told is None:
            raise NotFound("no decision of that request id is kept")
        return json_response(told)

    def _policy(self, request: web.Request) -> Response:
        del request
        return json_response(
            {
                "schema": "isochrone.policy/1",
                "ok": True,
                "fingerprint": self._law.fingerprint,
                "regions": {r.name: r.jurisdiction for r in self._law.regions},
                "models": sorted(self._law.known_models),
                "geoip_failures": self._law.locator.failures,
            }
        )


def _site(site: Site) -> dict[str, Any]:
    endpoint = site.endpoint
    return {
        "name": endpoint.name,
        "url": endpoint.url,
        "region": endpoint.region,
        "zone": endpoint.zone,
        "tier": endpoint.tier,
        "hardware_class": endpoint.hardware_class,
        "out": site.out,
        "degraded": site.degraded,
        "slots": site.occupancy.slots,
        "in_flight": site.occupancy.in_flight,
        "heard": site.heard_s > -math.inf,
        "rtt_s": site.net_s,
        "rtt_measured": site.path.measured,
        "models": [
            {
                "name": holding.model,
                "version": holding.version,
                "active": holding.active,
                "state": holding.state,
                "service_s": holding.service_s,
                "service_measured": holding.service.measured,
                "load_s": holding.load_s,
            }
            for holding in site.holdings.values()
        ],
    }


@web.middleware
async def _in_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every refusal is JSON; aiohttp's own would be text."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refused:
        allow = tuple(sorted(refused.allowed_methods))
        text = f"this path takes {' and '.join(allow)}"
        error: IsochroneError = MethodNotAllowed(text, allow=allow)
    except web.HTTPNotFound:
        error = NotFound("this path is not offered here")
    except IsochroneError as ours:
        error = ours
    except Exception:  # a mistake of ours must not tell its inside
        _log.exception("%s %s failed", request.method, request.path)
        error = IsochroneError("internal error")
    return _as_aiohttp(problem_response(error))


def _as_aiohttp(response: Response) -> web.Response:
    fields = {name.decode(): value.decode() for name, value in response.headers}
    return web.Response(status=response.status, body=response.body, headers=fields)


def _handler(answer: _Answer) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        return _as_aiohttp(answer(request))

    return handle
