"""The one place where a refusal becomes an HTTP answer, with the request's id on it."""

from router.errors import IsochroneError
from router.process.exchange import Exchange
from router.wire.headers import REQUEST_ID
from router.wire.problem import problem_answer


def refuse(exchange: Exchange, request_id: str, error: IsochroneError) -> int:
    """Answer with an error; returns the status it left with."""
    status, headers, body = problem_answer(error)
    headers.append((REQUEST_ID, request_id.encode()))
    exchange.respond(status, headers, body)
    return status
