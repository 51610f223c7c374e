"""The inference face: Open Inference Protocol V2 paths, each request decided and carried out.

The router reads the path and the header fields; a body passes untouched. What concerns one model
is asked of an endpoint; what concerns this server is answered here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from router.dispatch.probe import Prober
from router.dispatch.record import Record
from router.dispatch.runner import Runner
from router.errors import MethodNotAllowed, NoEndpoint, NotFound, Overloaded
from router.fleet.ledger import Ledger
from router.frontend.asking import Asking
from router.frontend.refusal import Refusals
from router.policy.explain import reasons
from router.policy.policy import Plan, Policy, decide
from router.process.exchange import Exchange
from router.wire.headers import CallHeaders
from router.wire.http import Response
from router.wire.problem import json_response
from router.wire.report import ModelState

_MODEL_ACTIONS = {
    "": "GET",
    "ready": "GET",
    "infer": "POST",
    "generate": "POST",
    "generate_stream": "POST",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path below `/v2/models` names; `action` is empty for the model's metadata."""

    model: str
    version: str | None
    action: str


def read_target(path: str) -> Target:
    """`/v2/models/{model}[/versions/{version}][/{action}]`.

    Raises:
        NotFound: no such path.
    """
    model, *rest = path.removeprefix("/v2/models/").split("/")
    version = None
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    action = "/".join(rest)
    if not model or version == "" or action not in _MODEL_ACTIONS or rest == [""]:
        raise NotFound("this path is not offered here")
    return Target(model, version, action)


class Inference:
    """Everything below `/v2/models/{model}`."""

    def __init__(
        self,
        *,
        policy: Policy,
        asking: Asking,
        ledger: Ledger,
        runner: Runner,
        prober: Prober,
        refusals: Refusals,
        rng: Random,
        in_flight: int,
    ) -> None:
        self._policy = policy
        self._asking = asking
        self._ledger = ledger
        self._runner = runner
        self._prober = prober
        self._refusals = refusals
        self._rng = rng
        self._in_flight = in_flight

    def handle(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response | None:
        """Answer, or see to it that an endpoint does (None).

        Raises:
            IsochroneError: the request is refused.
        """
        target = read_target(exchange.request.path)
        allowed = _MODEL_ACTIONS[target.action]
        if exchange.request.method != allowed:
            raise MethodNotAllowed(f"this path takes {allowed}", allow=(allowed,))
        query = self._asking.query(headers, request_id, target.model, target.version, target.action)
        if len(self._runner.running) >= self._in_flight:
            raise Overloaded("this router is full", retry_after_s=1.0)
        plan = decide(self._policy, query, self._ledger, self._rng)
        if target.action == "ready":
            ready = bool(plan.order)
            return json_response({"name": target.model, "ready": ready}, 200 if ready else 503)
        if not plan.order:
            self._refuse(exchange, plan)
            return None
        self._runner.run(exchange, plan)
        if plan.wake is not None and target.action:
            self._wake(plan)
        return None

    def index(self) -> list[dict[str, str]]:
        """Every model version that is held somewhere, READY where some endpoint has it warm."""
        states: dict[tuple[str, str], set[ModelState]] = {}
        for site in self._ledger.sites():
            for key, holding in site.holdings.items():
                states.setdefault(key, set()).add(holding.state)
        return [_indexed(name, version, held) for (name, version), held in sorted(states.items())]

    def _refuse(self, exchange: Exchange, plan: Plan) -> None:
        query = plan.query
        error = NoEndpoint(
            f"no endpoint may and can serve {query.model} now (required: {query.requirement})",
            retry_after_s=_soonest_s(plan),
            reasons=reasons(plan),
        )
        record = Record(plan, self._ledger.generation, query.now_s, code=error.code)
        record.status = self._refusals.refuse(exchange, query.request_id, error, plan)
        self._runner.ended(record)

    def _wake(self, plan: Plan) -> None:
        for scored in plan.order:
            if scored.permit is plan.wake:
                self._prober.wake(scored.permit, plan.query.model, scored.candidate.version)


def _soonest_s(plan: Plan) -> float:
    """When the first full endpoint will have room; a second where nothing says better."""
    now_s = plan.query.now_s
    waits = [r.candidate.full_until_s - now_s for r in plan.rejected if r.lawful]
    return min((wait for wait in waits if wait > 0), default=1.0)


def _indexed(name: str, version: str, states: set[ModelState]) -> dict[str, str]:
    ready = ModelState.WARM in states
    return {
        "name": name,
        "version": version,
        "state": "READY" if ready else "UNAVAILABLE",
        "reason": "" if ready else ", ".join(sorted(states)),
    }


Handler = Callable[[Exchange, CallHeaders, str], Response | None]
"""Answers a request at once, or sees to it that it is answered later (None)."""
