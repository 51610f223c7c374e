"""A model's own warm-up sample, asked like a request from outside.

So whoever wants to know whether and how fast an endpoint answers need not send a user's request.
It waits behind those, whatever the asker says of its urgency.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import msgspec

from isochrone.edge_agent.runtime.loading.warmup import samples
from isochrone.edge_agent.runtime.package.manifest import Manifest
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.errors import Overloaded, Unavailable
from isochrone.router.wire import codec, headers
from isochrone.router.wire.http import Request, Response
from isochrone.router.wire.json_codec import BINARY_WISHES
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import LOAD_HEADER, ModelState

_KEPT = frozenset({headers.SEQUENCE, headers.TIMEOUT, headers.REQUEST_ID})
_LAST = (headers.PRIORITY, b"9")
_TOLD = frozenset({LOAD_HEADER, headers.SERVER_TIMING})
IS_SAMPLE = ContextVar("IS_SAMPLE", default=False)
"""The call that runs here is nobody's wish: it must not keep its model in memory."""


class Sampling:
    """Runs one sample of a model at a time."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        """`answer` is the face of the Open Inference Protocol that all calls go through."""
        self._answer = answer
        self._running: set[str] = set()

    async def run(
        self,
        request: Request,
        manifest: Manifest,
        state: Callable[[], ModelState],
        package: Package | None = None,
    ) -> Response:
        """The answer to `POST /isochrone/sample`: what the call cost, or its refusal.

        Data that the `package` keeps in files are made up where it is not here.

        Raises:
            Overloaded: a sample of this model runs already.
            Unavailable: the model is not warm; a sample loads nothing.
        """
        if manifest.name in self._running:
            raise Overloaded(f"a sample of {manifest.name} runs already", retry_after_s=1.0)
        self._running.add(manifest.name)
        here = IS_SAMPLE.set(True)
        try:
            call = await asyncio.to_thread(_call, manifest, package, request)
            now = state()
            if now is not ModelState.WARM:
                raise Unavailable(f"{manifest.name} is {now}; a sample loads nothing")
            return _told(await self._answer(call))
        finally:
            IS_SAMPLE.reset(here)
            self._running.discard(manifest.name)


def _told(response: Response) -> Response:
    if response.status != 200:
        return response
    kept = [field for field in response.headers if field[0] in _TOLD]
    return Response(200, [codec.JSON, *kept], b"{}")


def _call(manifest: Manifest, package: Package | None, request: Request) -> Request:
    sample = samples(manifest, package)[0]
    fields = [_LAST, *(field for field in request.headers if field[0] in _KEPT)]
    if manifest.generate is None:
        verb, (more, body) = "infer", codec.encode_request(_in_binary(sample))
    else:
        verb, more, body = "generate", [codec.JSON], _generate_body(sample)
    return Request(
        method="POST",
        path=f"/v2/models/{manifest.name}/versions/{manifest.version}/{verb}",
        headers=[*fields, *more],
        body=body,
        peer=request.peer,
        received_s=request.received_s,
    )


def _in_binary(sample: InferRequest) -> InferRequest:
    """Every datatype has a binary form."""
    return InferRequest(sample.inputs, parameters={**sample.parameters, BINARY_WISHES: True})


def _generate_body(sample: InferRequest) -> bytes:
    (text,) = sample.inputs[0].data.ravel().tolist()
    told = {"text_input": text.decode(), "parameters": dict(sample.parameters)}
    return msgspec.json.encode(told)
