"""One HTTP call from the command line to a running part."""

import argparse
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from router.errors import BadRequest, IsochroneError, Unavailable
from router.process.clock import monotonic
from router.wire.http import Headers
from router.wire.peer_json import read_json
from router.wire.problem import Problem

# What is asked for is on this machine or named by the operator: no proxy stands between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def add_admin_argument(parser: argparse.ArgumentParser) -> None:
    """`--admin URL`."""
    parser.add_argument(
        "--admin",
        type=url,
        metavar="URL",
        default="http://127.0.0.1:8081",
        help="the router's admin listener (%(default)s)",
    )


def url(text: str) -> str:
    """A part's address on a command line, without what follows its port.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text.rstrip("/")
    except ValueError:  # an address or a port that cannot be
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no address: write http://HOST:PORT")


class RefusedError(IsochroneError):
    """A running part answered, and said no."""

    code = "refused"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; header names in lower case, `seconds` from the request to its end."""

    status: int
    headers: Headers
    body: bytes
    seconds: float = 0.0

    def json(self) -> Any:  # noqa: ANN401 - whatever the other side says
        """The body as JSON.

        Raises:
            RefusedError: the status says no, or the body is no JSON.
        """
        if self.status != HTTPStatus.OK:
            raise RefusedError(self.refusal())
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise RefusedError(f"the answer is no JSON: {self.body[:80]!r}") from error

    def refusal(self) -> str:
        """What a refusal says, with its reasons below it."""
        try:
            problem = read_json(self.body, Problem, "refusal", most_bytes=None)
        except BadRequest:
            return f"{self.status}: {self.body[:200].decode(errors='replace')}"
        reasons = (f"  {name}: {reason}" for name, reason in problem.reasons.items())
        return "\n".join([f"{self.status} {problem.code}: {problem.error}", *reasons])


def call(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 30.0,
    remedy: str = "isochrone up starts a whole system",
) -> Reply:
    """GET a URL, or POST a body to it; any status is an answer.

    Raises:
        Unavailable: nobody answered.
    """
    start_s = monotonic()
    try:
        request = urllib.request.Request(url, body, dict(headers or {}))
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return _reply(answer.status, answer.headers.items(), answer.read(), start_s)
    except urllib.error.HTTPError as error:
        with error:
            return _reply(error.code, error.headers.items(), error.read(), start_s)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"{url} gives no answer ({reason}); {remedy}") from error


def _reply(
    status: int,
    headers: Any,  # noqa: ANN401 - pairs of text
    body: bytes,
    start_s: float,
) -> Reply:
    fields = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Reply(status, fields, body, monotonic() - start_s)
