"""A picture as a real request for a model: `package build --sample FILE`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edge_agent.runtime import made_up
from router.errors import BadRequest
from router.wire.message import InferRequest
from router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec

_STEP = 32
"""Nets for pictures of any size halve them up to five times."""
_MOST_SIDE = 640
_WHITE = 255


def read(path: Path, takes: Sequence[TensorSpec]) -> InferRequest:
    """A picture as a request for a model whose one input is a picture.

    Raises:
        BadRequest: it is none, or the model is another.
    """
    (spec, *others) = takes
    if others or not made_up.is_image(spec):
        told = ", ".join(f"{one.name} {list(one.shape)}" for one in takes)
        raise BadRequest(f"the model takes {told}, which is no single picture: give .npz or .json")
    channels_first = spec.shape[-3] in made_up.CHANNELS
    channels = spec.shape[-3] if channels_first else spec.shape[-1]
    height, width = spec.shape[-2:] if channels_first else spec.shape[-3:-1]
    pixels = _pixels(path, {1: "L", 3: "RGB", 4: "RGBA"}[channels], height, width)
    if channels_first:
        pixels = pixels.transpose(2, 0, 1)
    if DATATYPES[spec.datatype].form is not Form.INT:
        pixels = made_up.as_datatype(spec.datatype, np.divide(pixels, _WHITE))
    data = np.ascontiguousarray(pixels).astype(DATATYPES[spec.datatype].dtype)
    return InferRequest(
        (Tensor(spec.name, spec.datatype, data[None] if len(spec.shape) == 4 else data),)
    )


def _pixels(path: Path, mode: str, height: int, width: int) -> Array:
    """Height, width and channels, each 0 to 255; an open side is that of the picture, about."""
    try:
        with Image.open(path) as picture:
            side = picture.size
            size = [
                wish if wish > 0 else max(_STEP, min(own, _MOST_SIDE) // _STEP * _STEP)
                for wish, own in zip((width, height), side, strict=True)
            ]
            small = picture.convert(mode).resize(size)
    except UnidentifiedImageError as error:
        raise BadRequest("is no .npz, no .json and no picture that Pillow reads") from error
    return np.asarray(small).reshape(size[1], size[0], -1)
