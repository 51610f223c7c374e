"""Tensors of the Open Inference Protocol: a datatype, a shape and a numpy array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

import msgspec
import numpy as np

from isochrone.router.errors import BadRequest

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

MAX_RANK = 32
"""numpy's oldest bound on dimensions; no model comes near it."""
MAX_ELEMENTS = 1 << 40
"""Far above any body, far below what overflows numpy's sizes."""

BYTES_ELEMENT_BYTES = 64


class Form(Enum):
    """What an element looks like in JSON."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    TEXT = "text"
    NONE = "none"
    """No JSON form: binary only."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype of the protocol: numpy type (little-endian, as on the wire) and JSON form."""

    name: str
    dtype: np.dtype[np.generic]
    form: Form

    @property
    def element_bytes(self) -> int:
        """What an element takes in memory; a short one of BYTES, which is an object of its own."""
        return BYTES_ELEMENT_BYTES if self.form is Form.TEXT else self.dtype.itemsize


def _datatype(name: str, dtype: str, form: Form) -> tuple[str, Datatype]:
    return name, Datatype(name, np.dtype(dtype), form)


DATATYPES: Mapping[str, Datatype] = dict(
    (
        _datatype("BOOL", "?", Form.BOOL),
        _datatype("UINT8", "u1", Form.INT),
        _datatype("UINT16", "<u2", Form.INT),
        _datatype("UINT32", "<u4", Form.INT),
        _datatype("UINT64", "<u8", Form.INT),
        _datatype("INT8", "i1", Form.INT),
        _datatype("INT16", "<i2", Form.INT),
        _datatype("INT32", "<i4", Form.INT),
        _datatype("INT64", "<i8", Form.INT),
        _datatype("FP16", "<f2", Form.NONE),
        _datatype("BF16", "<u2", Form.NONE),  # numpy has no such type: the bits, as they are
        _datatype("FP32", "<f4", Form.FLOAT),
        _datatype("FP64", "<f8", Form.FLOAT),
        _datatype("BYTES", "O", Form.TEXT),
    )
)
"""Every datatype by name. BF16 is Triton's addition to the protocol's own table."""

_NAMES = {datatype.dtype: name for name, datatype in DATATYPES.items() if name != "BF16"}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as a model declares it; -1 in `shape` stands for a variable dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Tensor(msgspec.Struct, frozen=True, eq=False):
    """A named tensor. BYTES tensors hold numpy objects of type `bytes`, BF16 tensors their bits."""

    name: str
    datatype: str
    data: Array
    parameters: Mapping[str, str | int | float | bool] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions, row-major."""
        return self.data.shape


def datatype_named(name: str, tensor: str) -> Datatype:
    """The datatype called `name`, of the tensor called `tensor`.

    Raises:
        BadRequest: there is no such datatype.
    """
    datatype = DATATYPES.get(name)
    if datatype is None:
        raise BadRequest(f"{tensor!r}: datatype {name!r} is none of {', '.join(DATATYPES)}")
    return datatype


def datatype_of(array: Array) -> str:
    """The protocol's name for a numpy array's type; bits of BF16 look like UINT16 and are named so.

    Raises:
        BadRequest: the protocol has no such type.
    """
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise BadRequest(f"numpy type {array.dtype} has no datatype in the inference protocol")
    return name


def element_count(shape: Sequence[int], tensor: str) -> int:
    """How many elements a shape holds, once the shape is known to be a possible one.

    Raises:
        BadRequest: a dimension is negative, there are too many, or their product is beyond reason.
    """
    if len(shape) > MAX_RANK:
        raise BadRequest(f"{tensor!r}: {len(shape)} dimensions; at most {MAX_RANK} are possible")
    if shape and min(shape) < 0:
        raise BadRequest(f"{tensor!r}: shape {list(shape)} has a negative dimension")
    if prod([dimension or 1 for dimension in shape]) > MAX_ELEMENTS:
        raise BadRequest(f"{tensor!r}: the shape's dimensions are too large")
    return prod(shape)


def fits(spec: TensorSpec, shape: Sequence[int]) -> bool:
    """`shape` is one that `spec` allows."""
    pairs = zip(spec.shape, shape, strict=False)
    open_as_declared = tuple([-1 if wanted == -1 else given for wanted, given in pairs])
    return len(shape) == len(spec.shape) and open_as_declared == spec.shape
