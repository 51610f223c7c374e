"""The only place that turns an error into an HTTP answer: counted, with the request's id."""

from collections.abc import Callable

from isochrone.router.errors import IsochroneError
from isochrone.router.http.exchange import Exchange
from isochrone.router.policy.explain import explanation
from isochrone.router.policy.policy import Plan
from isochrone.router.wire.headers import EXPLAIN, REQUEST_ID
from isochrone.router.wire.problem import problem_answer


class Refusals:
    """Answers clients with errors; `counted` is called with the code of each."""

    def __init__(self, counted: Callable[[str], None]) -> None:
        self._counted = counted

    def refuse(
        self,
        exchange: Exchange,
        request_id: str,
        error: IsochroneError,
        plan: Plan | None = None,
    ) -> int:
        """Answer with an error, and with the plan if the client requests it; returns the status."""
        status, headers, body = problem_answer(error)
        headers.append((REQUEST_ID, request_id.encode()))
        if plan is not None and exchange.request.header(EXPLAIN) == b"1":
            headers.append((EXPLAIN, explanation(plan)))
        self._counted(error.code)
        exchange.respond(status, headers, body)
        return status
