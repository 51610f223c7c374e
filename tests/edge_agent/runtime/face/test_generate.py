"""Which models generate: those that take one text and give one."""

import pytest

from isochrone.edge_agent.runtime.face import generate
from isochrone.router.errors import BadRequest
from isochrone.router.wire.message import ModelMetadata
from isochrone.router.wire.tensor import TensorSpec

BODY = b'{"text_input": "a", "parameters": {"stop": ["b"], "temperature": 0.5}}'
TAKES = TensorSpec("text_input", "BYTES", (1,))
GIVES = TensorSpec("text_output", "BYTES", (1,))


def decoded(takes, gives):
    return generate.decode(BODY, ModelMetadata("talk", ("1",), "any", takes, gives))


@pytest.mark.parametrize(
    "gives",
    [
        pytest.param((GIVES,), id="a text"),
        pytest.param((TensorSpec("score", "FP32", (1,)), GIVES), id="more than a text"),
    ],
)
def test_a_text_becomes_a_tensor_and_a_list_becomes_a_text(gives):
    request = decoded((TAKES,), gives)
    assert request.inputs[0].data.tolist() == [b"a"]
    assert request.parameters == {"stop": '["b"]', "temperature": 0.5}


@pytest.mark.parametrize(
    ("takes", "gives"),
    [
        pytest.param((TensorSpec("text_input", "INT64", (1,)),), (GIVES,), id="takes numbers"),
        pytest.param((TAKES, TAKES), (GIVES,), id="takes more"),
        pytest.param((TensorSpec("text", "BYTES", (1,)),), (GIVES,), id="takes another"),
        pytest.param((TAKES,), (TensorSpec("text_output", "FP32", (1,)),), id="gives numbers"),
        pytest.param((TAKES,), (TensorSpec("text", "BYTES", (1,)),), id="gives another"),
    ],
)
def test_other_models_do_not_generate(takes, gives):
    with pytest.raises(BadRequest, match="does not generate"):
        decoded(takes, gives)
