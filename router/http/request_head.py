"""Checks on the head of an HTTP request that the parser (llhttp) leaves to its user.

These are the target, Host, the version, and how the body is framed.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from isochrone.router.wire.http import Headers


class Refusal(Exception):
    """A request that the listener itself refuses; it closes the connection afterwards."""

    def __init__(
        self, status: HTTPStatus, code: str, message: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Framing:
    """How the body is framed: `length` None: in chunks; `waits`: the client expects a 100."""

    length: int | None
    waits: bool


_NO_BODY = Framing(0, waits=False)
_FRAMING_FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
_TARGET = re.compile(rb"[!-~]+")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def bad(message: str) -> Refusal:
    """A refusal of an invalid request."""
    return Refusal(HTTPStatus.BAD_REQUEST, "bad_request", message)


def no_room() -> Refusal:
    """A refusal of a body for which there is no memory now."""
    full = "too many bodies are under way"
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", full, retry_after_s=1)


def too_large(most: int) -> Refusal:
    """A refusal of a body of more than `most` bytes."""
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too_large",
        f"the body is over {most} bytes (limits.body_bytes); tensors take less as binary than as"
        " JSON",
    )


def head_too_large(most: int) -> Refusal:
    """A refusal of a head, or of the framing between chunks, over `most` bytes."""
    return Refusal(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "too_large",
        f"the header fields are over {most} bytes",
    )


def too_many_fields(most: int) -> Refusal:
    """A refusal of a head of more than `most` fields."""
    return Refusal(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "too_large",
        f"there are more than {most} header fields",
    )


def read_target(method: str, target: bytes) -> tuple[str, str]:
    """The percent-decoded path and the raw query of a request target (RFC 9112 §3.2).

    Raises:
        Refusal: it is invalid or ambiguous (an encoded slash, dot segments, control characters,
            not UTF-8).
    """
    if method == "CONNECT":
        raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "unsupported", "this server is no tunnel")
    if target == b"*" and method == "OPTIONS":
        return "*", ""
    if not _TARGET.fullmatch(target) or b"#" in target:
        raise bad("the request target is not a URL path")
    if target[:1] != b"/":
        target = _path_of_absolute(target)
    path, _, query = target.partition(b"?")
    return _decoded(path), query.decode("ascii")


def _path_of_absolute(target: bytes) -> bytes:
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise bad("the request target must begin with a slash")
    rest = target[absolute.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


def _decoded(path: bytes) -> str:
    if b"%" in path:
        if _ENCODED_SLASH.search(path):
            raise bad("an encoded slash in the path is ambiguous")
        path = unquote_to_bytes(path)
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise bad("the path is not UTF-8") from None
    if _CONTROL.search(text):
        raise bad("the path has control characters")
    if "/." in text and not {".", ".."}.isdisjoint(text.split("/")):
        raise bad("dot segments in the path are ambiguous")
    return text


def read_framing(version: str, headers: Headers, most: int) -> Framing:
    """How the body is framed, from the version and the header fields (RFC 9112 §6).

    Raises:
        Refusal: the fields are invalid, contradict each other or announce over `most` bytes.
    """
    if version not in ("1.1", "1.0"):
        raise Refusal(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "bad_request", "only HTTP/1.1 and 1.0 are spoken"
        )
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if b"_" in name:  # some servers read it as a hyphen, and so as another field
            raise bad(f"{name.decode('latin-1')}: a field's name has no underscore; write a hyphen")
        if name in _FRAMING_FIELDS:
            if name in fields:
                raise bad(f"{name.decode()} stands there twice")
            fields[name] = value
    _check_host(version, fields.get(b"host"))
    if len(fields) == 1 and b"host" in fields:  # most requests without a body
        return _NO_BODY
    length = _body_length(version, fields)
    if length is not None and length > most:
        raise too_large(most)
    return Framing(length, length != 0 and _waits(version, fields.get(b"expect")))


def _check_host(version: str, host: bytes | None) -> None:
    if host is None and version == "1.1":
        raise bad("HTTP/1.1 needs a Host")
    if host is not None and not _HOST.fullmatch(host):
        raise bad("Host is not a host")


def _body_length(version: str, fields: dict[bytes, bytes]) -> int | None:
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is None:
        if length is not None and not _LENGTH.fullmatch(length):
            raise bad("content-length is not a number")
        return 0 if length is None else int(length)
    if length is not None:
        raise bad("content-length and transfer-encoding contradict each other")
    if coding.lower() != b"chunked" or version == "1.0":
        raise bad("the only transfer-encoding is chunked, in HTTP/1.1")
    return None


def _waits(version: str, expect: bytes | None) -> bool:
    if expect is None or version == "1.0":
        return False
    if expect.lower() != b"100-continue":
        raise Refusal(
            HTTPStatus.EXPECTATION_FAILED, "bad_request", "only 100-continue can be expected"
        )
    return True
