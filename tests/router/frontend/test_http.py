"""HTTP as clients, caches and proxies use it: HEAD, conditions, credentials, addresses."""

import pytest

from isochrone.router.wire.report import ModelState

INFER = "/v2/models/digits/infer"
READ = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/digits"]


@pytest.mark.parametrize("path", [*READ, "/v2/models/digits/ready", "/v2/models/digits/versions/1"])
async def test_head_is_where_get_is(start_router, start_endpoint, path):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    status, _, fields = await router.call("GET", path)
    assert status == 200
    head_status, body, head_fields = await router.call("HEAD", path)
    assert (head_status, body) == (200, {})
    for name in ("content-type", "content-length"):
        assert head_fields[name] == fields[name]


@pytest.mark.parametrize(
    ("path", "allow"), [("/v2", "GET, HEAD"), ("/v2/models/digits", "GET, HEAD"), (INFER, "POST")]
)
async def test_other_methods_are_told_which_are_taken(start_router, start_endpoint, path, allow):
    router = await start_router(await start_endpoint("edge"))
    status, _, fields = await router.call("PUT", path)
    assert (status, fields["allow"]) == (405, allow)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("if-none-match", '"a"'),
        ("if-match", '"a"'),
        ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("if-unmodified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("if-range", '"a"'),
        ("range", "bytes=0-1"),
    ],
)
async def test_a_condition_is_no_endpoints_concern(start_router, start_endpoint, name, value):
    edge = await start_endpoint("edge")

    def conditional(exchange):
        if exchange.request.header(name.encode()) is None:
            edge.answer(exchange)
        else:
            exchange.respond(304, [(b"etag", b'"a"')], b"")

    edge.behave = conditional
    router = await start_router(edge)
    for _ in range(5):
        assert (await router.call("GET", "/v2/models/digits", **{name: value}))[0] == 200
    assert router.router.core.ledger.site("edge").out is None


async def test_an_unknown_key_is_told_how_to_show_one(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    status, _, fields = await router.infer(x_api_key="unknown")
    assert (status, fields["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("bearer", "key", "status"),
    [
        pytest.param("acme-key", "acme-key", 200, id="one tenant"),
        pytest.param("acme-key", "small-key", 400, id="two tenants"),
        pytest.param("small-key", "acme-key", 400, id="two tenants, the other way"),
        pytest.param("acme-key", "unknown", 401, id="one is unknown"),
        pytest.param("unknown", "acme-key", 401, id="the other is unknown"),
    ],
)
async def test_two_credentials_name_one_tenant(start_router, start_endpoint, bearer, key, status):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    fields = {"authorization": f"Bearer {bearer}", "x_api_key": key}
    assert (await router.infer(**fields))[0] == status
    assert (await router.call("GET", "/v2/models", **fields))[0] == status
    assert len(edge.asked) == (status == 200)


@pytest.mark.parametrize(
    ("proxies", "known"),
    [
        pytest.param([], b"127.0.0.1", id="nobody is believed"),
        pytest.param(["127.0.0.0/8"], b"203.0.113.9", id="a listed proxy is believed"),
    ],
)
async def test_an_endpoint_is_told_the_address_that_is_known(
    start_router, start_endpoint, proxies, known
):
    edge = await start_endpoint("edge")
    router = await start_router(edge, trusted_proxies=proxies)
    claims = {"x_forwarded_for": "198.51.100.1, 203.0.113.9", "x_real_ip": "198.51.100.1"}
    assert (await router.infer(**claims, forwarded="for=198.51.100.1"))[0] == 200
    (asked,) = edge.asked
    assert asked[b"x-forwarded-for"] == known
    assert b"forwarded" not in asked
    assert b"x-real-ip" not in asked


async def test_metadata_of_a_cold_model_is_answered_and_wakes_nothing(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    edge.state = ModelState.COLD
    edge.behave = lambda exchange: exchange.respond(200, [], b'{"served_by": "edge"}')
    router = await start_router(edge)
    for timeout in ("0.2", "30"):  # a load takes 0.5 s
        status, told, _ = await router.call(
            "GET", "/v2/models/digits", x_request_timeout_seconds=timeout
        )
        assert (status, told["served_by"]) == (200, "edge")
    assert edge.wakes == 0
    assert router.router.core.ledger.site("edge").holdings["digits", "1"].state is ModelState.COLD
