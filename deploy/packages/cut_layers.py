"""Where the networks that a manifest describes layer by layer can be cut."""

from collections.abc import Mapping
from itertools import pairwise

import msgspec

from isochrone.deploy.packages.cut import Axis, Joint
from isochrone.edge_agent.runtime.package.manifest import (
    Architecture,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    Softmax,
)
from isochrone.router.wire.tensor import Array


def joints(architecture: Architecture) -> tuple[list[Joint], list[str]]:
    """Every layer that can be cut, and why others cannot; the last one is never cut."""
    found, left = [], []
    weighted = [i for i, layer in enumerate(architecture) if isinstance(layer, Conv2d | Linear)]
    for place, reader in pairwise(weighted):
        joint = _joint(architecture, place, reader)
        if isinstance(joint, str):
            left.append(f"layer {place} is left as it is: {joint}")
        else:
            found.append(joint)
    return found, left


def _joint(architecture: Architecture, place: int, reader: int) -> Joint | str:
    maker, taker = architecture[place], architecture[reader]
    between = architecture[place + 1 : reader]
    if any(isinstance(layer, Softmax) for layer in between):
        return "a softmax mixes its outputs"
    repeat = _repeat(maker, taker, flat=any(isinstance(layer, Flatten) for layer in between))
    if not repeat:
        return f"layer {reader} does not read its outputs one by one"
    return Joint(
        name=f"layer {place}",
        weights=Axis(f"{place}.weight", 0),
        along=(Axis(f"{place}.bias", 0),),
        reader=Axis(f"{reader}.weight", 1, repeat),
    )


def _repeat(maker: Layer, taker: Layer, *, flat: bool) -> int:
    """How many inputs of the one come from each output of the other; 0 where that is unclear."""
    match maker, taker:
        case Conv2d(), Conv2d():
            return 0 if flat else 1
        case Conv2d(), Linear():
            whole = flat and not taker.inputs % maker.outputs
            return taker.inputs // maker.outputs if whole else 0
        case Linear(), Linear():
            return int(maker.outputs == taker.inputs)
    return 0


def resized(architecture: Architecture, weights: Mapping[str, Array]) -> Architecture:
    """The layers with the sizes that their weights have now."""
    return tuple(
        _resized(layer, weights[f"{i}.weight"].shape)
        if isinstance(layer, Conv2d | Linear)
        else layer
        for i, layer in enumerate(architecture)
    )


def _resized(layer: Conv2d | Linear, shape: tuple[int, ...]) -> Conv2d | Linear:
    return msgspec.structs.replace(layer, outputs=shape[0], inputs=shape[1])
