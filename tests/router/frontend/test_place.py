"""Where a client is told to go when there are thousands of endpoints."""

import json
from random import Random
from typing import Any

import pytest

from isochrone.router.admission.quota import Quotas
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.frontend.place import MOST, Places
from isochrone.router.frontend.query_builder import QueryBuilder
from isochrone.router.geo.clients import ClientPaths
from isochrone.router.http.exchange import Exchange
from isochrone.router.law.region_policy import RegionPolicy
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import Member, Membership
from isochrone.router.policy.policy import Policy
from isochrone.router.wire.headers import read_call_headers
from isochrone.router.wire.http import Request
from isochrone.router.wire.report import HeldModel, Lease, ModelState

LAW = """
regions:
  eu-west: {location: {latitude: 53.3, longitude: -6.3}, jurisdiction: eu}
  us-east: {location: {latitude: 39.0, longitude: -77.5}, jurisdiction: us}
  us-west: {location: {latitude: 45.6, longitude: -121.2}, jurisdiction: us}
networks:
  203.0.113.0/24: {region: us-east}
tenants:
  default: {require: any}
"""
AMERICAN, NOWHERE = "203.0.113.7", "198.51.100.1"
"""A client that is known to be in us-east, far from the router, and one of unknown place."""
HELD = HeldModel("digits", "1", ModelState.WARM)


class Asked:
    """One request, as far as it is looked at."""

    def __init__(self, client: str) -> None:
        body = json.dumps({"model": "digits", "client": client}).encode()
        self.request = Request("POST", "/isochrone/place", [], body)


class Town:
    """Places of a router in eu-west, over so many endpoints in each region."""

    def __init__(self, law: RegionPolicy, counts: dict[str, int]) -> None:
        names = [
            (f"{region}-{n}", region) for region, count in counts.items() for n in range(count)
        ]
        ends = [Endpoint(name, "http://127.0.0.1:9", at, reports=False) for name, at in names]
        members = [Member(endpoint=end, slots=4, models=(HELD,)) for end in ends]
        membership = Membership(members, law.regions.names, Lease())
        self.ledger = Ledger({"eu-west": 0.001, "us-east": 0.09, "us-west": 0.15}, "r1")
        self.ledger.follow(membership, 0.0)
        for site in self.ledger.sites():
            self.ledger.probe_ready(site, site.net_s, 0.0)
        queries = QueryBuilder(law, self.ledger, membership, frozenset(), lambda: 1.0)
        paths = ClientPaths(law.regions, Random(1))
        self._places = Places(Policy(), queries, self.ledger, paths, Quotas({}), Random(1))

    def place(self, client: str) -> dict[str, Any]:
        exchange: Exchange = Asked(client)  # type: ignore[assignment]  # only the request is read
        told: dict[str, Any] = json.loads(
            self._places.handle(exchange, read_call_headers([]), "id").body  # type: ignore[arg-type]
        )
        return told


@pytest.fixture
def law(tmp_path) -> RegionPolicy:
    path = tmp_path / "regions.yaml"
    path.write_text(LAW)
    return RegionPolicy.from_file(path)


def test_of_thousands_the_ones_near_the_client_are_told_and_the_rest_counted(law):
    town = Town(law, {"eu-west": 1000, "us-east": 1000, "us-west": 1000})
    told = town.place(AMERICAN)
    assert 1 <= len(told["endpoints"]) <= MOST
    assert told["endpoints"][0]["endpoint"].startswith("us-east")
    assert len(told["endpoints"]) + sum(told["not_considered"].values()) == 3000


def test_whoever_is_lost_is_told_of_the_ones_near_the_router(law):
    told = Town(law, {"us-west": 1000, "eu-west": 100}).place(NOWHERE)
    assert told["vantage"] == "router"
    assert told["endpoints"][0]["endpoint"].startswith("eu-west")
    assert len(told["endpoints"]) <= MOST


def test_where_everybody_near_is_out_somebody_farther_is_found(law):
    town = Town(law, {"us-east": 200, "eu-west": 200, "us-west": 60})
    for site in town.ledger.sites():
        if site.endpoint.region != "us-west":
            town.ledger.probe_missed(site, 2.0)
            town.ledger.probe_missed(site, 3.0)
    told = town.place(AMERICAN)
    assert told["ok"]
    assert any(one["endpoint"].startswith("us-west") for one in told["endpoints"])


def test_of_a_few_everybody_is_told(law):
    told = Town(law, {"us-west": 40, "eu-west": MOST - 40}).place(AMERICAN)
    assert len(told["endpoints"]) == MOST
    assert told["not_considered"] == {}
