import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.loading.made_up import (
    TOP_IDS,
    Sizes,
    arrays,
    has_ids,
    scaled,
    shapes,
    shortened,
)
from isochrone.router.wire.tensor import DATATYPES, TensorSpec, datatype_of, fits

BERT = (
    TensorSpec("input_ids", "INT64", (-1, -1)),
    TensorSpec("attention_mask", "INT64", (-1, -1)),
    TensorSpec("token_type_ids", "INT64", (-1, -1)),
    TensorSpec("position_ids", "INT64", (-1, -1)),
)
VAD = (
    TensorSpec("input", "FP32", (-1, -1)),
    TensorSpec("state", "FP32", (2, -1, 128)),
    TensorSpec("sr", "INT64", ()),
)


def made(specs, sizes=None, seed=0, **more):
    return arrays(specs, shapes(specs, sizes or Sizes()), np.random.default_rng(seed), **more)


def test_a_text_encoder_gets_ids_in_range_and_a_mask_that_hides_nothing():
    given_ = made(BERT, Sizes(rows=3, rest=40), top_id=50)
    assert {array.shape for array in given_.values()} == {(3, 40)}
    assert len(set(given_["input_ids"].ravel().tolist())) > 20
    assert given_["input_ids"].min() >= 0
    assert given_["input_ids"].max() <= 50
    assert (given_["attention_mask"] == 1).all()
    assert (given_["token_type_ids"] == 0).all()
    assert (given_["position_ids"] == np.arange(40)).all()


def test_a_rate_is_one_and_open_dimensions_of_a_state_follow():
    given_ = made(VAD, Sizes(rows=2, rest=512, named={}))
    assert given_["sr"].shape == ()
    assert given_["sr"] == 16000
    assert given_["input"].shape == (2, 512)


def test_names_of_dimensions_go_before_places():
    names = {"input": ("batch", "time"), "state": ("", "batch", "")}
    sizes = Sizes(rows=1, rest=16, named={"batch": 4, "time": 300})
    assert shapes(VAD, sizes, names) == {"input": (4, 300), "state": (2, 4, 128), "sr": ()}


def test_a_length_is_the_open_size():
    specs = (TensorSpec("audio", "FP32", (-1, -1, 80)), TensorSpec("audio_lengths", "INT64", (-1,)))
    given_ = made(specs, Sizes(rows=2, rest=37))
    assert given_["audio_lengths"].tolist() == [37, 37]


@pytest.mark.parametrize(
    ("spec", "least", "most"),
    [
        (TensorSpec("x", "FP32", (-1, 3, -1, -1)), 0, 1),
        (TensorSpec("x", "FP32", (-1, 1, 28, 28)), 0, 1),
        (TensorSpec("image", "UINT8", (-1, -1, 3)), 0, 255),
        (TensorSpec("pixel_values", "FP16", (-1, 32, 32, 3)), 0, 1),
    ],
)
def test_pictures_lie_between_black_and_white(spec, least, most):
    picture = made((spec,), Sizes(rest=32))[spec.name].astype(float)
    assert picture.min() >= least
    assert picture.max() <= most
    assert picture.std() > 0.2 * most


def test_texts_differ():
    texts = made((TensorSpec("text", "BYTES", (-1,)),), Sizes(rows=20))["text"].tolist()
    assert len(set(texts)) > 10
    assert all(text.decode() for text in texts)


def test_ids_are_told_from_what_no_table_bounds():
    assert has_ids(BERT)
    assert not has_ids(VAD)


@given(
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.sampled_from([-1, 0, 1, 3, 5]), max_size=4),
    st.sampled_from(["x", "mask", "sr", "lengths", "image", "ids", "segment_ids", "position_ids"]),
    st.sampled_from(TOP_IDS),
    st.integers(0, 5),
)
def test_whatever_is_declared_comes_out(datatype, shape, name, top_id, seed):
    spec = TensorSpec(name, datatype, tuple(shape))
    array = made((spec,), Sizes(rows=2, rest=3), seed, top_id=top_id)[name]
    assert fits(spec, array.shape)
    assert datatype_of(array) == ("UINT16" if datatype == "BF16" else datatype)
    again = made((spec,), Sizes(rows=2, rest=3), seed, top_id=top_id)[name]
    assert array.tolist() == again.tolist()


TEXT = (TensorSpec("input_ids", "INT64", (-1, -1)), TensorSpec("attention_mask", "INT64", (-1, -1)))


@pytest.mark.parametrize("fill", [0, 1])
def test_what_is_shortened_ends_in_padding_where_its_mask_ends(fill):
    chance = np.random.default_rng(1)
    made = arrays(TEXT, {spec.name: (1, 20) for spec in TEXT}, chance, 1000)
    made["input_ids"] = np.add(made["input_ids"], 2)
    cut = shortened(TEXT, made, chance, fill)
    length = int(cut["attention_mask"].sum())
    assert 4 <= length <= 16
    np.testing.assert_array_equal(cut["input_ids"][:, :length], made["input_ids"][:, :length])
    assert (cut["input_ids"][:, length:] == fill).all()
    assert not cut["attention_mask"][:, length:].any()


def test_numbers_are_scaled_up_pictures_and_ids_down_and_masks_not_at_all():
    specs = (
        *TEXT,
        TensorSpec("x", "FP32", (-1, 8)),
        TensorSpec("image", "UINT8", (-1, 3, 8, 8)),
    )
    sizes = {"x": (1, 8), "image": (1, 3, 8, 8), "input_ids": (1, 8), "attention_mask": (1, 8)}
    made = arrays(specs, sizes, np.random.default_rng(1), 1000)
    found = scaled(specs, made, 10)
    assert np.allclose(found["x"], np.multiply(made["x"], 10))
    assert found["x"].dtype == np.float32
    assert 20 <= int(found["image"].max()) <= 25
    np.testing.assert_array_equal(found["input_ids"], made["input_ids"] // 10)
    np.testing.assert_array_equal(found["attention_mask"], made["attention_mask"])
