"""Packages below an HTTP or HTTPS URL, read from any byte on (RFC 9110, section 14)."""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector
from yarl import URL

from isochrone.edge_agent.artefacts.settings import FromHttp
from isochrone.edge_agent.artefacts.source import (
    CHUNK_BYTES,
    Opened,
    Source,
    SourceFailed,
    SourceRefused,
)
from isochrone.router.errors import ConfigError
from isochrone.router.process.regular_file import open_regular

_CONNECT_S = 10.0
_MAX_TOKEN_BYTES = 64 << 10
_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(?:\d{1,15}|\*)")
_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class _Http:
    """One session for one pull."""

    def __init__(self, config: FromHttp, stall_s: float) -> None:
        self.title = config.url
        self._url = config.url.rstrip("/")
        # What is counted and digested is what is sent.
        self._headers = {"accept-encoding": "identity"}
        if config.bearer_file is not None:
            self._headers["authorization"] = f"Bearer {_token(config.bearer_file)}"
        self._tls = _tls(config.ca_file)
        self._stall_s = stall_s

    @cached_property
    def _session(self) -> ClientSession:
        """Made when it is first needed, and so on the event loop."""
        return ClientSession(
            headers=self._headers,
            auto_decompress=False,
            connector=TCPConnector(ssl=self._tls),
            timeout=ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._stall_s),
            read_bufsize=CHUNK_BYTES,
        )

    @asynccontextmanager
    async def open(self, path: str, start: int = 0) -> AsyncIterator[Opened]:
        """A file from byte `start` on, or from its beginning where the server knows no ranges."""
        headers = {"range": f"bytes={start}-"} if start else {}
        url = URL(f"{self._url}/{path}", encoded=True)
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                place = self._checked(path, answer, start)
                yield Opened(place, answer.content.iter_any())
        except (ClientError, OSError) as error:  # a stall is a TimeoutError, which is an OSError
            text = str(error) or type(error).__name__
            raise SourceFailed(f"{self.title}: {path}: {text}") from error

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    def _checked(self, path: str, answer: ClientResponse, start: int) -> int:
        """Where the answer's first byte stands in the file.

        Raises:
            SourceFailed, SourceRefused: the answer is not the file.
        """
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise SourceRefused(f"{self.title}: {path} comes compressed, which was not asked for")
        if answer.status == HTTPStatus.OK:
            return 0
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
            if start and found and int(found[1]) == start:
                return start
            raise SourceRefused(f"{self.title}: {path} is not given from byte {start} on")
        raise self._refusal(path, answer)

    def _refusal(self, path: str, answer: ClientResponse) -> SourceFailed | SourceRefused:
        status = answer.status
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return SourceRefused(
                f"{self.title}: {path} is redirected ({status}), which is not followed;"
                " name the place itself in artefacts.source.url"
            )
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return SourceRefused(
                f"{self.title}: {path} is shorter there than the manifest promises"
            )
        again = status in _AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = SourceFailed if again else SourceRefused
        return kind(f"{self.title}: {path}: the server answers {status}")


def make(config: FromHttp, stall_s: float) -> Source:
    """The source that a configuration names. Blocking.

    Raises:
        ConfigError: a file that it names cannot be used.
    """
    return _Http(config, stall_s)


def _token(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"artefacts.source.bearer_file: {path} cannot be read: {error}"
        ) from error


def _tls(ca_file: Path | None) -> ssl.SSLContext | Literal[True]:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"artefacts.source.ca_file: {ca_file} cannot be used: {error}") from error
