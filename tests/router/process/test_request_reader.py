"""Requests do not depend on how their bytes were cut."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.process.limits import Limits, Room
from router.process.request_head import Refusal, read_target
from router.process.request_reader import RequestReader

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
    reader = RequestReader(Limits(), lambda: 0.0, "peer", Room())
    for cut in [*cuts, len(stream)]:
        part, stream = stream[:cut], stream[cut:]
        while part:
            taken = reader.feed(part)
            assert taken > 0
            part = part[taken:]
    assert [(r.request.method.encode(), r.request.body) for r in reader.requests] == [
        (method, body) for method, _, body, _ in requests
    ]
    for received, (_, fields, _, _) in zip(reader.requests, requests, strict=True):
        found = list(received.request.headers)
        assert [f for f in found if f[0].startswith(b"x-")] == [
            (name.lower(), value) for name, value in fields
        ]


@given(st.binary(max_size=300))
def test_whatever_comes_it_is_requests_or_a_refusal(data):
    reader = RequestReader(Limits(), lambda: 0.0, "peer", Room())
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
