"""Inference messages as HTTP bodies: JSON, or with binary tensors where the header says so."""

from collections.abc import Sequence

from isochrone.router.errors import BadRequest
from isochrone.router.wire import binary_codec, json_codec
from isochrone.router.wire.bounds import UNBOUNDED, Bound
from isochrone.router.wire.http import Headers, first
from isochrone.router.wire.json_codec import BINARY_WISHES
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.tensor import TensorSpec

HEAD_LENGTH = b"inference-header-content-length"
JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")


def decode_request(
    headers: Headers, body: bytes, inputs: Sequence[TensorSpec], bound: Bound = UNBOUNDED
) -> InferRequest:
    """The request in a body; `inputs` are the model's, which a raw body needs.

    Raises:
        BadRequest: it is not one.
        TooLarge: its tensors would take more than `bound`, or its parameters too much. Never
            anything else, whatever the bytes.
    """
    head_bytes = head_length(headers)
    if head_bytes is None:
        request = json_codec.decode_request(body, bound=bound)
    elif head_bytes == 0:
        request = binary_codec.decode_raw(body, inputs)
    else:
        request = binary_codec.decode_request(body, head_bytes, bound)
    if not isinstance(request.parameters.get(BINARY_WISHES, False), bool):
        raise BadRequest(f"{BINARY_WISHES} must be true or false")
    return request


def encode_response(
    request: InferRequest, response: InferResponse
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Header fields and body of the answer to `request`, each output in the form that it asked for.

    Raises:
        BadRequest: an output that is wanted as JSON has no JSON form.
    """
    binary = binary_outputs(request, response)
    if not binary:
        return [JSON], json_codec.encode_response(response)
    body, head_bytes = binary_codec.encode_response(response, binary)
    return [BINARY, (HEAD_LENGTH, b"%d" % head_bytes)], body


def binary_outputs(request: InferRequest, response: InferResponse) -> set[str]:
    """The outputs that are wanted in binary."""
    binary = {output.name for output in response.outputs} if _wishes_binary(request) else set()
    for output in request.outputs:
        if output.binary is not None:
            (binary.add if output.binary else binary.discard)(output.name)
    return binary


def _wishes_binary(request: InferRequest) -> bool:
    return bool(request.parameters.get(BINARY_WISHES, False))


def encode_request(request: InferRequest) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Header fields and body of a request, every tensor binary."""
    body, head_bytes = binary_codec.encode_request(request)
    return [BINARY, (HEAD_LENGTH, b"%d" % head_bytes)], body


def decode_response(headers: Headers, body: bytes) -> InferResponse:
    """The answer in a body.

    Raises:
        BadRequest: it is not one.
    """
    head_bytes = head_length(headers)
    if head_bytes is None:
        return json_codec.decode_response(body)
    return binary_codec.decode_response(body, head_bytes)


def head_length(headers: Headers) -> int | None:
    """How many bytes of a body are JSON; None where all are.

    Raises:
        BadRequest: the field that says so is not a number.
    """
    value = first(headers, HEAD_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:  # more digits than any body has
        raise BadRequest("Inference-Header-Content-Length must be a whole number of bytes")
    return int(value)
