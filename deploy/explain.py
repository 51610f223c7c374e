"""`isochrone explain`: why a request was answered where it was."""

import argparse
from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from isochrone.deploy.call import ADMIN_REMEDY, add_admin_argument, call
from isochrone.deploy.result import add_json_argument, columns, milliseconds, tell

HELP = "say why a request was answered where it was"


class _PredictedSeconds(msgspec.Struct):
    total: float
    net: float
    wait: float
    service: float
    cold: float


class _CandidateTold(msgspec.Struct):
    endpoint: str
    region: str
    seconds: _PredictedSeconds | None
    reason: str | None


class _AttemptTold(msgspec.Struct):
    endpoint: str
    why: str
    outcome: str
    seconds: float


class _DecisionTold(msgspec.Struct):
    request_id: str
    tenant: str
    model: str
    version: str | None
    requirement: str
    why: str
    considered: list[_CandidateTold]
    not_considered: dict[str, int]
    attempts: list[_AttemptTold]
    status: int
    seconds: float
    sent: int | None = None
    """None: an older router does not say."""
    code: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which request, and whom to ask."""
    parser.add_argument("request_id", help="x-request-id of the answer")
    add_admin_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the decision."""
    url = f"{args.admin}/isochrone/decisions/{quote(args.request_id, safe='')}"
    decision, told = call(url, remedy=ADMIN_REMEDY).json(_DecisionTold)
    tell(args, told, described(decision))
    return 0


def described(decision: _DecisionTold) -> Iterator[str]:
    """A decision as text: what was asked, what was predicted of whom, what was then tried."""
    version = f"/{decision.version}" if decision.version else ""
    yield f"{decision.request_id}: {decision.model}{version} for {decision.tenant}"
    yield f"allowed regions: {decision.requirement}; first choice: {decision.why}"
    if decision.considered:
        yield ""
        heads = ["ENDPOINT", "REGION", "PREDICTED", "OF IT NETWORK", "WAIT", "SERVICE", "COLD"]
        yield from columns([[*heads, "WHY NOT"], *map(_row, decision.considered)])
    for reason, count in decision.not_considered.items():
        yield f"{count} more: {reason}"
    yield ""
    for number, attempt in enumerate(decision.attempts, 1):
        outcome = f"{attempt.outcome} after {milliseconds(attempt.seconds)}"
        yield f"try {number}: {attempt.endpoint} ({attempt.why}): {outcome}"
    yield f"{_end(decision)} after {milliseconds(decision.seconds)}"


def _end(decision: _DecisionTold) -> str:
    status = decision.status
    sent = status if decision.sent is None else decision.sent
    if not status:
        return f"the client left ({sent} was sent)" if sent else "the client left"
    if sent != status:
        return f"answered {sent}, and cut off: {decision.code} ({status})"
    return f"answered {status}"


def _row(candidate: _CandidateTold) -> list[str]:
    seconds = candidate.seconds
    told = [""] * 5 if seconds is None else map(milliseconds, msgspec.structs.astuple(seconds))
    return [candidate.endpoint, candidate.region, *told, candidate.reason or ""]
