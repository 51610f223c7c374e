"""A picture as a request: `package build --sample FILE`, `infer --image FILE`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from isochrone.edge_agent.runtime.loading import made_up
from isochrone.router.errors import BadRequest
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec

_STEP = 32
"""Nets for pictures of any size halve them up to five times."""
_MOST_SIDE = 640
_WHITE = 255
_MOST_ELEMENTS = 1 << 26
_PIXELS = frozenset(
    name for name, kind in DATATYPES.items() if kind.form in (Form.INT, Form.FLOAT, Form.NONE)
)
_LIGHT = 0.5
"""A grey picture whose mean is above this is dark ink on light paper."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How an input holds a picture: `channels` is None where it has no dimension for them."""

    channels: int | None
    channels_first: bool
    height: int
    width: int

    @property
    def mode(self) -> str:
        return {3: "RGB", 4: "RGBA"}.get(self.channels or 1, "L")


def read(path: Path, takes: Sequence[TensorSpec], *, bright_ink: bool = False) -> InferRequest:
    """A picture as a request for a model whose one input is a picture, upright, one row.

    `bright_ink`: turn a grey picture of dark ink on light paper into its negative.

    Raises:
        BadRequest: it is none, or the model is another.
        OSError: the file cannot be read.
    """
    spec = takes[0] if len(takes) == 1 else None
    layout = _layout(spec) if spec is not None else None
    if spec is None or layout is None:
        told = ", ".join(f"{one.name} ({one.datatype} {list(one.shape)})" for one in takes)
        raise BadRequest(f"the model takes {told or 'nothing'}, no single picture: give arrays")
    pixels = _pixels(path, layout)
    if bright_ink and layout.mode == "L" and pixels.mean() > _LIGHT * _WHITE:
        pixels = _WHITE - pixels
    if layout.channels is None:
        pixels = pixels[..., 0]
    elif layout.channels_first:
        pixels = pixels.transpose(2, 0, 1)
    if DATATYPES[spec.datatype].form is not Form.INT:
        pixels = made_up.as_datatype(spec.datatype, np.divide(pixels, _WHITE))
    data = np.ascontiguousarray(pixels).astype(DATATYPES[spec.datatype].dtype)
    shape = (1,) * (len(spec.shape) - data.ndim) + data.shape
    return InferRequest((Tensor(spec.name, spec.datatype, data.reshape(shape)),))


def _layout(spec: TensorSpec) -> _Layout | None:
    """None where the input is no picture."""
    shape = spec.shape
    if spec.datatype not in _PIXELS or prod(map(abs, shape)) > _MOST_ELEMENTS:
        return None
    if made_up.is_image(spec):
        if shape[-3] in made_up.CHANNELS:
            return _Layout(shape[-3], True, *shape[-2:])
        return _Layout(shape[-1], False, *shape[-3:-1])
    is_grey = len(shape) >= 2 and min(shape[-2:]) > 1 and set(shape[:-2]) <= {-1, 1}
    return _Layout(None, False, *shape[-2:]) if is_grey else None


def _pixels(path: Path, layout: _Layout) -> Array:
    """Height, width and channels, each 0 to 255; an open side is that of the picture, about."""
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            size = [
                wish if wish > 0 else max(_STEP, min(own, _MOST_SIDE) // _STEP * _STEP)
                for wish, own in zip((layout.width, layout.height), upright.size, strict=True)
            ]
            small = upright.convert(layout.mode).resize(size, Image.Resampling.BOX)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadRequest("is no picture that Pillow reads") from error
    return np.asarray(small).reshape(size[1], size[0], -1)
