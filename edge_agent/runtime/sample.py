"""A model's own warm-up sample, asked like a request from outside.

So whoever wants to know whether and how fast an endpoint answers need not send a user's request.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.runtime.manifest import Manifest
from edge_agent.runtime.warmup import samples
from router.errors import Unavailable
from router.wire import codec, headers
from router.wire.http import Request, Response
from router.wire.json_codec import BINARY_WISHES
from router.wire.message import InferRequest
from router.wire.report import LOAD_HEADER, ModelState

_KEPT = frozenset({headers.SEQUENCE, headers.TIMEOUT, headers.PRIORITY, headers.REQUEST_ID})
_TOLD = frozenset({LOAD_HEADER, headers.SERVER_TIMING})


async def sampled(
    request: Request,
    manifest: Manifest,
    state: Callable[[], ModelState],
    answer: Callable[[Request], Awaitable[Response]],
) -> Response:
    """The answer to `POST /isochrone/sample`: what the call cost, or the refusal of `answer`.

    `answer` is the face of the Open Inference Protocol that calls of this model go through.

    Raises:
        Unavailable: the model is not warm; a sample loads nothing.
    """
    call = await asyncio.to_thread(_call, manifest, request)
    now = state()
    if now is not ModelState.WARM:
        raise Unavailable(f"{manifest.name} is {now}; a sample loads nothing")
    response = await answer(call)
    if response.status != 200:
        return response
    told = [field for field in response.headers if field[0] in _TOLD]
    return Response(200, [codec.JSON, *told], b"{}")


def _call(manifest: Manifest, request: Request) -> Request:
    sample = samples(manifest)[0]
    fields = [field for field in request.headers if field[0] in _KEPT]
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
