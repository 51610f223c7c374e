"""`isochrone infer`: one image to a model, the answer, and who gave it and why."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deploy.call import RefusedError, Reply, call
from deploy.call import url as address
from deploy.result import add_json_argument, milliseconds, tell
from router.errors import BadRequest, ConfigError
from router.process.clock import monotonic
from router.wire.codec import decode_response, encode_request
from router.wire.http import first
from router.wire.message import InferRequest, RequestedOutput
from router.wire.tensor import DATATYPES, Array, Tensor

HELP = "send one image to a model and say who answered and why"
_BEST = 3
_MOST_PIXELS = 1 << 24
_REMEDY = "--router takes the address that a router listens on (listen)"
_LIGHT = 0.5
"""A picture whose mean is above this is dark ink on light paper; models learnt the opposite."""


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
    given = metadata.inputs[0]
    if given.datatype not in DATATYPES or given.datatype == "BYTES":
        raise ConfigError(f"this model takes {given.datatype}, which is no picture")
    data = pixels(args.image, given.shape).astype(DATATYPES[given.datatype].dtype)
    fields, body = encode_request(
        InferRequest(
            (Tensor(given.name, given.datatype, data),),
            (RequestedOutput(metadata.outputs[0].name, parameters={"classification": _BEST}),),
        )
    )
    start_s = monotonic()
    sent = headers | {name.decode(): value.decode() for name, value in fields}
    reply = call(f"{url}/infer", body, sent, remedy=_REMEDY)
    result = _result(args.model, reply, monotonic() - start_s)
    tell(args, result, described(result))
    return 0


def pixels(path: Path, shape: Sequence[int]) -> Array:
    """A picture as a batch of one, [0, 1], ink bright, in the shape of a model's input.

    `shape` ends in height and width and may begin with batch and channel; -1 is the batch.

    Raises:
        ConfigError: it is no picture, or the model does not take one.
    """
    if len(shape) < 2 or min(shape[-2:]) < 1 or any(size not in (-1, 1) for size in shape[:-2]):
        raise ConfigError(f"this model takes {list(shape)}, which is no single grey picture")
    height, width = shape[-2:]
    if height * width > _MOST_PIXELS:
        raise ConfigError(f"this model takes {height} x {width} pixels, over {_MOST_PIXELS}")
    try:
        with Image.open(path) as picture:
            grey = ImageOps.exif_transpose(picture).convert("L")
    except (OSError, UnidentifiedImageError) as error:
        raise ConfigError(f"--image {path}: is no picture that can be read: {error}") from error
    small = np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.float64) / 255
    return (1 - small if small.mean() > _LIGHT else small).reshape([abs(size) for size in shape])


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
