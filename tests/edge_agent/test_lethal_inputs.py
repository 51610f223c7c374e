"""A real agent process and inputs on which onnxruntime ends the process that runs it."""

import asyncio
import json

import numpy as np
import pytest
from onnx import TensorProto

from isochrone.edge_agent.runtime.package.manifest import Declared, SampleTensor
from tests.conftest import write
from tests.edge_agent.runtime.engines.test_onnx_guards import LEAST, SIZE, divided, recurrent
from tests.edge_agent.test_agent import running
from tests.edge_agent.test_agent_memory import http, infer  # noqa: F401 - a fixture

ROWS = (-1, -1, SIZE)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    store = tmp_path_factory.mktemp("packages")
    for name, kind in (("layer", "GRU"), ("apart", "LSTM")):
        write(
            store,
            recurrent(kind),
            name=name,
            inputs=(Declared("x", "FP32", ROWS),),
            outputs=(Declared("y", "FP32", (-1, -1, -1, -1)),),
            sample=SampleTensor("x", (2, 1, SIZE)),
        )
    write(
        store,
        divided("Div", TensorProto.INT64),
        name="ratio",
        inputs=(Declared("a", "INT64", (-1,)), Declared("b", "INT64", (-1,))),
        outputs=(Declared("y", "INT64", (-1,)),),
        sample=SampleTensor("a", (1,), (6,)),
        others=(SampleTensor("b", (1,), (3,)),),
    )
    return store


def body(**arrays):
    kinds = {"f": "FP32", "i": "INT64"}
    inputs = [
        {
            "name": name,
            "shape": [*one.shape],
            "datatype": kinds[one.dtype.kind],
            "data": one.ravel().tolist(),
        }
        for name, one in arrays.items()
    ]
    return json.dumps({"inputs": inputs})


def steps(*shape):
    return body(x=np.zeros((*shape, SIZE), np.float32))


def ratio(some, others):
    return body(a=np.array(some), b=np.array(others))


async def test_they_are_refused_and_the_agent_serves_on(tmp_path, packages, http):  # noqa: F811
    models = {"apart": {"isolation": "process"}}
    keep_warm = ["layer", "apart", "ratio"]
    with running(tmp_path, packages, models=models, keep_warm=keep_warm) as agent:
        for model, kind in (("layer", "GRU"), ("apart", "LSTM")):
            status, _, told = await infer(agent, http, model, steps(2, 0))
            assert (status, told["code"]) == (400, "bad_request")
            assert told["error"] == (
                f"{model} cannot compute these inputs: 'x' has shape [2, 0, 3];"
                f" a size of 0 comes to its {kind}"
            )
        status, _, told = await infer(agent, http, "ratio", ratio([LEAST, 7], [-1, -1]))
        assert (status, told["outputs"][0]["data"]) == (200, [LEAST, -7])
        status, _, told = await infer(agent, http, "ratio", ratio([7], [0]))
        assert (status, told["code"]) == (400, "bad_request")
        honest = [infer(agent, http, model, steps(2, 1)) for model in ("layer", "apart")]
        assert [one[0] for one in await asyncio.gather(*honest)] == [200, 200]
        assert not agent.events("model_crashed")
        reasons = {event["model"]: event["reason"] for event in agent.events("not_computed")}
        assert reasons.keys() == {"layer", "apart", "ratio"}
        assert "divides whole numbers by 0" in reasons["ratio"]
        for _ in range(20):
            await infer(agent, http, "ratio", ratio([7], [0]))
        assert len(agent.events("not_computed")) == 3, "an equal line is written once a minute"
