"""`isochrone status`: the fleet as a running router sees it."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from deploy.call import add_admin_argument, call
from deploy.result import add_json_argument, columns, milliseconds, tell

HELP = "show the fleet as a running router sees it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to ask."""
    add_admin_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print it; 0 where every endpoint takes traffic, else 1."""
    fleet = call(f"{args.admin}/isochrone/fleet").json()
    tell(args, fleet, described(fleet))
    return int(any(endpoint["out"] for endpoint in fleet["endpoints"]))


def described(fleet: Mapping[str, Any]) -> Iterator[str]:
    """A fleet as text."""
    router, endpoints = fleet["router"], fleet["endpoints"]
    yield f"router {router['name']} in {router['region']}, {len(endpoints)} endpoints"
    if endpoints:
        heads = ["ENDPOINT", "REGION", "ZONE", "TIER", "TRAFFIC", "ROUND TRIP", "BUSY", "MODELS"]
        near_first = sorted(endpoints, key=lambda endpoint: endpoint["rtt_s"])
        yield from columns([heads, *(_row(endpoint) for endpoint in near_first)])
    if not all(map(_is_measured, endpoints)):
        yield "~: expected from the distance between the regions, not measured"


def _row(endpoint: Mapping[str, Any]) -> list[str]:
    return [
        endpoint["name"],
        endpoint["region"],
        endpoint["zone"] or "-",
        endpoint["tier"],
        _traffic(endpoint),
        ("" if _is_measured(endpoint) else "~") + milliseconds(endpoint["rtt_s"]),
        f"{endpoint['in_flight']} of {endpoint['slots']}" if endpoint["heard"] else "unknown",
        ", ".join(map(_model, endpoint["models"])) or ("none" if endpoint["heard"] else "unknown"),
    ]


def _is_measured(endpoint: Mapping[str, Any]) -> bool:
    return bool(endpoint["rtt_measured"])


def _traffic(endpoint: Mapping[str, Any]) -> str:
    if endpoint["out"]:
        return f"out: {endpoint['out']}"
    return "; ".join(["yes", *endpoint["degraded"]])


def _model(model: Mapping[str, Any]) -> str:
    return f"{model['name']}/{model['version']} {model['state']}"
