"""The outermost layer of the public listener: request ids, counting and the access log."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from http import HTTPStatus
from random import Random

from isochrone.router.http.exchange import Exchange, Service
from isochrone.router.process.access_log import AccessLog
from isochrone.router.process.clock import Clock
from isochrone.router.wire.headers import REQUEST_ID, read_request_id
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.problem import STATUS

_LEFT = 0
"""The status of a request whose client left before the end of its answer."""
_QUIET_PATHS = frozenset({"/isochrone/report"})
"""Every router requests these once a second: they are neither counted nor logged."""

Begin = Callable[[Request, Callable[[Response], None]], Callable[[], None] | None]
"""Begins to answer a request; returns what cancels that, None where it does not begin."""


class Front:
    """Wraps a handler that answers every request and raises nothing."""

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Response]],
        answered: Callable[[Request, int], None],
        access: AccessLog | None,
        clock: Clock,
        wall: Clock,
        rng: Random,
    ) -> None:
        """`answered` is called with each request and its final status; `wall` dates the log."""
        self._handler = handler
        self._answered = answered
        self._access = access
        self._clock = clock
        self._wall = wall
        self._ids = Random(rng.getrandbits(64))  # no secrets, and `rng` may be slow

    def service(self, begin: Begin, other: Service) -> Service:
        """Serve requests by `begin`, without a task, and those that it does not take by `other`."""

        def service(exchange: Exchange) -> None:
            request = exchange.request
            request_id = self._request_id(request)

            def tell(response: Response) -> None:
                if exchange.gone:
                    return
                assert isinstance(response.body, bytes)
                response.headers.append((REQUEST_ID, request_id.encode()))
                self._write(request, request_id, response.status)
                exchange.respond(response.status, response.headers, response.body)

            give_up = begin(request, tell)
            if give_up is None:
                other(exchange)
            else:
                exchange.watch(gone=partial(self._left, request, request_id, give_up))

        return service

    def _left(self, request: Request, request_id: str, give_up: Callable[[], None]) -> None:
        self._write(request, request_id, _LEFT)
        give_up()

    async def handle(self, request: Request) -> Response:
        """The handler's answer, with the request's id."""
        request_id = self._request_id(request)
        try:
            response = await self._handler(request)
        except asyncio.CancelledError:  # the client left, or the agent ends
            if request.path not in _QUIET_PATHS:
                self._write(request, request_id, _LEFT)
            raise
        response.headers.append((REQUEST_ID, request_id.encode()))
        if request.path in _QUIET_PATHS:
            return response
        if isinstance(response.body, bytes):
            self._write(request, request_id, response.status)
        else:
            response.body = self._streamed(request, request_id, response, response.body)
        return response

    async def _streamed(
        self, request: Request, request_id: str, response: Response, body: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes]:
        ended = _LEFT  # unless the end is reached
        try:
            async for chunk in body:
                yield chunk
            code = response.end_code()
            ended = STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR) if code else response.status
        except Exception:  # any fault in the stream: its end is logged as a failure
            ended = HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            self._write(request, request_id, ended, sent=response.status)
            if (close := getattr(body, "aclose", None)) is not None:
                await close()

    def _request_id(self, request: Request) -> str:
        given = read_request_id(request.header(REQUEST_ID))
        return given.decode() if given else f"{self._ids.getrandbits(64):016x}"

    def _write(
        self, request: Request, request_id: str, status: int, sent: int | None = None
    ) -> None:
        """`status` is that of the end; `sent` the one that was sent, where they differ."""
        self._answered(request, status)
        if self._access is None:
            return
        line = {
            "time": self._wall(),
            "request_id": request_id,
            "method": request.method,
            "path": request.path,
            "status": status,
            "sent": status if sent is None else sent,
            "seconds": self._clock() - request.received_s,
        }
        self._access.write(line)
        self._access.flush()  # before the answer leaves: a kill loses no line
