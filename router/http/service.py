"""Async handlers behind a listener: one task per request, for what is not the hot path."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from isochrone.router.errors import IsochroneError, let_go
from isochrone.router.http.exchange import Exchange
from isochrone.router.wire.http import Headers, Request, Response
from isochrone.router.wire.problem import problem_response

Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger("isochrone.service")


class AsynchronousService(Protocol):
    """A `Service` that puts some more `fields` on the answer."""

    def __call__(self, exchange: Exchange, fields: Headers = ()) -> None: ...


def asynchronous(handler: Handler, tasks: asyncio.TaskGroup) -> AsynchronousService:
    """A service that runs `handler` in a task of its own for every request.

    An `IsochroneError` becomes its answer, anything else a logged 500. A streamed body is passed on
    chunk by chunk, no faster than the client reads; when the client goes the task is cancelled.
    """

    def service(exchange: Exchange, fields: Headers = ()) -> None:
        exchange.watch(gone=tasks.create_task(_serve(handler, exchange, fields)).cancel)

    return service


async def _serve(handler: Handler, exchange: Exchange, fields: Headers) -> None:
    request, chunk = exchange.request, None
    try:
        response = await handler(request)
        if not isinstance(response.body, bytes):  # until its first chunk an error can be told
            chunk = await anext(response.body, None)
    except IsochroneError as error:
        response = problem_response(error)
        let_go(error)
    except Exception as error:  # a mistake of ours must not end the task group, nor tell its inside
        _log.exception("%s %s failed", request.method, request.path)
        response = problem_response(IsochroneError("internal error"))
        let_go(error)
    response.headers.extend(fields)
    if isinstance(response.body, bytes):
        exchange.respond(response.status, response.headers, response.body)
        return
    exchange.start(response.status, response.headers)
    try:
        await _pass_on(exchange, chunk, response.body)
        exchange.finish(response.end_code())
    except Exception as error:  # the head has left: that it does not end is all that can be told
        _log.exception("%s %s broke off", request.method, request.path)
        exchange.abort()
        let_go(error)


async def _pass_on(exchange: Exchange, chunk: bytes | None, rest: AsyncIterator[bytes]) -> None:
    flow = asyncio.Event()
    flow.set()
    exchange.watch(gone=_current_task().cancel, pause=flow.clear, resume=flow.set)
    try:
        while chunk is not None:
            exchange.write(chunk)
            await flow.wait()
            chunk = await anext(rest, None)
    finally:
        if (close := getattr(rest, "aclose", None)) is not None:
            await close()  # cancelled: what it holds is let go now


def _current_task() -> asyncio.Task[None]:
    """This task; who is cancelled keeps what its variables know, so that none is to know it."""
    task = asyncio.current_task()
    assert task is not None  # we run in one
    return task
