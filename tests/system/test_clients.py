"""Clients that we did not write, through a real router to a real agent."""

import asyncio
import json

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from tests.system.town import wait_until

PACKINGS = [None, "gzip", "deflate"]


@pytest.fixture(scope="module")
def router(quiet_town):
    with triton.InferenceServerClient(quiet_town.router.address) as client:
        wait_until(lambda: is_there(client, "double"))
    return quiet_town.router.address


@pytest.fixture(scope="module", params=["router", "agent"])
def address(request, quiet_town, router):
    """What serves: clients must not see a difference."""
    return router if request.param == "router" else quiet_town.agents["edge"].address


def is_there(client, model) -> bool:
    try:
        return bool(client.is_model_ready(model))
    except triton.InferenceServerException:
        return False


def double_input(rows: int, binary: bool):
    data = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    tensor = triton.InferInput("x", list(data.shape), "FP32")
    tensor.set_data_from_numpy(data, binary_data=binary)
    return tensor, data


@pytest.mark.parametrize("request_packing", PACKINGS)
@pytest.mark.parametrize("response_packing", PACKINGS)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritonclient_works_unchanged(address, binary, request_packing, response_packing):
    tensor, data = double_input(300, binary)
    with triton.InferenceServerClient(address) as client:
        result = client.infer(
            "double",
            [tensor],
            outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
            request_id="call-1",
            request_compression_algorithm=request_packing,
            response_compression_algorithm=response_packing,
        )
    np.testing.assert_array_equal(result.as_numpy("y"), data * 2)
    assert result.get_response()["id"] == "call-1"


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
async def test_the_asynchronous_tritonclient_works_unchanged(address, binary, packing):
    tensor, data = double_input(300, binary)
    async with triton_aio.InferenceServerClient(address) as client:
        calls = [
            client.infer(
                "double",
                [tensor],
                request_compression_algorithm=packing,
                response_compression_algorithm=packing,
            )
            for _ in range(20)
        ]
        results = await asyncio.gather(*calls)
    for result in results:
        np.testing.assert_array_equal(result.as_numpy("y"), data * 2)


async def test_texts_come_back_through_tritonclient(address):
    tensor = triton.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(["é", ""], object))
    async with triton_aio.InferenceServerClient(address) as client:
        result = await client.infer("words", [tensor])
    assert result.as_numpy("same").tolist() == ["é".encode(), b""]


def test_tritonclient_reads_everything_that_is_offered(address):
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("double", "1")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("double")["inputs"][0]["shape"] == [-1, 2]
        assert {model["name"] for model in client.get_model_repository_index()} >= {"double"}
        with pytest.raises(triton.InferenceServerException, match="admin"):
            client.load_model("double")
        with pytest.raises(triton.InferenceServerException, match="not offered"):
            client.get_model_config("double")
        with pytest.raises(triton.InferenceServerException, match="nobody"):
            client.infer("nobody", [double_input(1, binary=True)[0]])


BAD_BODIES = {
    "no JSON": "{",
    "no tensors": "{}",
    "shape and data differ": {"shape": [2, 2], "data": [1, 2, 3]},
    "negative dimension": {"shape": [-1, 2], "data": [1, 2]},
    "overflowing dimensions": {"shape": [2**62, 2**62], "data": [1, 2]},
    "wrong datatype": {"datatype": "FP99"},
    "another datatype than the model's": {"datatype": "INT32", "data": [1, 2]},
    "bare NaN": '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[NaN,1]}]}',
    "an id that is no string": '{"id":5,"inputs":[]}',
    "unknown tensor": {"name": "z"},
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_bad_body_is_the_endpoints_400(address, body):
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    text = body if isinstance(body, str) else json.dumps({"inputs": [{**tensor, **body}]})
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"http://{address}/v2/models/double/infer", data=text.encode()) as response,
    ):
        told = await response.json()
    assert response.status == 400
    assert told["error"]


async def test_text_is_streamed_piece_by_piece(address):
    body = {"text_input": "ab", "parameters": {"max_tokens": 5, "temperature": 0}}
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"http://{address}/v2/models/talk/generate_stream", json=body) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in response.headers
        events = (await response.text()).split("\n\n")[:-1]
    pieces = [json.loads(event.removeprefix("data: "))["text_output"] for event in events]
    assert pieces == ["c", "d", "e", "f", "g"]
