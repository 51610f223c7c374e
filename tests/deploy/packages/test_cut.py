"""Structured pruning on plain arrays: what stays, and that the rest never knew of what went."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.deploy.packages.cut import Axis, Joint, cut, unread
from isochrone.deploy.packages.cut_layers import joints, resized
from isochrone.edge_agent.runtime.package.manifest import (
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Relu,
    Softmax,
)

WIDTHS = st.lists(st.integers(1, 9), min_size=3, max_size=5)


def _dense(widths, seed):
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    layers: list[Layer] = []
    for inputs, outputs in pairwise(widths):
        place = len(layers)
        arrays[f"{place}.weight"] = rng.normal(size=(outputs, inputs))
        arrays[f"{place}.bias"] = rng.normal(size=outputs)
        layers += [Linear(inputs=inputs, outputs=outputs), Relu()]
    return tuple(layers[:-1]), arrays


def _answers(arrays, layers, data):
    for place in range(0, len(layers), 2):
        data = data @ arrays[f"{place}.weight"].T + arrays[f"{place}.bias"]
        if place < len(layers) - 1:
            data = np.maximum(data, 0)
    return data


@given(WIDTHS, st.floats(0.05, 0.95), st.sampled_from(["l1", "l2"]), st.integers(0, 99))
def test_a_cut_network_is_the_whole_one_without_what_nobody_reads(widths, share, norm, seed):
    layers, arrays = _dense(widths, seed)
    found, left = joints(layers)
    assert not left
    smaller = cut(arrays, found, share, norm)
    data = np.random.default_rng(seed).normal(size=(3, widths[0]))
    whole = _answers(unread(arrays, found, share, norm), layers, data)
    assert np.allclose(_answers(smaller, layers, data), whole)
    sizes = [
        (one.inputs, one.outputs) for one in resized(layers, smaller) if isinstance(one, Linear)
    ]
    assert [first for _, first in sizes[:-1]] == [second for second, _ in sizes[1:]]
    assert (sizes[0][0], sizes[-1][1]) == (widths[0], widths[-1])
    for old, (_, new) in zip(widths[1:-1], sizes[:-1], strict=True):
        assert new == max(1, round(old * (1 - share)))


@pytest.mark.parametrize(("norm", "kept"), [("l1", [1]), ("l2", [0])])
def test_the_weakest_go_by_the_norm_that_was_asked_for(norm, kept):
    arrays = {"w": np.array([[3.0, 0.0], [2.0, 2.0]]), "v": np.eye(2)}
    if norm == "l2":
        arrays["w"][1] = [1.9, 1.9]
    joint = Joint("one", Axis("w", 0), (), Axis("v", 1))
    assert np.array_equal(cut(arrays, [joint], 0.5, norm)["v"], np.eye(2)[:, kept])


def test_a_channel_takes_its_whole_square_along():
    layers = (
        Conv2d(inputs=1, outputs=2, kernel=3, padding=1),
        MaxPool2d(kernel=2),
        Flatten(),
        Linear(inputs=8, outputs=3),
    )
    (joint,), _ = joints(layers)
    arrays = {
        "0.weight": np.stack([np.full((1, 3, 3), 0.1), np.ones((1, 3, 3))]),
        "0.bias": np.array([5.0, 6.0]),
        "3.weight": np.tile(np.arange(8), (3, 1)),
        "3.bias": np.zeros(3),
    }
    smaller = cut(arrays, [joint], 0.5, "l1")
    assert smaller["0.bias"].tolist() == [6.0]
    assert smaller["3.weight"].tolist() == [[4, 5, 6, 7]] * 3
    assert resized(layers, smaller)[3] == Linear(inputs=4, outputs=3)


@pytest.mark.parametrize(
    ("between", "reader", "says"),
    [
        pytest.param((Softmax(),), Linear(inputs=8, outputs=2), "softmax", id="a softmax inside"),
        pytest.param((), Linear(inputs=8, outputs=2), "one by one", id="images without a flatten"),
        pytest.param(
            (Flatten(),), Linear(inputs=9, outputs=2), "one by one", id="sizes that do not divide"
        ),
    ],
)
def test_what_cannot_be_followed_is_left_and_said(between, reader, says):
    found, left = joints((Conv2d(inputs=1, outputs=4, kernel=1), *between, reader))
    assert not found
    assert says in left[0]
