"""One model's replicas behind a Serve handle, Serve's errors told in our own words."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, cast

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from isochrone.router.errors import Overloaded, Unavailable, UnusableAnswer
from isochrone.router.wire.http import Request, Response

RETRY_AFTER_S = 1.0


class ServeReplicas:
    """Replicas behind a Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._whole = handle.options(method_name="answer")
        self._streamed = handle.options(method_name="parts", stream=True)

    async def answer(self, request: Request) -> Response:
        """A whole answer."""
        with _own_words():
            call = self._whole.remote(request)
            try:
                response: Response = await call
            except asyncio.CancelledError:
                call.cancel()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
                raise
        return response

    async def parts(self, request: Request) -> AsyncGenerator[Response | bytes]:
        """A head, then the chunks of its body."""
        with _own_words():
            call = cast(DeploymentResponseGenerator[Any], self._streamed.remote(request))
            try:
                async for part in call:
                    yield part
            finally:  # also where nobody wants the rest
                call.cancel()  # type: ignore[no-untyped-call]  # Ray leaves it untyped

    def rouse(self) -> None:
        """Ask for a replica; Serve keeps the call, whoever waits for it or not."""
        self._whole.remote(Request("GET", "/v2/health/live", []))


@contextmanager
def _own_words() -> Iterator[None]:
    try:
        yield
    except BackPressureError as error:
        text = "every replica of this model is busy and its queue is full"
        raise Overloaded(text, retry_after_s=RETRY_AFTER_S) from error
    except DeploymentUnavailableError as error:
        text = "no replica of this model can be reached"
        raise Unavailable(text, retry_after_s=RETRY_AFTER_S) from error
    except RayActorError as error:  # Serve itself asks another where the call was not taken yet
        raise UnusableAnswer("the replica died while this request was there") from error
