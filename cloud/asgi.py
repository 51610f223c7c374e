"""Between ASGI, which Serve speaks, and our own requests and answers."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

from starlette.requests import ClientDisconnect
from starlette.requests import Request as AsgiRequest
from starlette.responses import Response as AsgiResponse
from starlette.types import Receive, Scope, Send

from isochrone.router.errors import TooLarge
from isochrone.router.wire.http import Body, Request, Response
from isochrone.router.wire.problem import problem_response

_CLIENT_LEFT = 499
"""As nginx logs it."""


async def answered(
    asgi: AsgiRequest,
    limit_bytes: int,
    received_s: float,
    handle: Callable[[Request], Awaitable[Response]],
) -> "Answer":
    """What `handle` says to a request, or why that was not asked."""
    try:
        request = await read_request(asgi, limit_bytes, received_s)
    except TooLarge as error:
        return Answer(problem_response(error))
    except ClientDisconnect:  # no client is left to answer
        return Answer(Response(_CLIENT_LEFT, []))
    return Answer(await handle(request))


async def read_request(asgi: AsgiRequest, limit_bytes: int, received_s: float) -> Request:
    """The request with its whole body, which arrived at `received_s`.

    Raises:
        TooLarge: the body has more than `limit_bytes`; what is too much is not read.
        ClientDisconnect: the client has left before its end.
    """
    scope = asgi.scope
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=scope["path"],
        headers=scope["headers"],
        body=await _body(asgi, limit_bytes),
        query=scope["query_string"].decode("latin-1"),
        peer=client[0] if client else "",
        received_s=received_s,
    )


async def _body(asgi: AsgiRequest, limit_bytes: int) -> bytes:
    promised = asgi.headers.get("content-length", "0")
    if promised.isdecimal() and int(promised) > limit_bytes:
        raise TooLarge(f"the body may have {limit_bytes} bytes, not {promised}")
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in asgi.stream():
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise TooLarge(f"the body may have {limit_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


class Answer(AsgiResponse):
    """A `Response` as Serve sends it: whole, or chunk by chunk as they come."""

    def __init__(self, response: Response) -> None:
        """Not Starlette's own: that would copy and encode what is on the wire already."""
        self._response = response
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Send it."""
        async with closing(self._response.body):
            await self._send(send)

    async def _send(self, send: Send) -> None:
        response = self._response
        fields = response.headers
        if isinstance(response.body, bytes):
            fields = [*fields, (b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": fields})
        if isinstance(response.body, bytes):
            await send({"type": "http.response.body", "body": response.body, "more_body": False})
            return
        async for chunk in response.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


@asynccontextmanager
async def closing(body: Body) -> AsyncGenerator[None]:
    """Close a body in the end, where it is something to close."""
    try:
        yield
    finally:
        if isinstance(body, _Closable):
            await body.aclose()
