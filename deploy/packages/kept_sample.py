"""A request as a warm-up sample: small tensors in the manifest, others in files of the package."""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from isochrone.edge_agent.runtime.package.manifest import (
    KEPT_SUFFIX,
    KeptTensor,
    Sample,
    SampleTensor,
)
from isochrone.router.wire import binary_codec
from isochrone.router.wire.tensor import DATATYPES, Array, Form, Tensor, TensorSpec

Kept = dict[str, bytes]
"""Files by name."""
_MOST_INLINE = 64
"""Elements that are still easy to read in a manifest."""


def as_sample(
    number: int,
    takes: Sequence[TensorSpec],
    arrays: Mapping[str, Array],
    made_up: Collection[str],
) -> tuple[Sample, Kept]:
    """The sample and its files; of inputs that are `made_up`, only the shape is kept."""
    tensors, files = [], Kept()
    for place, spec in enumerate(takes):
        data = arrays.get(spec.name)
        if data is None:  # it may be left out
            continue
        if spec.name in made_up:
            tensors.append(SampleTensor(spec.name, data.shape))
        elif _is_readable(spec, data):
            tensors.append(SampleTensor(spec.name, data.shape, tuple(data.ravel().tolist())))
        else:
            file = f"sample-{number}-{place + 1}{KEPT_SUFFIX}"
            files[file] = raw = binary_codec.to_bytes(Tensor(spec.name, spec.datatype, data))
            kept = KeptTensor(file=file, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
            tensors.append(SampleTensor(spec.name, data.shape, kept=kept))
    return Sample(tuple(tensors)), files


def _is_readable(spec: TensorSpec, data: Array) -> bool:
    form = DATATYPES[spec.datatype].form
    plain = form in (Form.INT, Form.BOOL) or (form is Form.FLOAT and bool(np.isfinite(data).all()))
    return plain and data.size <= _MOST_INLINE
