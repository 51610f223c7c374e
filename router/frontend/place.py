"""`POST /isochrone/place`: where a client had best go, in its own seconds. Nothing is sent."""

from random import Random
from typing import Any

import msgspec
from msgspec import structs

from router.errors import BadRequest
from router.fleet.ledger import Ledger
from router.frontend.asking import Asking
from router.geo.address import read_address
from router.geo.clients import Client, ClientPaths
from router.geo.locate import Place
from router.geo.network import Estimate
from router.policy.explain import considered, not_considered
from router.policy.pick import Scored
from router.policy.policy import Plan, Policy, decide
from router.process.exchange import Exchange
from router.wire.headers import CallHeaders
from router.wire.http import Response
from router.wire.peer_json import read_json
from router.wire.problem import json_response


class PlaceRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which model, and for which client; without an address, whoever asks."""

    model: str
    version: str | None = None
    client: str | None = None


class Places:
    """Ordered endpoints with predicted seconds from one client."""

    def __init__(
        self,
        policy: Policy,
        asking: Asking,
        ledger: Ledger,
        paths: ClientPaths,
        rng: Random,
    ) -> None:
        self._policy = policy
        self._asking = asking
        self._ledger = ledger
        self._paths = paths
        self._rng = rng

    def handle(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        """The plan for that client.

        Raises:
            BadRequest: the body is not a `PlaceRequest`, or the client no address.
            IsochroneError: as for an inference request.
        """
        asked = _read(exchange.request.body)
        law = self._asking.law
        client = asked.client or law.locator.client_address(
            exchange.request.peer, exchange.request.headers
        )
        place = law.locator.place(client)
        query = self._asking.query(headers, request_id, asked.model, asked.version)
        address = read_address(client)
        vantage = None
        if address is not None:
            vantage = self._paths.vantage(Client.of(address, place.point), query.now_s)
        plan = decide(
            self._policy, structs.replace(query, vantage=vantage), self._ledger, self._rng
        )
        return json_response(_told(plan, client, place))


def _told(plan: Plan, client: str, place: Place) -> dict[str, Any]:
    known = {s.permit.endpoint.name: (s.permit.endpoint.url, _net(plan, s)) for s in plan.order}
    endpoints = []
    for told in considered(plan):
        url, net = known.get(told["endpoint"], (None, None))
        endpoints.append({**told, "url": url, "net": net})
    return {
        "schema": "isochrone.place/1",
        "ok": bool(plan.order),
        "model": plan.query.model,
        "client": client,
        "place": {
            "source": place.source,
            "country": place.country,
            "region": place.region,
            "latitude": place.point.latitude if place.point else None,
            "longitude": place.point.longitude if place.point else None,
        },
        "vantage": "router" if plan.query.vantage is None else "client",
        "requirement": plan.query.requirement,
        "endpoints": endpoints,
        "not_considered": not_considered(plan),
    }


def _net(plan: Plan, scored: Scored) -> Estimate:
    """The round trip to an endpoint, and where it is known from."""
    candidate, vantage = scored.candidate, plan.query.vantage
    if vantage is None:
        return Estimate(candidate.net_s, candidate.net_sigma_s, "router")
    return vantage.net(candidate.endpoint.name, candidate.endpoint.region)


def _read(body: bytes) -> PlaceRequest:
    asked = read_json(body, PlaceRequest, 'the body must be {"model": ..., "client": ...}')
    if asked.client is not None and read_address(asked.client) is None:
        raise BadRequest("client must be an IP address")
    return asked
