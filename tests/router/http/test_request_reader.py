"""Requests do not depend on how their bytes were cut."""

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isochrone.router.http.known_heads import KnownHeads
from isochrone.router.http.limits import Limits, Room
from isochrone.router.http.request_head import Refusal, read_target
from isochrone.router.http.request_reader import RequestReader

_TOKENS = st.text("abcXYZ-", min_size=1, max_size=8).map(lambda t: f"x-{t}".encode())
_VALUES = st.text("abc \t,;=é", max_size=20).map(lambda t: t.strip().encode("latin-1"))
_BODIES = st.binary(max_size=9000)
_REQUESTS = st.tuples(
    st.sampled_from([b"GET", b"POST", b"PUT"]),
    st.lists(st.tuples(_TOKENS, _VALUES), max_size=4),
    _BODIES,
    st.sampled_from(["length", "chunks", "upgrade"]),
)


def written(method, fields, body, framing):
    head = b"%b /a?b HTTP/1.1\r\nHost: a\r\n" % method
    head += b"".join(b"%b: %b\r\n" % field for field in fields)
    if framing == "chunks":
        parts = [body[i : i + 1000] for i in range(0, len(body), 1000)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    if framing == "upgrade":
        head += b"Connection: upgrade\r\nUpgrade: h2c\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@given(st.lists(_REQUESTS, min_size=1, max_size=5), st.lists(st.integers(1, 6000), max_size=40))
def test_however_cut_the_requests_are_the_same(requests, cuts):
    stream = b"".join(written(*request) for request in requests)
    reader = RequestReader(Limits(), lambda: 0.0, "peer", Room(1 << 20), KnownHeads())
    for cut in [*cuts, len(stream)]:
        part, stream = stream[:cut], stream[cut:]
        while part:
            taken = reader.feed(part)
            assert taken > 0
            part = part[taken:]
    assert [(r.method.encode(), r.body) for r in reader.requests] == [
        (method, body) for method, _, body, _ in requests
    ]
    for request, (_, fields, _, _) in zip(reader.requests, requests, strict=True):
        found = list(request.headers)
        assert [f for f in found if f[0].startswith(b"x-")] == [
            (name.lower(), value) for name, value in fields
        ]


_HEADS = [
    b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n",
    b"\r\n\r\nPOST /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n",
    b"POST /a HTTP/1.1\nhost: a\ncontent-length: %d\n\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n",
    b"POST /a HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: %d\r\n\r\n",
    (
        b"POST /a HTTP/1.1\r\nhost: a\r\nupgrade: x\r\nconnection: upgrade\r\n"
        b"content-length: %d\r\n\r\n"
    ),
    b"POST /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\n\r\n",
]
_PIECES = [
    *(head % length for head in _HEADS for length in (0, 4, 6)),
    *(b"%x\r\n%b\r\n" % (len(text), text) for text in (b"ab", b"GET ")),
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    b"body", b"\r\n\r\n", b"x", b"0\r\n\r\n", b"12\r\n\r\n",
]  # fmt: skip


def fed(parts, heads=None):
    """What a reader makes of these, one after another, each whole."""
    heads = heads or KnownHeads()
    reader = RequestReader(Limits(body_bytes=1000), lambda: 0.0, "peer", Room(1 << 20), heads)
    refusal = None
    try:
        for part in parts:
            rest = part
            while rest:
                rest = rest[reader.feed(rest) :]
    except Refusal as refused:
        refusal = refused.message
    return list(reader.requests), refusal, reader.held_bytes, reader.stage, reader.waits


@settings(max_examples=500)
@given(st.lists(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=3), max_size=8))
@example([[_HEADS[0] % 4, b"0\r\n\r\n"]] * 2)  # one byte after the body, which is passed over
def test_a_head_that_is_known_is_read_like_one_that_is_new(blobs):
    whole = [b"".join(pieces) for pieces in blobs]
    cut = [part for blob in whole for part in (blob[:1], blob[1:])]  # none is recognised
    heads = KnownHeads()
    assert fed(whole, heads) == fed(cut)
    assert fed(whole, heads) == fed(cut), "what one connection taught another"


