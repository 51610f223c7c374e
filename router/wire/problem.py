"""How a refusal looks on the wire: the one table from error code to HTTP status, and the body."""

import math
from http import HTTPStatus

import msgspec

from isochrone.router.errors import IsochroneError, MethodNotAllowed, Unauthenticated
from isochrone.router.wire.headers import CODE
from isochrone.router.wire.http import Response

STATUS = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "misdirected": HTTPStatus.MISDIRECTED_REQUEST,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unlawful": HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS,
    "quota_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "no_endpoint": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "unusable_answer": HTTPStatus.BAD_GATEWAY,
    "poison": HTTPStatus.BAD_GATEWAY,
    "crashed": HTTPStatus.INTERNAL_SERVER_ERROR,
    "quarantined": HTTPStatus.UNPROCESSABLE_ENTITY,
    "deadline_exceeded": HTTPStatus.GATEWAY_TIMEOUT,
    "package": HTTPStatus.UNPROCESSABLE_ENTITY,
    "source_failed": HTTPStatus.BAD_GATEWAY,
    "source_refused": HTTPStatus.BAD_GATEWAY,
    "unloadable": HTTPStatus.NOT_IMPLEMENTED,
    "no_space": HTTPStatus.INSUFFICIENT_STORAGE,
}
"""Code of an error class to the status it leaves with; anything else is a 500."""

_JSON = (b"content-type", b"application/json")


class Problem(msgspec.Struct, omit_defaults=True):
    """The body of every refusal: OIP's `error`, a stable `code`, and why each endpoint was out.

    Servers of others say `error` only.
    """

    error: str
    code: str = ""
    reasons: dict[str, str] = {}


def problem_answer(error: IsochroneError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, header fields and body that tell a client of `error`.

    The code stands in a field too: a router decides by the head alone.
    """
    headers = [_JSON, (CODE, error.code.encode())]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allow).encode()))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    body = msgspec.json.encode(Problem(error.message, error.code, error.reasons))
    status = STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    return int(status), headers, body


def problem_response(error: IsochroneError) -> Response:
    """The same as an answer."""
    return Response(*problem_answer(error))


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, [_JSON], msgspec.json.encode(value))
