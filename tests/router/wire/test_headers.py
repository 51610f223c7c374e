"""Our own header fields: what is read, what is refused."""

import pytest

from isochrone.router.errors import BadRequest
from isochrone.router.wire.headers import read_call_headers


def test_nothing_said():
    read = read_call_headers([])
    assert (read.request_id, read.timeout_s, read.priority, read.key) == (None, 30.0, 5, None)
    assert (read.regions, read.data_class) == (None, None)


def test_everything_said():
    read = read_call_headers(
        [
            (b"x-request-id", b"abc-1.2_3"),
            (b"x-request-timeout-seconds", b"0.25"),
            (b"x-isochrone-priority", b"1"),
            (b"x-isochrone-regions", b"eu-west, eu-central"),
            (b"x-isochrone-data-class", b"health"),
            (b"authorization", b"bearer  k1"),
            (b"x-api-key", b"k2"),
        ]
    )
    assert (read.request_id, read.timeout_s, read.priority, read.key) == (
        "abc-1.2_3",
        0.25,
        1,
        "k1",
    )
    assert read.regions == frozenset({"eu-west", "eu-central"})
    assert read.data_class == "health"


def test_a_deadline_is_capped():
    assert read_call_headers([(b"x-request-timeout-seconds", b"1e9")]).timeout_s == 300.0


@pytest.mark.parametrize(
    "name",
    ["x-request-id", "x-isochrone-regions", "x-isochrone-data-class", "x-api-key", "authorization"],
)
def test_a_field_of_ours_that_stands_there_twice_is_refused(name):
    with pytest.raises(BadRequest, match=f"{name} stands there twice"):
        read_call_headers([(name.encode(), b"Bearer a"), (name.encode(), b"Bearer b")])


@pytest.mark.parametrize("value", [b"", b"a b", "é".encode(), b"a" * 65, b"Root=1-67", b"a\n"])
def test_an_unusable_request_id_is_replaced(value):
    assert read_call_headers([(b"x-request-id", value)]).request_id is None


REFUSED = [
    (b"x-request-timeout-seconds", b"0"),
    (b"x-request-timeout-seconds", b"-1"),
    (b"x-request-timeout-seconds", b"nan"),
    (b"x-request-timeout-seconds", b"soon"),
    (b"x-isochrone-priority", b"0"),
    (b"x-isochrone-priority", b"10"),
    (b"x-isochrone-priority", b"high"),
    (b"x-isochrone-regions", b""),
    (b"x-isochrone-regions", b"eu-west,,"),
    (b"x-isochrone-regions", "eu-wést".encode()),
    (b"x-isochrone-data-class", "gesundheït".encode()),
    (b"authorization", b"Basic abc"),
    (b"authorization", b"Bearer"),
    (b"authorization", b"Bearer  "),
    (b"x-api-key", "ключ".encode()),
]


@pytest.mark.parametrize("field", REFUSED, ids=lambda f: f"{f[0].decode()}={f[1]!r}")
def test_what_is_refused(field):
    with pytest.raises(BadRequest, match=field[0].decode()):
        read_call_headers([field])
