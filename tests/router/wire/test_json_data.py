"""A tensor's data as JSON, read and written in steps: the same in any number, and bounded."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isochrone.router.errors import BadRequest, TooLarge
from isochrone.router.wire import binary_codec, codec, content, json_codec, json_data
from isochrone.router.wire.bounds import decoded_bound, unpacked_bound
from isochrone.router.wire.message import InferResponse
from isochrone.router.wire.tensor import DATATYPES, Form, Tensor

JSON_TYPES = [kind for kind in DATATYPES.values() if kind.form is not Form.NONE]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
LIMIT = 16 << 20


def filled(kind):
    if kind.form is Form.TEXT:
        texts = st.text(max_size=4).map(str.encode)
        return SHAPES.flatmap(lambda shape: hnp.arrays(object, shape, elements=texts))
    finite = hnp.from_dtype(kind.dtype, allow_nan=False, allow_infinity=False)
    return SHAPES.flatmap(lambda shape: hnp.arrays(kind.dtype, shape, elements=finite))


TENSORS = st.sampled_from(JSON_TYPES).flatmap(
    lambda kind: st.builds(Tensor, st.just("x"), st.just(kind.name), filled(kind))
)


def listed(tensor):
    """Its data as Python lists, as a client writes them."""
    data = tensor.data
    if tensor.datatype == "BYTES":
        data = np.vectorize(bytes.decode, otypes=[object])(data) if data.size else data
    return data.tolist() if data.shape else [data.tolist()]


@pytest.fixture(params=[1, 3, 40])
def in_steps(request, monkeypatch):
    """So short that small data take several."""
    monkeypatch.setattr(json_data, "STEP_BYTES", request.param)
    monkeypatch.setattr(json_data, "STEP_ELEMENTS", request.param)


def outcome(text, kind, shape):
    try:
        array = json_data.decode_data(text, kind, shape, "x")
    except BadRequest:
        return "refused"
    return array.dtype, array.tolist()


@pytest.mark.usefixtures("in_steps")
@given(TENSORS, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_data_are_the_same_in_any_number_of_steps(tensor, indent, nested):
    kind = DATATYPES[tensor.datatype]
    values = listed(tensor)
    if not nested:
        values = np.array(values, object).reshape(-1).tolist() if tensor.data.size else []
    text = json.dumps(values, indent=indent).encode()
    array = json_data.decode_data(text, kind, tensor.shape, "x")
    assert array.dtype == kind.dtype
    assert array.tolist() == tensor.data.ravel().tolist()
    written = json_codec.encode_response(InferResponse("m", "1", (tensor,)))
    back = json_codec.decode_response(written).outputs[0]
    assert (back.shape, back.data.tolist()) == (tensor.shape, tensor.data.tolist())


SCALARS = st.one_of(
    st.integers(-3, 3), st.sampled_from([None, True, 0.5, "", "a", "],[", {"a": 1}])
)
NESTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@given(
    st.lists(NESTS, max_size=4),
    st.sampled_from(JSON_TYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([1, 3]),
)
def test_whatever_the_lists_hold_steps_decide_as_one_reading_does(values, kind, shape, step):
    text = json.dumps(values).encode()
    whole = outcome(text, kind, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_data, "STEP_BYTES", step)
        patch.setattr(json_data, "STEP_ELEMENTS", step)
        assert outcome(text, kind, shape) == whole


def message(*inputs, **more):
    return json.dumps({"inputs": list(inputs), **more}).encode()


def part(text, datatype="FP32", shape="[1]", name="x"):
    return b'{"inputs":[{"name":"%b","shape":%b,"datatype":"%b","data":%b}]}' % (
        name.encode(),
        shape.encode(),
        datatype.encode(),
        text,
    )


MANY = 400_000
ATTACKS = {
    "rows": part(b"[" + b"0," * MANY + b"0]", shape=f"[{MANY + 1}]"),
    "rows of INT64": part(b"[" + b"0," * MANY + b"0]", "INT64", f"[{MANY + 1}]"),
    "more than the shape": part(b"[" + b"0," * MANY + b"0]"),
    "fewer than the shape": part(b"[" + b"0," * MANY + b"0]", shape="[1000000000]"),
    "a shape of no elements": part(b"[" + b"0," * MANY + b"0]", shape="[0,1000000000]"),
    "empty lists": part(b"[" + b"[]," * MANY + b"[]]", shape=f"[{MANY + 1},0]"),
    "empty lists in a shape of others": part(b"[" + b"[]," * MANY + b"[]]", shape="[1,1]"),
    "deep lists": part(b"[" + b"[[[[]]]]," * (MANY // 4) + b"[]]", shape="[1,1,1,1,1]"),
    "long numbers": part(b"[" + b"0.1234567890123456789," * (MANY // 10) + b"0]", shape="[40001]"),
    "a number of many digits": part(b"[" + b"1" * 2 * MANY + b"]"),
    "texts": part(b"[" + b'"ab",' * MANY + b'""]', "BYTES", f"[{MANY + 1}]"),
    "more texts than the shape": part(b"[" + b'"ab",' * MANY + b'""]', "BYTES"),
    "one text of escapes": part(b'["' + b"\\n" * MANY + b'"]', "BYTES"),
    "parameters": message(parameters={f"{n:x}": 1 for n in range(MANY // 4)}),
    "a tensor's parameters": message({"name": "x", "parameters": {f"{n}": 0 for n in range(MANY)}}),
    "one parameter": message(parameters={"a": "b" * MANY}),
    "many inputs": b'{"inputs":[' + b'{"name":"ab","shape":0,"datatype":"ab"},' * (MANY // 10),
    "many outputs": b'{"inputs":[],"outputs":[' + b'{"name":"ab"},' * (MANY // 4),
    "duplicate keys": b'{"inputs":[]' + b',"id":"abcd","parameters":{"a":1}' * (MANY // 10) + b"}",
    "long names": message({"name": "n" * MANY, "shape": [1], "datatype": "FP32", "data": [1]}),
    "a long id": message(id="i" * MANY),
    "a long shape": part(b"[]", shape="[" + "1000," * MANY + "1]"),
    "a long datatype": part(b"[1]", "D" * MANY),
    "unknown keys": b'{"inputs":[],"x":[' + b"[1]," * MANY + b"1]}",
}  # fmt: skip


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("packed", [b"gzip", b"deflate", None])
def test_a_body_costs_less_than_a_hundred_times_itself(body, packed):
    sent = content.pack(body, packed) if packed else body
    codec.decode_request([], message(), ())  # what is read once stays
    tracemalloc.start()
    try:
        plain = sent if not packed else content.unpack(sent, packed, LIMIT)
        codec.decode_request([], plain, (), decoded_bound(len(sent), LIMIT))
        said = ""
    except (BadRequest, TooLarge) as error:
        said = error.message
    finally:
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most_bytes < max(100 * len(sent), 4 << 20)
    assert len(said) < 2000


def test_texts_outside_the_json_are_bounded_by_their_number():
    head = message({"name": "x", "shape": [300_000], "datatype": "BYTES",
                    "parameters": {"binary_data_size": 1_200_000}})  # fmt: skip
    body = head + bytes(1_200_000)
    bound = decoded_bound(len(body), LIMIT)
    for _ in range(2):  # the second time its head is known
        with pytest.raises(TooLarge, match=r"'x' of shape \[300000\].* 16777216 .*body_bytes"):
            binary_codec.decode_request(body, len(head), bound)


def test_a_binary_body_as_long_as_bodies_may_be_is_taken():
    head = message({"name": "x", "shape": [4_194_000], "datatype": "FP32",
                    "parameters": {"binary_data_size": 16_776_000}})  # fmt: skip
    body = head + bytes(16_776_000)
    request = binary_codec.decode_request(body, len(head), decoded_bound(len(body), LIMIT))
    assert request.inputs[0].shape == (4_194_000,)


def test_a_bound_says_where_it_comes_from():
    assert unpacked_bound(1, LIMIT).size_bytes == 64 << 10
    with pytest.raises(TooLarge, match="12 times the packed body; send it unpacked"):
        content.unpack(gzip.compress(bytes(1 << 20)), b"gzip", LIMIT)
    with pytest.raises(TooLarge, match="body_bytes"):
        content.unpack(gzip.compress(bytes(2000)), b"gzip", 1000)
