"""Our own header fields: deadline, priority, tenant, regions, explain, and what goes upstream."""

import re
from dataclasses import dataclass

from isochrone.router.errors import BadRequest
from isochrone.router.wire.http import Headers

REQUEST_ID = b"x-request-id"
TIMEOUT = b"x-request-timeout-seconds"
PRIORITY = b"x-isochrone-priority"
REGIONS = b"x-isochrone-regions"
DATA_CLASS = b"x-isochrone-data-class"
EXPLAIN = b"x-isochrone-explain"
TENANT = b"x-isochrone-tenant"
ATTEMPT = b"x-isochrone-attempt"
SEQUENCE = b"x-isochrone-seq"
ALLOWED = b"x-isochrone-allowed"
ENDPOINT = b"x-isochrone-endpoint"
REGION = b"x-isochrone-region"
REASON = b"x-isochrone-reason"
CODE = b"x-isochrone-code"
ATTEMPTS = b"x-isochrone-attempts"
END = b"x-isochrone-end"
"""A trailer of a streamed answer: the code of the error that ended it, told in its last event."""
SERVER_TIMING = b"server-timing"
FORWARDED_FOR = b"x-forwarded-for"
IDEMPOTENCY_KEY = b"idempotency-key"
AUTHORIZATION = b"authorization"
API_KEY = b"x-api-key"

DEFAULT_TIMEOUT_S = 30.0
MAX_TIMEOUT_S = 300.0
DEFAULT_PRIORITY = 5

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that end at each hop (RFC 9110 §7.6.1), with the framing that each side writes anew."""

_READ = frozenset(
    {
        REQUEST_ID,
        TIMEOUT,
        PRIORITY,
        REGIONS,
        DATA_CLASS,
        AUTHORIZATION,
        API_KEY,
        EXPLAIN,
        IDEMPOTENCY_KEY,
    }
)
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class CallHeaders:
    """What the routing of one request needs from its header fields."""

    request_id: str | None
    timeout_s: float
    priority: int
    key: str | None
    """Of the authorization, else of x-api-key."""
    regions: frozenset[str] | None
    data_class: str | None
    explain: bool = False
    idempotent: bool = False
    second_key: str | None = None
    """Of x-api-key, where an authorization has another."""


_NOTHING_SAID = CallHeaders(None, DEFAULT_TIMEOUT_S, DEFAULT_PRIORITY, None, None, None)


def read_call_headers(headers: Headers) -> CallHeaders:
    """Read and check our request header fields.

    Raises:
        BadRequest: a field is there and has a value that we cannot honour.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ and fields.setdefault(name, value) is not value:
            raise BadRequest(f"{name.decode()} stands there twice")
    if not fields:
        return _NOTHING_SAID
    given = read_request_id(fields.get(REQUEST_ID))
    key, second = _keys(fields)
    return CallHeaders(
        request_id=given.decode() if given else None,
        timeout_s=read_timeout(fields.get(TIMEOUT)),
        priority=_priority(fields.get(PRIORITY)),
        key=key,
        second_key=second if second != key else None,
        regions=_regions(fields.get(REGIONS)),
        data_class=_text(DATA_CLASS, fields[DATA_CLASS]) if DATA_CLASS in fields else None,
        explain=fields.get(EXPLAIN) == b"1",
        idempotent=bool(fields.get(IDEMPOTENCY_KEY)),
    )


def read_timeout(value: bytes | None) -> float:
    """Seconds until the deadline: 30 where nothing is said, 300 at most.

    Raises:
        BadRequest: not a positive number.
    """
    if value is None:
        return DEFAULT_TIMEOUT_S
    try:
        timeout_s = float(value)
    except ValueError:
        timeout_s = -1.0
    if not timeout_s > 0:  # also catches nan
        raise BadRequest(f"{TIMEOUT.decode()} must be a positive number of seconds")
    return min(timeout_s, MAX_TIMEOUT_S)


def read_request_id(value: bytes | None) -> bytes | None:
    """A usable id; None where there is none, so that one is made."""
    return value if value is not None and _ID.fullmatch(value) else None


def _priority(value: bytes | None) -> int:
    if value is None:
        return DEFAULT_PRIORITY
    if len(value) != 1 or value not in b"123456789":
        raise BadRequest(f"{PRIORITY.decode()} must be a whole number from 1 (highest) to 9")
    return int(value)


def _keys(fields: dict[bytes, bytes]) -> tuple[str | None, str | None]:
    """The key, and one of x-api-key beside an authorization."""
    key_only = fields.get(API_KEY)
    second = None if key_only is None else _text(API_KEY, key_only)
    authorization = fields.get(AUTHORIZATION)
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise BadRequest("authorization must be 'Bearer KEY'")
        return _text(AUTHORIZATION, key.strip()), second
    return second, None


def _regions(value: bytes | None) -> frozenset[str] | None:
    if value is None:
        return None
    names = frozenset(part.strip() for part in _text(REGIONS, value).split(","))
    if "" in names:
        raise BadRequest(f"{REGIONS.decode()} must be region names, separated by commas")
    return names


def _text(name: bytes, value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise BadRequest(f"{name.decode()} must be ASCII") from None
