"""`isochrone status`: the fleet as a running router sees it."""

import argparse
from collections.abc import Iterator

import msgspec

from isochrone.deploy.call import ADMIN_REMEDY, add_admin_argument, call
from isochrone.deploy.result import add_json_argument, columns, milliseconds, tell

HELP = "show the fleet as a running router sees it"


class _RouterSeen(msgspec.Struct):
    name: str
    region: str


class _ModelSeen(msgspec.Struct):
    name: str
    version: str
    state: str


class _EndpointSeen(msgspec.Struct):
    name: str
    region: str
    zone: str
    tier: str
    out: str | None
    degraded: list[str]
    slots: int
    in_flight: int
    heard: bool
    rtt_s: float
    rtt_measured: bool
    models: list[_ModelSeen]


class _FleetSeen(msgspec.Struct):
    router: _RouterSeen
    endpoints: list[_EndpointSeen]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to ask."""
    add_admin_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print it; 0 where every endpoint takes traffic, else 1."""
    reply = call(f"{args.admin}/isochrone/fleet", remedy=ADMIN_REMEDY)
    fleet, told = reply.json(_FleetSeen)
    tell(args, told, described(fleet))
    return int(any(endpoint.out for endpoint in fleet.endpoints))


def described(fleet: _FleetSeen) -> Iterator[str]:
    """A fleet as text."""
    router, endpoints = fleet.router, fleet.endpoints
    yield f"router {router.name} in {router.region}, {len(endpoints)} endpoints"
    if endpoints:
        heads = ["ENDPOINT", "REGION", "ZONE", "TIER", "TRAFFIC", "ROUND TRIP", "BUSY", "MODELS"]
        near_first = sorted(endpoints, key=lambda endpoint: endpoint.rtt_s)
        yield from columns([heads, *(_row(endpoint) for endpoint in near_first)])
    if not all(endpoint.rtt_measured for endpoint in endpoints):
        yield "~: expected from the distance between the regions, not measured"


def _row(endpoint: _EndpointSeen) -> list[str]:
    models = [f"{model.name}/{model.version} {model.state}" for model in endpoint.models]
    return [
        endpoint.name,
        endpoint.region,
        endpoint.zone or "-",
        endpoint.tier,
        f"out: {endpoint.out}" if endpoint.out else "; ".join(["yes", *endpoint.degraded]),
        ("" if endpoint.rtt_measured else "~") + milliseconds(endpoint.rtt_s),
        f"{endpoint.in_flight} of {endpoint.slots}" if endpoint.heard else "unknown",
        ", ".join(models) or ("none" if endpoint.heard else "unknown"),
    ]
