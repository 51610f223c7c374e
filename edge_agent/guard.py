"""Who may administer an agent: whoever shows the token that one of its files holds."""

import hashlib
import hmac
from pathlib import Path

from isochrone.router.errors import ConfigError, Unauthenticated
from isochrone.router.process.regular_file import open_regular
from isochrone.router.wire.http import Request

_LEAST_BYTES, _MOST_BYTES = 16, 4096


class Guard:
    """Lets in who shows the token; everybody, where none is asked for."""

    def __init__(self, token: bytes | None) -> None:
        self._digest = None if token is None else hashlib.sha256(token).digest()

    def check(self, request: Request) -> None:
        """Refuse who does not show the token; the comparison takes as long whatever is shown.

        Raises:
            Unauthenticated: it is missing or wrong.
        """
        if self._digest is None:
            return
        scheme, _, shown = (request.header(b"authorization") or b"").partition(b" ")
        right = hmac.compare_digest(self._digest, hashlib.sha256(shown.strip()).digest())
        if scheme.lower() != b"bearer" or not right:
            raise Unauthenticated("this needs the administrators' token: Authorization: Bearer")


OPEN = Guard(None)
"""Lets everybody in: for a listener that only this machine reaches."""


def guard_of(token_file: Path | None) -> Guard:
    """The guard that a configuration describes.

    Raises:
        ConfigError: the file of the token cannot be used.
    """
    if token_file is None:
        return OPEN
    try:
        with open_regular(token_file) as file:
            token = file.read(_MOST_BYTES).strip()
    except OSError as error:
        raise ConfigError(f"admin.token_file: {token_file}: {error.strerror}") from error
    if len(token) < _LEAST_BYTES or not token.isascii() or len(token.split()) != 1:
        raise ConfigError(
            f"admin.token_file: {token_file} must hold one word of {_LEAST_BYTES} or more ASCII"
            " characters; make one with openssl rand -hex 32"
        )
    return Guard(token)
