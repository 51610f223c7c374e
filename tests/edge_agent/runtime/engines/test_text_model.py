"""Writing text a piece at a time, with a model that was counted from real text."""

import json
import string
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.deploy.demo.prose import PROSE, write_prose
from isochrone.edge_agent.runtime.engines.text_model import _pick, _Pieces
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.errors import BadRequest
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Tensor


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_prose(tmp_path_factory.mktemp("store"))


@pytest.fixture
async def write(package):
    """Continue a text; the pieces."""
    pool = Pool([package])

    async def written(text, **parameters):
        data = np.array([text if isinstance(text, bytes) else text.encode()], object)
        request = InferRequest(
            (Tensor("text_input", "BYTES", data),), id="t", parameters=parameters
        )
        return [part async for part in pool.request(PROSE, None, request)]

    yield written
    await pool.close()


def _text(parts):
    return b"".join(part.outputs[0].data[0] for part in parts).decode()


async def test_pieces_come_one_by_one_and_the_last_says_why_it_is_the_last(write):
    parts = await write("The ", max_tokens=12)
    assert len(parts) == len(_text(parts)) == 12
    assert [part.parameters for part in parts] == [{}] * 11 + [{"finish_reason": "length"}]
    assert {(part.model_name, part.model_version, part.id) for part in parts} == {
        ("prose", "1", "t")
    }
    assert {part.outputs[0].shape for part in parts} == {(1,)}


async def test_twenty_tokens_where_nothing_is_said(write):
    assert len(await write("The ")) == 20


async def test_as_many_stops_as_may_be(write):
    stops = ["x" * 256, *(["never"] * 15)]
    assert len(await write("The ", stop=json.dumps(stops), max_tokens=2))


async def test_a_model_that_writes_less_writes_that_where_nothing_is_said(package):
    generate = msgspec.structs.replace(package.manifest.generate, max_tokens=5)
    manifest = msgspec.structs.replace(package.manifest, generate=generate)
    pool = Pool([type(package)(package.path, manifest)])
    tensor = Tensor("text_input", "BYTES", np.array([b"The "], object))
    assert len([part async for part in pool.request(PROSE, None, InferRequest((tensor,)))]) == 5
    await pool.close()


async def test_greedy_and_seeded_writing_can_be_repeated(write):
    async def one(**parameters):
        return _text(await write("The ", max_tokens=60, **parameters))

    assert await one(temperature=0) == await one(temperature=0, seed=9)
    assert await one(temperature=0) == await one(temperature=1e-300)
    assert await one(seed=1) == await one(seed=1)
    assert await one(seed=1) != await one(seed=2)


async def test_it_writes_what_its_text_has_taught_it(write):
    text = _text(await write("th", max_tokens=40, temperature=0))
    assert set(text) <= set(string.printable)
    assert text.startswith("e ")


@pytest.mark.parametrize("prompt", ["", "a", "\n"])
async def test_a_short_prompt_is_filled_up(write, prompt):
    assert len(await write(prompt, max_tokens=3)) == 3


async def test_a_stop_ends_the_answer_and_is_not_part_of_it(write):
    whole = _text(await write("The ", max_tokens=200, temperature=0))
    stop = whole[5:8]
    for given_stop in (stop, json.dumps(["never", stop])):
        parts = await write("The ", max_tokens=200, temperature=0, stop=given_stop)
        assert _text(parts) == whole[: whole.index(stop)]
        assert parts[-1].parameters == {"finish_reason": "stop_sequence"}


@pytest.mark.parametrize(
    ("text", "parameters", "says"),
    [
        pytest.param("é", {}, "does not know 'é'", id="a character outside the alphabet"),
        pytest.param(b"\xff", {}, "UTF-8", id="no text"),
        pytest.param("a", {"max_tokens": 0}, "max_tokens", id="no tokens"),
        pytest.param("a", {"max_tokens": 1025}, "at most 1024", id="too many tokens"),
        pytest.param("a", {"max_tokens": 2.5}, "max_tokens", id="half a token"),
        pytest.param("a", {"temperature": -1.0}, "temperature", id="below zero"),
        pytest.param("a", {"temperature": True}, "temperature", id="no number"),
        pytest.param("a", {"stop": 3}, "stop", id="stop is no text"),
        pytest.param("a", {"stop": "[3]"}, "stop", id="stop lists no texts"),
        pytest.param("a", {"stop": json.dumps(["x"] * 17)}, "at most 16", id="too many stops"),
        pytest.param("a", {"stop": "x" * 257}, "256 characters", id="too long a stop"),
        pytest.param("a", {"temperature": 10**400}, "temperature", id="beyond all numbers"),
    ],
)
async def test_what_cannot_be_written_is_refused(write, text, parameters, says):
    with pytest.raises(BadRequest, match=says):
        await write(text, **parameters)


async def test_parameters_of_others_are_left_alone(write):
    assert len(await write("a", max_tokens=2, timeout=5, details=True, top_p=0.5)) == 2


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_pieces_are_the_text_before_the_first_stop(text, stops):
    pieces = _Pieces(tuple(stops))
    given_out = ""
    for character in text:
        given_out += pieces.take(character)
        if pieces.stopped:
            break
    else:
        given_out += pieces.rest()
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stops)]
    assert pieces.stopped == bool(ends)
    if not ends:
        assert given_out == text
    else:
        longest_first = next(s for s in stops if text[: ends[0]].endswith(s))
        assert given_out == text[: ends[0] - len(longest_first)]


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=8),
    st.floats(0, 1e6),
    st.randoms(use_true_random=False),
)
def test_a_token_is_always_one_of_the_alphabet(logits, temperature, chance):
    assert 0 <= _pick(np.array(logits, np.float32), temperature, chance) < len(logits)


def test_top_p_draws_from_the_likeliest_tokens_only():
    logits = np.log(np.array([0.1, 0.5, 0.3, 0.1], np.float32))
    drawn = {
        share: {_pick(logits, 1.0, Random(seed), share) for seed in range(200)}
        for share in (0.0, 0.45, 0.55, 0.75, 0.85, 1.0)
    }
    assert drawn[0.0] == drawn[0.45] == {1}
    assert drawn[0.55] == drawn[0.75] == {1, 2}
    assert drawn[0.85] == {0, 1, 2}
    assert drawn[1.0] == {0, 1, 2, 3}
