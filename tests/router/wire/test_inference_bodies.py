"""What leaves comes back the same, and no bytes whatsoever do more than raise BadRequest."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec.structs import replace

from isochrone.router.errors import BadRequest
from isochrone.router.wire import binary_codec, codec, json_codec
from isochrone.router.wire.message import InferRequest, InferResponse, RequestedOutput
from isochrone.router.wire.tensor import DATATYPES, Form, Tensor, TensorSpec, datatype_of

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
PARAMETERS = st.dictionaries(
    st.sampled_from(["priority", "timeout", "sequence_id", "x"]),
    st.one_of(st.integers(-(2**62), 2**62), st.booleans(), st.text(max_size=5)),
    max_size=3,
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
IDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10)


def arrays(datatype, text):
    if datatype.form is Form.TEXT:
        element = st.text(max_size=5).map(str.encode) if text else st.binary(max_size=5)
        return SHAPES.flatmap(lambda shape: hnp.arrays(object, shape, elements=element))
    finite = hnp.from_dtype(datatype.dtype, allow_nan=False, allow_infinity=False)
    elements = finite if text else None
    return SHAPES.flatmap(lambda shape: hnp.arrays(datatype.dtype, shape, elements=elements))


def tensors(text):
    kinds = [d for d in DATATYPES.values() if not (text and d.form is Form.NONE)]
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.builds(Tensor, NAMES, st.just(kind.name), arrays(kind, text), PARAMETERS)
    )


def messages(text):
    some = st.lists(tensors(text), max_size=3, unique_by=lambda tensor: tensor.name).map(tuple)
    wishes = st.builds(RequestedOutput, NAMES, st.sampled_from([None, True, False]), PARAMETERS)
    unique = st.lists(wishes, max_size=2, unique_by=lambda wish: wish.name).map(tuple)
    return st.builds(InferRequest, some, unique, IDS, PARAMETERS)


def plain(tensor):
    bits = tensor.data.tolist() if tensor.datatype == "BYTES" else tensor.data.tobytes()
    return tensor.name, tensor.datatype, tensor.shape, dict(tensor.parameters), bits


def same(one, other):
    assert [plain(tensor) for tensor in one.inputs] == [plain(tensor) for tensor in other.inputs]
    assert (one.outputs, one.id, one.parameters) == (other.outputs, other.id, other.parameters)


@given(messages(text=True))
def test_json_comes_back_the_same(request_):
    same(request_, codec.decode_request([], json_codec.encode_request(request_), ()))


@given(messages(text=False))
def test_binary_comes_back_the_same(request_):
    headers, body = codec.encode_request(request_)
    same(request_, codec.decode_request(headers, body, ()))


@given(messages(text=False), st.randoms())
def test_a_head_that_was_there_before_takes_new_data(request_, rng):
    def turned(tensor):
        flat = tensor.data.ravel().tolist()
        rng.shuffle(flat)
        data = np.empty(tensor.data.size, tensor.data.dtype)
        data[:] = flat
        return replace(tensor, data=data.reshape(tensor.shape))

    other = replace(request_, inputs=tuple(map(turned, request_.inputs)))
    for one in (request_, other, request_):
        headers, body = codec.encode_request(one)
        same(one, codec.decode_request(headers, body, ()))


@given(st.lists(tensors(text=False), max_size=3, unique_by=lambda tensor: tensor.name), IDS)
def test_binary_answers_come_back_the_same(outputs, identifier):
    wish = InferRequest((), parameters={"binary_data_output": True})
    response = InferResponse("m", "1", tuple(outputs), identifier)
    headers, body = codec.encode_response(wish, response)
    back = codec.decode_response(headers, body)
    assert [plain(tensor) for tensor in back.outputs] == [plain(tensor) for tensor in outputs]
    assert (back.model_name, back.model_version, back.id) == ("m", "1", identifier)


HEAD = st.one_of(
    st.none(), st.integers(-2, 200).map(lambda n: b"%d" % n), st.binary(max_size=4), st.just(b"0")
)
JSONISH = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)
INPUT = st.fixed_dictionaries(
    {
        "name": st.one_of(st.sampled_from("ab"), JSONISH),
        "shape": st.one_of(st.lists(st.integers(-2, 2**70), max_size=4), JSONISH),
        "datatype": st.one_of(st.sampled_from(list(DATATYPES)), JSONISH),
    },
    optional={
        "data": st.one_of(st.lists(st.integers(-1, 300), max_size=4), JSONISH),
        "parameters": st.one_of(
            st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9)}), JSONISH
        ),
    },
)
BODY = st.one_of(
    st.binary(max_size=80),
    st.fixed_dictionaries(
        {"inputs": st.lists(INPUT, max_size=3)},
        optional={"id": JSONISH, "outputs": JSONISH, "parameters": JSONISH},
    ).map(lambda message: json.dumps(message).encode()),
)


@settings(max_examples=400)
@given(HEAD, BODY, st.binary(max_size=12))
def test_no_bytes_do_more_than_raise_bad_request(head, body, blob):
    spec = TensorSpec("x", "FP32", (-1, 2))
    for length in (head, b"%d" % len(body)):
        headers = [] if length is None else [(codec.HEAD_LENGTH, length)]
        for decode in (codec.decode_request, lambda h, b, _: codec.decode_response(h, b)):
            with suppress(BadRequest):
                decode(headers, body + blob, (spec,))


def one_input(**changes):
    part = {"name": "image", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4], **changes}
    return json.dumps({"inputs": [part]}).encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"{", "no inference message", id="cut_json"),
        pytest.param(b"\xff\xfe", "no inference message", id="not_utf8"),
        pytest.param(b'{"inputs": 3}', "inputs", id="inputs_is_a_number"),
        pytest.param(b'{"x":' + b"[" * 9999 + b"]" * 9999 + b"}", "deep", id="deep_nesting"),
        pytest.param(one_input(data="[" * 40), "'image'", id="data_is_text"),
        pytest.param(one_input(data=[1, 2, 3]), "'image': data do not fit", id="too_few"),
        pytest.param(one_input(data=[[1, 2], [3]]), "'image': data do not fit", id="ragged"),
        pytest.param(one_input(data=[[[1, 2]], [[3, 4]]]), "'image'", id="nested_too_deep"),
        pytest.param(one_input(shape=[-1, -4]), "'image'.*negative", id="negative"),
        pytest.param(one_input(shape=[2**40, 2**40]), "'image'.*too large", id="overflow"),
        pytest.param(one_input(shape=[0, 2**62, 2**62]), "'image'.*too large", id="zero_overflow"),
        pytest.param(one_input(shape=[2**80]), "shape", id="dimension_over_64_bits"),
        pytest.param(one_input(shape=[1] * 40, data=[1]), "40 dimensions", id="rank"),
        pytest.param(one_input(shape=[True, 4]), "shape", id="dimension_is_bool"),
        pytest.param(one_input(datatype="FP33"), "'image': datatype 'FP33'", id="datatype"),
        pytest.param(one_input(datatype="FP16"), "'image'.*binary", id="fp16_in_json"),
        pytest.param(one_input(datatype="BF16"), "'image'.*binary", id="bf16_in_json"),
        pytest.param(one_input(datatype="INT8", data=[1, 2, 3, 128]), "'image'", id="int8_range"),
        pytest.param(one_input(datatype="UINT64", data=[0, 0, 0, 2**64]), "'image'", id="uint64"),
        pytest.param(one_input(datatype="UINT8", data=[0, 0, 0, -1]), "'image'", id="sign"),
        pytest.param(one_input(datatype="INT32", data=[1, 2, 3, 4.5]), "'image'", id="fraction"),
        pytest.param(one_input(datatype="INT32", data=[1, 2, 3, True]), "'image'", id="bool"),
        pytest.param(one_input(datatype="BOOL", data=[1, 0, 1, 0]), "'image'", id="int_in_bool"),
        pytest.param(one_input(data=[1, 2, 3, "4"]), "'image'", id="text_in_float"),
        pytest.param(one_input(data=[1, 2, 3, None]), "'image'", id="null_in_float"),
        pytest.param(one_input(data=[1, 2, 3, 1e39]), "'image'.*FP32", id="fp32_range"),
        pytest.param(one_input(data=[1, 2, 3, float("nan")]), "malformed", id="nan"),
        pytest.param(one_input(data=[1, 2, 3, float("inf")]), "malformed", id="infinity"),
        pytest.param(
            b'{"inputs":[{"name":"image","shape":[1],"datatype":"FP32","data":[1e999]}]}',
            "'image'.*range",
            id="number_beyond_doubles",
        ),
        pytest.param(
            b'{"inputs":[{"name":"image","shape":[1],"datatype":"INT64","data":['
            + b"9" * 5000
            + b"]}]}",
            "'image'.*range",
            id="a_number_of_5000_digits",
        ),
        pytest.param(one_input(parameters={"binary_data_size": 4}), "'image'", id="size_and_data"),
        pytest.param(
            b'{"inputs":[{"name":"a","shape":[0],"datatype":"INT8","data":[]},'
            b'{"name":"a","shape":[0],"datatype":"INT8","data":[]}]}',
            "'a' is there twice",
            id="twice",
        ),
        pytest.param(
            b'{"inputs":[{"name":"a","shape":[0],"datatype":"INT8"}]}', "'a': no data", id="no_data"
        ),
        pytest.param(
            b'{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":1}}]}',
            "'y': binary_data",
            id="wish_is_a_number",
        ),
        pytest.param(
            b'{"inputs":[],"parameters":{"binary_data_output":"yes"}}',
            "binary_data_output",
            id="wishes_is_text",
        ),
    ],
)
def test_bad_json_is_refused_with_a_text_that_names_what_is_wrong(body, words):
    with pytest.raises(BadRequest, match=words):
        codec.decode_request([], body, ())


def binary(part, blob, head_bytes=None):
    head = json.dumps({"inputs": [{"name": "image", **part}]}).encode()
    length = len(head) if head_bytes is None else head_bytes
    return [(codec.HEAD_LENGTH, b"%d" % length)], head + blob


def sized(datatype, shape, size):
    return {"datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        pytest.param(binary(sized("FP32", [2], 8), b"1234567"), "8 bytes announced", id="cut"),
        pytest.param(binary(sized("FP32", [2], 8), b"123456789"), "1 bytes after", id="rest"),
        pytest.param(binary(sized("FP32", [2], 4), b"1234"), "'image'.*make 8", id="size"),
        pytest.param(binary(sized("FP32", [-2], 8), b"12345678"), "negative", id="negative"),
        pytest.param(binary(sized("FP32", [2**39], 0), b""), "'image'", id="huge"),
        pytest.param(binary(sized("FP32", [1], -4), b"1234"), "'image'", id="negative_size"),
        pytest.param(binary(sized("FP32", [1], True), b"1"), "'image'", id="size_is_bool"),
        pytest.param(binary(sized("BOOL", [2], 2), b"\x01\x02"), "0 or 1", id="bool_is_2"),
        pytest.param(binary(sized("BYTES", [2], 5), b"\1\0\0\0a"), "'image'", id="one_of_two"),
        pytest.param(binary(sized("BYTES", [1], 5), b"\2\0\0\0a"), "longer", id="element_cut"),
        pytest.param(binary(sized("BYTES", [1], 6), b"\1\0\0\0ab"), "after the last", id="longer"),
        pytest.param(binary(sized("BYTES", [2**39], 4), b"1234"), "cannot hold", id="huge_bytes"),
        pytest.param(binary(sized("FP32", [1], 4), b"1234", 99999), "not within", id="head"),
        pytest.param(([(codec.HEAD_LENGTH, b"-1")], b"{}"), "whole number", id="head_negative"),
        pytest.param(([(codec.HEAD_LENGTH, b"9" * 30)], b"{}"), "whole number", id="head_huge"),
        pytest.param(([(codec.HEAD_LENGTH, b"0")], b"123"), "'x'", id="raw_does_not_fit"),
    ],
)
def test_bad_binary_is_refused_with_a_text_that_names_what_is_wrong(message, words):
    headers, body = message
    with pytest.raises(BadRequest, match=words):
        codec.decode_request(headers, body, (TensorSpec("x", "FP32", (-1, 2)),))


def test_nested_and_flat_data_are_the_same():
    nested = codec.decode_request([], one_input(data=[[1, 2], [3, 4]]), ())
    flat = codec.decode_request([], one_input(), ())
    same(nested, flat)
    assert nested.inputs[0].data.tolist() == [[1, 2], [3, 4]]


def test_json_and_binary_tensors_may_be_mixed():
    head = json.dumps(
        {
            "inputs": [
                {"name": "a", **sized("INT16", [2], 4)},
                {"name": "b", "datatype": "INT16", "shape": [1], "data": [7]},
                {"name": "c", **sized("BYTES", [1], 5)},
            ]
        }
    ).encode()
    body = head + b"\1\0\2\0" + b"\1\0\0\0z"
    request = codec.decode_request([(codec.HEAD_LENGTH, b"%d" % len(head))], body, ())
    assert [tensor.data.tolist() for tensor in request.inputs] == [[1, 2], [7], [b"z"]]


@pytest.mark.parametrize(
    ("spec", "body", "shape"),
    [
        pytest.param(TensorSpec("x", "INT16", (-1, 2)), b"12345678", (2, 2), id="variable"),
        pytest.param(TensorSpec("x", "INT8", (2, 3)), b"123456", (2, 3), id="fixed"),
        pytest.param(TensorSpec("x", "BYTES", (-1,)), b"\xff\xd8any", (1,), id="bytes"),
    ],
)
def test_a_raw_body_is_one_tensor_and_is_answered_in_binary(spec, body, shape):
    request = codec.decode_request([(codec.HEAD_LENGTH, b"0")], body, (spec,))
    assert request.inputs[0].shape == shape
    assert request.parameters == {"binary_data_output": True}


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param((), id="no_input"),
        pytest.param((TensorSpec("x", "FP32", (1,)), TensorSpec("y", "FP32", (1,))), id="two"),
        pytest.param((TensorSpec("x", "FP32", (-1, -1)),), id="two_variable_dimensions"),
    ],
)
def test_a_raw_body_needs_a_model_that_fits(inputs):
    with pytest.raises(BadRequest, match="raw body"):
        codec.decode_request([(codec.HEAD_LENGTH, b"0")], b"1234", inputs)


def answer(data, datatype=None):
    array = np.array(data)
    return InferResponse("m", "", (Tensor("y", datatype or datatype_of(array), array),))


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(answer(np.array([np.nan], np.float32)), id="nan"),
        pytest.param(answer(np.array([np.inf])), id="infinity"),
        pytest.param(answer(np.array([1], np.float16)), id="fp16"),
        pytest.param(answer(np.array([1], np.uint16), "BF16"), id="bf16"),
        pytest.param(answer(np.array([b"\xff"], object)), id="not_utf8"),
    ],
)
def test_what_json_cannot_carry_leaves_as_binary_or_not_at_all(response):
    with pytest.raises(BadRequest, match=r"'y'.*binary_data"):
        codec.encode_response(InferRequest(()), response)
    headers, body = codec.encode_response(
        InferRequest((), (RequestedOutput("y", binary=True),)), response
    )
    assert plain(codec.decode_response(headers, body).outputs[0]) == plain(response.outputs[0])


def test_one_output_may_be_binary_and_the_next_not():
    ones = np.ones(2, np.float32)
    response = InferResponse("m", "1", (Tensor("a", "FP32", ones), Tensor("b", "FP32", ones)))
    wish = InferRequest(
        (),
        (RequestedOutput("a", binary=False), RequestedOutput("b")),
        "",
        {"binary_data_output": True},
    )
    headers, body = codec.encode_response(wish, response)
    length = int(dict(headers)[codec.HEAD_LENGTH])
    head = json.loads(body[:length])
    assert head["outputs"][0]["data"] == [1, 1]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 8}
    assert body[length:] == ones.tobytes()


def test_an_unaligned_blob_becomes_an_aligned_array():
    for padding in range(8):
        head = json.dumps({"inputs": [{"name": "i" * (padding + 1), **sized("FP64", [2], 16)}]})
        request = binary_codec.decode_request(head.encode() + b"\0" * 16, len(head))
        assert request.inputs[0].data.flags.aligned
