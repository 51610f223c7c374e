"""The generate extension: one text in, one text or a stream of server-sent events out.

A model that generates takes a BYTES tensor `text_input` of shape [1] and gives, piece by piece, a
BYTES tensor `text_output`. Source: Triton's protocol/extension_generate.md and OIP's generate_rest.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from isochrone.edge_agent.runtime.calls.call import Call
from isochrone.edge_agent.runtime.package.manifest import TEXT_INPUT, TEXT_OUTPUT
from isochrone.edge_agent.runtime.package.wishes import Wishes
from isochrone.router.errors import BadRequest, IsochroneError, let_go
from isochrone.router.wire.bounds import ID_CHARACTERS, PARAMETERS_BYTES
from isochrone.router.wire.message import InferRequest, InferResponse, ModelMetadata, Parameter
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.problem import Problem
from isochrone.router.wire.tensor import Tensor

EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")

_Scalar = str | int | float | bool
_Told = dict[str, _Scalar | list[str]]


class _Generate(msgspec.Struct, forbid_unknown_fields=True):
    text_input: str
    id: Annotated[str, Meta(max_length=ID_CHARACTERS)] = ""
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class _Details(msgspec.Struct, omit_defaults=True):
    finish_reason: str = ""


class _Piece(msgspec.Struct, omit_defaults=True):
    text_output: str
    model_name: str
    model_version: str = ""
    id: str = ""
    details: _Details | None = None


_encode = msgspec.json.Encoder().encode


def decode(body: bytes, metadata: ModelMetadata) -> InferRequest:
    """The request of a model that generates text; a list (`stop`) becomes JSON text.

    Raises:
        BadRequest: the body is wrong, or the model takes or gives no text.
        TooLarge: its parameters take too much.
    """
    if not _speaks_text(metadata):
        raise BadRequest(f"{metadata.name} does not generate text; call its infer")
    read = read_json(body, _Generate, "the body is no generate request", most_bytes=None)
    text = Tensor(TEXT_INPUT, "BYTES", np.array([read.text_input.encode()], object))
    told = read_json(memoryview(read.parameters), _Told, "parameters", most_bytes=PARAMETERS_BYTES)
    parameters = {name: _scalar(value) for name, value in told.items()}
    Wishes.of(parameters)  # the protocol gives their ranges, whatever the model
    return InferRequest((text,), id=read.id, parameters=parameters)


async def whole(call: Call, request: InferRequest) -> bytes:
    """Every piece of an answer joined, as the JSON body of `generate`."""
    parts = [part async for part in call]
    text = "".join(map(_text, parts))
    return _encode(_piece(parts[-1], text, request))


class Events(AsyncIterator[bytes]):
    """The pieces of an answer as server-sent events; an error becomes the last of them.

    `code` is the error's, empty where there was none.
    """

    def __init__(self, call: Call, request: InferRequest) -> None:
        self._call = call
        self._request = request
        self._over = False
        self.code = ""

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        try:
            part = await anext(self._call)
            return _event(_piece(part, _text(part), self._request))
        except StopAsyncIteration:
            await self.aclose()
            raise
        except IsochroneError as error:
            await self.aclose()
            self.code = error.code
            let_go(error)
            return _event(Problem(error.message, error.code))

    async def aclose(self) -> None:
        """End the call, whether or not a piece was ever asked for."""
        self._over = True
        await self._call.aclose()


def _speaks_text(metadata: ModelMetadata) -> bool:
    takes = [(spec.name, spec.datatype) for spec in metadata.inputs]
    gives = [(spec.name, spec.datatype) for spec in metadata.outputs]
    return takes == [(TEXT_INPUT, "BYTES")] and (TEXT_OUTPUT, "BYTES") in gives


def _scalar(value: _Scalar | list[str]) -> Parameter:
    return _encode(value).decode() if isinstance(value, list) else value


def _event(value: Any) -> bytes:  # noqa: ANN401 - any struct
    return b"data: " + _encode(value) + b"\n\n"


def _text(part: InferResponse) -> str:
    texts = [tensor.data for tensor in part.outputs if tensor.name == TEXT_OUTPUT]
    pieces: list[bytes] = [piece for data in texts for piece in data.ravel().tolist()]
    return b"".join(pieces).decode("utf-8", "replace")


def _piece(part: InferResponse, text: str, request: InferRequest) -> _Piece:
    reason = part.parameters.get("finish_reason", "")
    details = _Details(str(reason)) if request.parameters.get("details") is True else None
    return _Piece(text, part.model_name, part.model_version, request.id, details)
