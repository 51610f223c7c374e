"""Asynchronous handlers behind a listener: one task per request, outside the hot path."""

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
    """A `Service` that adds `fields` to the answer."""

    def __call__(self, exchange: Exchange, fields: Headers = ()) -> None: ...


def asynchronous(handler: Handler, tasks: asyncio.TaskGroup) -> AsynchronousService:
    """A service that runs `handler` in a new task for every request.

    An `IsochroneError` becomes its answer, any other exception a logged 500. A streamed body passes
    chunk by chunk, no faster than the client reads; the task is cancelled when the client leaves.
    """

    def service(exchange: Exchange, fields: Headers = ()) -> None:
        exchange.watch(gone=tasks.create_task(_serve(handler, exchange, fields)).cancel)

    return service


async def _serve(handler: Handler, exchange: Exchange, fields: Headers) -> None:
    request, chunk = exchange.request, None
    try:
        response = await handler(request)
        if not isinstance(response.body, bytes):  # until then an error can be the answer
            chunk = await anext(response.body, None)
    except IsochroneError as error:
        response = problem_response(error)
        let_go(error)
    except Exception as error:  # a bug must neither end the task group nor leak details
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
    except Exception as error:  # the head is sent: a cut answer is the only sign left
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
            await close()  # after a cancellation too: release its resources now


def _current_task() -> asyncio.Task[None]:
    """This task, in no variable of the caller: its traceback would keep the task in a cycle."""
    task = asyncio.current_task()
    assert task is not None  # we run in one
    return task
