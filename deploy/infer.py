"""`isochrone infer`: one image to a model, the answer, and who gave it and why."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec

from isochrone.deploy.call import RefusedError, Reply, call
from isochrone.deploy.call import url as address
from isochrone.deploy.packages import picture
from isochrone.deploy.result import add_json_argument, milliseconds, tell
from isochrone.router.errors import BadRequest, ConfigError
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.codec import decode_response, encode_request
from isochrone.router.wire.http import first
from isochrone.router.wire.message import InferRequest, RequestedOutput
from isochrone.router.wire.tensor import TensorSpec

HELP = "send one image to a model and say who answered and why"
_BEST = 3
_REMEDY = "--router takes the address that a router listens on (listen)"


class _TensorMetadata(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


_Tensors = Annotated[list[_TensorMetadata], msgspec.Meta(min_length=1)]


class _ModelMetadata(msgspec.Struct):
    inputs: _Tensors
    outputs: _Tensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which image, through which router."""
    parser.add_argument("model", help="for example digits")
    parser.add_argument("--image", type=Path, required=True, help="any picture that Pillow reads")
    parser.add_argument(
        "--router",
        type=address,
        metavar="URL",
        default="http://127.0.0.1:8080",
        help="(%(default)s)",
    )
    parser.add_argument("--key-file", type=Path, help="a file with the tenant's API key")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    url = f"{args.router}/v2/models/{quote(args.model, safe='')}"
    headers = _authorization(args.key_file)
    metadata, _ = call(url, headers=headers, remedy=_REMEDY).json(_ModelMetadata)
    best = RequestedOutput(metadata.outputs[0].name, parameters={"classification": _BEST})
    asked = msgspec.structs.replace(_asked(args.image, metadata.inputs), outputs=(best,))
    fields, body = encode_request(asked)
    start_s = monotonic()
    sent = headers | {name.decode(): value.decode() for name, value in fields}
    reply = call(f"{url}/infer", body, sent, remedy=_REMEDY)
    result = _result(args.model, reply, monotonic() - start_s)
    tell(args, result, described(result))
    return 0


def _asked(path: Path, inputs: Sequence[_TensorMetadata]) -> InferRequest:
    """The picture, as the model of these inputs takes it.

    Models of grey pictures have learnt bright ink: dark ink is turned into its negative.

    Raises:
        ConfigError: it is no picture, or the model does not take one.
    """
    takes = [TensorSpec(one.name, one.datatype, tuple(one.shape)) for one in inputs]
    try:
        return picture.read(path, takes, bright_ink=True)
    except BadRequest as error:
        raise ConfigError(f"--image {path}: {error.message}") from error
    except OSError as error:
        raise ConfigError(f"--image {path}: cannot be read: {error.strerror or error}") from error


def described(result: Mapping[str, Any]) -> Iterator[str]:
    """An answer as text."""
    best, *others = result["classes"]
    also = ", ".join(f"{one['label']} {one['score']:.3f}" for one in others)
    yield f"{result['model']} says {best['label']} ({best['score']:.3f}; then {also})"
    yield (
        f"answered by {result['endpoint']} in {result['region']} ({result['reason']},"
        f" tries {result['attempts']}) after {milliseconds(result['seconds'])}"
    )
    yield f"isochrone explain {result['request_id']} tells why"


def _result(model: str, reply: Reply, seconds: float) -> dict[str, Any]:
    if reply.status != 200:
        raise RefusedError(reply.refusal())
    try:
        output = decode_response(reply.headers, reply.body).outputs[0]
        classes = [_class(text.decode()) for text in output.data.ravel().tolist()]
        classes[0]  # there is a best one
    except (BadRequest, IndexError, AttributeError, ValueError) as error:  # of any other shape
        raise reply.foreign(f"its answer holds no classes: {error}") from error
    names = ("endpoint", "region", "reason", "attempts")
    told = {name: _told(reply, f"x-isochrone-{name}") for name in names}
    return {
        "schema": "isochrone.infer/1",
        "ok": True,
        "model": model,
        "classes": classes,
        **told,
        "request_id": _told(reply, "x-request-id"),
        "seconds": seconds,
    }


def _class(text: str) -> dict[str, Any]:
    """One class as the classification extension writes it: `value:index[:label]`."""
    value, index, *label = text.split(":", 2)
    return {"label": label[0] if label else index, "score": float(value)}


def _told(reply: Reply, name: str) -> str:
    return (first(reply.headers, name.encode()) or b"unknown").decode()


def _authorization(key_file: Path | None) -> dict[str, str]:
    if key_file is None:
        return {}
    try:
        return {"authorization": f"Bearer {key_file.read_text().strip()}"}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--key-file {key_file}: cannot be read: {error}") from error