def read(heads, body, head=_HEADS[0], peer="peer"):
    reader = RequestReader(Limits(), lambda: 0.0, peer, Room(1 << 20), heads)
    assert reader.feed(head % 4 + body) == len(head % 4 + body)
    return reader.requests[0]


def test_a_head_that_comes_again_from_whomever_is_not_parsed_again():
    heads = KnownHeads()
    first, *others = (read(heads, body, peer=body[:1]) for body in (b"body", b"BODY", b"\r\n\r\n"))
    assert [one.body for one in others] == [b"BODY", b"\r\n\r\n"]
    assert [one.peer for one in others] == [b"B", b"\r"]
    assert all(one.headers is first.headers for one in others)
    assert others[1].header(b"host") == b"a"


def test_the_body_of_a_known_head_is_not_copied():
    heads = KnownHeads()
    head, body = _HEADS[0] % 70_000, bytes(70_000)
    reader = RequestReader(Limits(), lambda: 0.0, "peer", Room(1 << 20), heads)
    for data in (head + body[:60_000], body[60_000:], head, body):
        assert reader.feed(data) == len(data)
    first, second = reader.requests
    assert first.body == body
    assert second.body is body
    assert second.headers is first.headers
    assert reader.held_bytes == 140_000


def test_a_known_head_whose_body_is_refused_has_its_request_id():
    reader = RequestReader(Limits(), lambda: 0.0, "peer", Room(1000), KnownHeads())
    head = b"POST / HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\ncontent-length: 600\r\n\r\n"
    for data in (head, bytes(600), head):
        reader.feed(data)
    with pytest.raises(Refusal):
        reader.feed(bytes(600))
    assert reader.request_id == b"mine"


def test_what_is_read_of_a_known_head_is_read_once():
    heads = KnownHeads()
    seen: list[object] = []
    for body in (b"body", b"BODY"):
        assert read(heads, body).of_head(len) == 2
        assert read(heads, body).of_head(seen.append) is None
    assert len(seen) == 1


def test_so_many_heads_are_known_and_no_more():
    heads = KnownHeads()
    first = read(heads, b"body")
    for number in range(256):
        read(
            heads,
            b"body",
            head=b"POST /%d HTTP/1.1\r\nhost: a\r\ncontent-length: %%d\r\n\r\n" % number,
        )
    assert read(heads, b"body").headers is not first.headers


def test_a_head_that_comes_now_and_then_stays_known():
    heads = KnownHeads()
    first = read(heads, b"body")
    for number in range(1000):
        read(heads, b"body", _HEADS[0].replace(b"/a", b"/%d" % number))
        assert read(heads, b"body").headers is first.headers


@given(st.binary(max_size=300))
def test_whatever_comes_it_is_requests_or_a_refusal(data):
    reader = RequestReader(Limits(), lambda: 0.0, "peer", Room(1 << 20), KnownHeads())
    with suppress(Refusal):
        while data:
            data = data[reader.feed(data) :]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a%20b/%C3%A9?x=%2f&y", "/a b/é", "x=%2f&y"),
        (b"/a?b?c", "/a", "b?c"),
        (b"http://host:1/a?b", "/a", "b"),
        (b"HTTP://host", "/", ""),
        (b"http://host?q", "/", "q"),
        (b"//a/b", "//a/b", ""),
        (b"/.a/..b/c.", "/.a/..b/c.", ""),
        (b"/a%25b", "/a%b", ""),
    ],
)
def test_a_target_is_read(target, path, query):
    assert read_target("GET", target) == (path, query)


def test_only_options_asks_of_the_server_as_a_whole():
    assert read_target("OPTIONS", b"*") == ("*", "")
    with pytest.raises(Refusal):
        read_target("GET", b"*")


@pytest.mark.parametrize(
    "target",
    [b"/a%2fb", b"/a%2Fb", b"/%00", b"/a%0d%0ab", b"/%7f", b"/%c3", b"/..", b"/a/./b", b"/%2e%2e",
     b"a", b"ftp://a/b", b"/a b", b"/a\x80", b"/a#b", b""],
)  # fmt: skip  # one thing that is wrong each
def test_a_target_is_refused(target):
    with pytest.raises(Refusal):
        read_target("GET", target)
