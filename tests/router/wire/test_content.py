"""Bodies are unpacked within a bound, whatever they claim to be, and packed where it pays."""

import gzip
import zlib
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import BadRequest, TooLarge
from isochrone.router.wire import content


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
@given(body=st.binary(max_size=5000))
def test_packing_and_unpacking_is_the_identity(encoding, body):
    assert content.unpack(content.pack(body, encoding), encoding, 5000) == body


def test_what_other_tools_pack_is_unpacked():
    assert content.unpack(gzip.compress(b"abc"), b" GZIP ", 9) == b"abc"
    assert content.unpack(zlib.compress(b"abc"), b"deflate", 9) == b"abc"


LONG = Random(1).randbytes(70_000)


@given(st.lists(st.binary(max_size=300) | st.just(LONG), min_size=1, max_size=9))
def test_a_gzip_body_may_have_several_members(members):
    body = b"".join(map(gzip.compress, members))
    assert content.unpack(body, b"gzip", 1 << 20) == b"".join(members)


def test_members_count_together():
    body = gzip.compress(bytes(400)) * 3
    assert content.unpack(body, b"gzip", 1200) == bytes(1200)
    with pytest.raises(TooLarge, match="1199 bytes"):
        content.unpack(body, b"gzip", 1199)


def test_there_are_not_any_number_of_members():
    member = gzip.compress(b"")
    assert content.unpack(member * content.MEMBERS, b"gzip", 9) == b""
    with pytest.raises(BadRequest, match="more follows"):
        content.unpack(member * (content.MEMBERS + 1), b"gzip", 9)


def test_a_bomb_stops_at_the_limit():
    bomb = gzip.compress(b"\0" * (64 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge, match="1000 bytes"):
        content.unpack(bomb, b"gzip", 1000)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(b"rubbish", b"gzip", id="rubbish"),
        pytest.param(gzip.compress(b"abc")[:-3], b"gzip", id="cut"),
        pytest.param(gzip.compress(b"abc") + b"x", b"gzip", id="followed_by_more"),
        pytest.param(gzip.compress(b"abc") * 2 + b"x", b"gzip", id="members_and_more"),
        pytest.param((gzip.compress(b"abc") * 2)[:-3], b"gzip", id="second_member_cut"),
        pytest.param(b"", b"gzip", id="empty"),
        pytest.param(zlib.compress(b"abc") * 2, b"deflate", id="deflate_has_no_members"),
        pytest.param(gzip.compress(b"abc"), b"deflate", id="another_container"),
        pytest.param(b"abc", b"br", id="unknown_encoding"),
        pytest.param(b"abc", b"gzip, gzip", id="several_encodings"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_a_bad_request(body, encoding):
    with pytest.raises(BadRequest):
        content.unpack(body, encoding, 1000)


@given(st.binary(max_size=100), st.sampled_from([b"gzip", b"deflate", b"br", b""]))
def test_no_bytes_do_more_than_refuse(body, encoding):
    with suppress(BadRequest, TooLarge):
        content.unpack(body, encoding, 50)


@pytest.mark.parametrize(
    ("accept", "size", "chosen"),
    [
        pytest.param(None, 9999, None, id="not_asked"),
        pytest.param(b"gzip", 10, None, id="too_small_to_pay"),
        pytest.param(b"gzip, deflate, br", 9999, b"gzip", id="gzip_first"),
        pytest.param(b"deflate", 9999, b"deflate", id="only_deflate"),
        pytest.param(b"gzip;q=0.2, deflate;q=0.9", 9999, b"deflate", id="by_quality"),
        pytest.param(b"gzip;q=0", 9999, None, id="refused"),
        pytest.param(b"*", 9999, b"gzip", id="anything"),
        pytest.param(b"br, identity", 9999, None, id="none_of_ours"),
        pytest.param(b"gzip;q=rubbish,;=,", 9999, None, id="rubbish"),
    ],
)
def test_the_answers_encoding_is_the_clients_choice(accept, size, chosen):
    assert content.choose(accept, size) == chosen
