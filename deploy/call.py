"""One HTTP call from the command line to a running part."""

import argparse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from isochrone.router.errors import BadRequest, IsochroneError, Unavailable
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.http import Headers
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import Problem

T = TypeVar("T")
ANSWER_BYTES = 64 << 20
"""The most that is read of an answer."""
ADMIN_REMEDY = "--admin takes the address of the router's admin listener (admin.listen)"
_SHOWN_BYTES = 80


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Every status is an answer; a redirect too, so that no key goes on to another address."""

    def http_response(self, request: object, response: Any) -> Any:  # noqa: ANN401
        del request
        return response

    https_response = http_response


# What is asked for is on this machine or named by the operator: no proxy stands between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AnyStatus)


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
    """An HTTP answer; header names in lower case, `seconds` from the request to its end.

    `url` was asked; `remedy` says what to do where no Isochrone process answers there.
    """

    status: int
    headers: Headers
    body: bytes
    seconds: float = 0.0
    url: str = ""
    remedy: str = ""

    def json(self, kind: type[T]) -> tuple[T, Any]:
        """The body as a `kind`, and all of it as plain data.

        Raises:
            RefusedError: the status says no, or the body is no `kind`.
        """
        if self.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
            raise RefusedError(self.refusal())
        try:
            plain = read_json(self.body, object, "the answer", most_bytes=None)
            return msgspec.convert(plain, kind), plain
        except (BadRequest, msgspec.ValidationError) as error:
            raise self.foreign(str(error)) from error

    def foreign(self, why: str) -> RefusedError:
        """The error that says that something else than Isochrone answers."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return RefusedError(f"no isochrone answers at {self.url}: {why}{remedy}")

    def problem(self) -> Problem | None:
        """The body as a refusal of ours; None where it is none."""
        try:
            return read_json(self.body, Problem, "refusal", most_bytes=None)
        except BadRequest:
            return None

    def refusal(self) -> str:
        """What a refusal says, with its reasons below it."""
        problem = self.problem()
        if problem is None:
            start = self.body[:_SHOWN_BYTES].decode(errors="replace")
            return self.foreign(f"status {self.status}, {start!r}").message
        reasons = (f"  {name}: {reason}" for name, reason in problem.reasons.items())
        return "\n".join([f"{self.status} {problem.code}: {problem.error}", *reasons])


def call(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 30.0,
    remedy: str,
) -> Reply:
    """GET a URL, or POST a body to it; any status is an answer.

    Raises:
        Unavailable: there is no answer, or it is cut off, not HTTP, or over `ANSWER_BYTES`.
    """
    start_s = monotonic()
    try:
        request = urllib.request.Request(url, body, dict(headers or {}))
        with _OPENER.open(request, timeout=timeout_s) as answer:
            body = answer.read(ANSWER_BYTES + 1)
            fields = [(name.lower().encode(), text.encode()) for name, text in answer.getheaders()]
        if len(body) > ANSWER_BYTES:
            raise ValueError(f"over {ANSWER_BYTES} bytes")
        return Reply(answer.status, fields, body, monotonic() - start_s, url, remedy)
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"{url} gives no answer ({reason}); {remedy}") from error
