"""`POST /isochrone/place`: where a client had best go, in its own seconds. Nothing is sent."""

from dataclasses import replace
from random import Random
from typing import Any

import msgspec

from router.errors import BadRequest
from router.fleet.ledger import Ledger
from router.frontend.asking import Asking
from router.geo.address import read_address
from router.geo.locate import Place
from router.geo.network import prior_rtt_s
from router.geo.region import Regions, distance_km
from router.policy.explain import considered, not_considered
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

    def __init__(self, policy: Policy, asking: Asking, ledger: Ledger, rng: Random) -> None:
        self._policy = policy
        self._asking = asking
        self._ledger = ledger
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
        vantage = _vantage(place, law.regions)
        plan = decide(self._policy, replace(query, vantage=vantage), self._ledger, self._rng)
        return json_response(_told(plan, client, place))


def _vantage(place: Place, regions: Regions) -> dict[str, float] | None:
    """The round trip from a place to each region; None where the place is unknown."""
    if place.point is None:
        return None
    return {region.name: prior_rtt_s(distance_km(place.point, region.point)) for region in regions}


def _told(plan: Plan, client: str, place: Place) -> dict[str, Any]:
    urls = {s.permit.endpoint.name: s.permit.endpoint.url for s in plan.order}
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
        "endpoints": [{**c, "url": urls.get(c["endpoint"])} for c in considered(plan)],
        "not_considered": not_considered(plan),
    }


def _read(body: bytes) -> PlaceRequest:
    asked = read_json(body, PlaceRequest, 'the body must be {"model": ..., "client": ...}')
    if asked.client is not None and read_address(asked.client) is None:
        raise BadRequest("client must be an IP address")
    return asked
