"""`isochrone explain`: why a request was answered where it was."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from deploy.call import add_admin_argument, call
from deploy.result import add_json_argument, columns, milliseconds, tell

HELP = "say why a request was answered where it was"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which request, and whom to ask."""
    parser.add_argument("request_id", help="x-request-id of the answer")
    add_admin_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the decision."""
    url = f"{args.admin}/isochrone/decisions/{quote(args.request_id, safe='')}"
    decision = call(url).json()
    tell(args, decision, described(decision))
    return 0


def described(decision: Mapping[str, Any]) -> Iterator[str]:
    """A decision as text: what was asked, what was predicted of whom, what was then tried."""
    version = f"/{decision['version']}" if decision["version"] else ""
    yield f"{decision['request_id']}: {decision['model']}{version} for {decision['tenant']}"
    yield f"law {decision['requirement']}, decided {decision['why']}"
    if decision["considered"]:
        yield ""
        heads = ["ENDPOINT", "REGION", "PREDICTED", "OF IT NETWORK", "WAIT", "SERVICE", "COLD"]
        yield from columns([[*heads, "WHY NOT"], *map(_row, decision["considered"])])
    for reason, count in decision["not_considered"].items():
        yield f"{count} more: {reason}"
    yield ""
    for number, attempt in enumerate(decision["attempts"], 1):
        outcome = f"{attempt['outcome']} after {milliseconds(attempt['seconds'])}"
        yield f"try {number}: {attempt['endpoint']} ({attempt['why']}): {outcome}"
    yield f"{_end(decision)} after {milliseconds(decision['seconds'])}"


def _end(decision: Mapping[str, Any]) -> str:
    status = decision["status"]
    sent = decision.get("sent", status)  # an older router does not say
    if not status:
        return f"the client left ({sent} was sent)" if sent else "the client left"
    if sent != status:
        return f"answered {sent}, and cut off: {decision['code']} ({status})"
    return f"answered {status}"


def _row(candidate: Mapping[str, Any]) -> list[str]:
    seconds = candidate["seconds"]
    names = ("total", "net", "wait", "service", "cold")
    told = [milliseconds(seconds[name]) if seconds else "" for name in names]
    return [candidate["endpoint"], candidate["region"], *told, candidate["reason"] or ""]
