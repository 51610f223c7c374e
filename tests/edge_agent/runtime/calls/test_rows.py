"""Requests become one and are taken apart again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.calls.rows import by_rows, rows_of, split, stacked
from isochrone.router.wire.tensor import Tensor, TensorSpec


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 3))
def test_what_is_stacked_is_split_again(counts, width):
    rng = np.random.default_rng(sum(counts))
    requests = [{"a": rng.random((n, width)), "b": rng.integers(0, 9, n)} for n in counts]
    together = stacked(requests)
    parts = split([Tensor(name, "FP64", data) for name, data in together.items()], counts)
    assert parts is not None
    for request, part in zip(requests, parts, strict=True):
        for name, tensor in zip(request, part, strict=True):
            assert tensor.name == name
            np.testing.assert_array_equal(tensor.data, request[name])


def test_texts_are_stacked_too():
    texts = [{"t": np.array([b"a"], object)}, {"t": np.array([b"bb", b""], object)}]
    assert stacked(texts)["t"].tolist() == [b"a", b"bb", b""]


def test_outputs_whose_rows_do_not_add_up_are_not_split():
    assert split([Tensor("a", "FP32", np.zeros((1, 2), np.float32))], [1, 1]) is None
    assert split([Tensor("a", "FP32", np.zeros((), np.float32))], [1, 1]) is None


def test_rows_are_those_that_all_inputs_have():
    assert rows_of({"a": np.zeros((3, 1)), "b": np.zeros(3)}) == 3
    assert rows_of({"a": np.zeros((3, 1)), "b": np.zeros(2)}) is None


def test_only_what_is_declared_with_any_number_of_rows_is_by_rows():
    assert by_rows([TensorSpec("a", "FP32", (-1, 3)), TensorSpec("b", "FP32", (-1,))])
    assert not by_rows([TensorSpec("a", "FP32", (-1, 3)), TensorSpec("b", "FP32", (1, -1))])
    assert not by_rows([TensorSpec("a", "FP32", ())])
