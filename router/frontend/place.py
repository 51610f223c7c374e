"""`POST /isochrone/place`: where a client had best go, in its own seconds. Nothing is sent.

It costs a token of the tenant's quota. Of many endpoints those of the regions nearest to the client
are looked at, and the others are counted only.
"""

import math
from random import Random
from typing import Any

import msgspec
from msgspec import structs

from isochrone.router.admission.quota import Quotas
from isochrone.router.errors import BadRequest, QuotaExceeded
from isochrone.router.fleet.candidate import Candidate, Fleet
from isochrone.router.frontend.query_builder import QueryBuilder
from isochrone.router.geo.address import read_address
from isochrone.router.geo.clients import Client, ClientPaths
from isochrone.router.geo.network import Estimate
from isochrone.router.geo.place import Place
from isochrone.router.geo.region import Point, distance_km
from isochrone.router.http.exchange import Exchange
from isochrone.router.policy.choose import choose
from isochrone.router.policy.explain import considered, not_considered
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.policy import Plan, Policy, decide, plan_among
from isochrone.router.policy.query import Query
from isochrone.router.wire.headers import CallHeaders
from isochrone.router.wire.http import Response
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import json_response

MOST = 128
"""So many endpoints are told of one by one: some milliseconds of work."""


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
        queries: QueryBuilder,
        fleet: Fleet,
        paths: ClientPaths,
        quotas: Quotas,
        rng: Random,
    ) -> None:
        self._policy = policy
        self._queries = queries
        self._fleet = fleet
        self._paths = paths
        self._quotas = quotas
        self._rng = rng

    def handle(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        """The plan for that client.

        Raises:
            BadRequest: the body is not a `PlaceRequest`, or the client no address.
            QuotaExceeded: the tenant has asked too often.
            IsochroneError: as for an inference request.
        """
        asked = _read(exchange.request.body)
        law = self._queries.law
        client = asked.client or law.locator.client_address(
            exchange.request.peer, exchange.request.headers
        )
        place = law.locator.place(client)
        pattern = self._queries.pattern(headers, asked.model, asked.version)
        query = self._queries.query(pattern, headers.timeout_s, request_id)
        self._pay(query)
        address = read_address(client)
        vantage = None
        if address is not None:
            vantage = self._paths.vantage(Client.of(address, place.point), query.now_s)
        plan = self._plan(structs.replace(query, vantage=vantage), place.point)
        return json_response(_told(plan, client, place))

    def _pay(self, query: Query) -> None:
        wait_s = self._quotas.take(query.tenant, query.now_s)
        if wait_s > 0:
            used_up = f"tenant {query.tenant} has used up its quota"
            raise QuotaExceeded(used_up, retry_after_s=wait_s)

    def _plan(self, query: Query, point: Point | None) -> Plan:
        """Everybody's seconds or reason; of many, of those near the client."""
        total = len(self._fleet.candidates(query.model, query.version))
        if total <= MOST:
            return decide(self._policy, query, self._fleet, self._rng)
        near = self._near(query, point)
        elsewhere = self._fleet.elsewhere(query.model, query.version)
        plan = plan_among(
            self._policy,
            query,
            near,
            self._rng,
            elsewhere=elsewhere,
            unexplained=total - len(near),
        )
        return plan if plan.order else choose(self._policy, query, self._fleet, self._rng)

    def _near(self, query: Query, point: Point | None) -> list[Candidate]:
        """Lawful candidates, region by region from the client; from this router if it is lost."""
        if point is None:
            lawful = self._fleet.shortlist(query.model, query.version, query.required_regions)
            return list(lawful.near[:MOST])
        near: list[Candidate] = []
        for region in self._regions_from(point, query.required_regions):
            there = self._fleet.shortlist(query.model, query.version, frozenset((region,)))
            near += there.near
            if len(near) >= MOST:
                break
        return near[:MOST]

    def _regions_from(self, point: Point, required: frozenset[str] | None) -> list[str]:
        """The regions that the law allows, nearest first."""
        regions = [r for r in self._queries.law.regions if required is None or r.name in required]
        regions.sort(key=lambda region: distance_km(point, region.point))
        return [region.name for region in regions]


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
        return Estimate(candidate.net_s, math.sqrt(candidate.net_variance), "router")
    return vantage.net(candidate.endpoint.name, candidate.endpoint.region)


def _read(body: bytes) -> PlaceRequest:
    asked = read_json(body, PlaceRequest, 'the body must be {"model": ..., "client": ...}')
    if asked.client is not None and read_address(asked.client) is None:
        raise BadRequest("client must be an IP address")
    return asked
