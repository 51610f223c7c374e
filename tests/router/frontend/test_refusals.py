"""What a router refuses, and how; and what it answers by itself."""

import asyncio
import json
from io import BytesIO
from itertools import cycle

import aiohttp
import pytest

from isochrone.router.process.clock import monotonic

INFER = "/v2/models/digits/infer"

REFUSALS = {
    "unknown model": ("POST", "/v2/models/nope/infer", {}, 404, "not_found"),
    "unknown version": ("POST", "/v2/models/digits/versions/9/infer", {}, 404, "not_found"),
    "known, held nowhere": ("POST", "/v2/models/configured/infer", {}, 503, "no_endpoint"),
    "non-ASCII model": ("POST", "/v2/models/%C3%A9/infer", {}, 400, "bad_request"),
    "unknown path": ("GET", "/v3", {}, 404, "not_found"),
    "unknown action": ("POST", "/v2/models/digits/config", {}, 404, "not_found"),
    "empty model": ("POST", "/v2/models//infer", {}, 404, "not_found"),
    "trailing slash": ("GET", "/v2/models/digits/", {}, 404, "not_found"),
    "wrong method": ("GET", INFER, {}, 405, "method_not_allowed"),
    "wrong method for health": ("POST", "/v2/health/live", {}, 405, "method_not_allowed"),
    "load": ("POST", "/v2/repository/models/digits/load", {}, 403, "forbidden"),
    "unknown key": ("POST", INFER, {"x-api-key": "who"}, 401, "unauthenticated"),
    "model not allowed": ("POST", INFER, {"x-api-key": "narrow-key"}, 403, "forbidden"),
    "bad priority": ("POST", INFER, {"x-isochrone-priority": "0"}, 400, "bad_request"),
    "bad deadline": ("POST", INFER, {"x-request-timeout-seconds": "x"}, 400, "bad_request"),
    "unknown region": ("POST", INFER, {"x-isochrone-regions": "mars"}, 400, "bad_request"),
    "unknown data class": ("POST", INFER, {"x-isochrone-data-class": "x"}, 400, "bad_request"),
    "data class not allowed": (
        "POST",
        INFER,
        {"x-isochrone-data-class": "health"},
        403,
        "forbidden",
    ),
    "nothing left by law": (
        "POST",
        INFER,
        {"x-api-key": "acme-key", "x-isochrone-regions": "us-east"},
        451,
        "unlawful",
    ),
}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"), REFUSALS.values(), ids=REFUSALS
)
async def test_refusals(start_router, start_endpoint, method, path, headers, status, code):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    got, body, fields = await router.call(method, path, **headers)
    assert (got, body["code"]) == (status, code)
    assert body["error"]
    assert fields["x-request-id"]
    assert ("allow" in fields) == (status == 405)
    assert edge.asked == []


async def test_a_body_over_the_limit_is_refused_before_it_is_read(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"), limits={"body_bytes": 1000})
    host, port = router.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n" % INFER.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    writer.close()


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/isochrone/measurements", 64 << 10),
        ("/isochrone/place", 64 << 10),
        ("/v2/repository/index", 64 << 10),
        ("/isochrone/agents", 1 << 20),
        ("/isochrone/journal", 64 << 10),
    ],
)
async def test_a_long_message_to_the_router_itself_is_not_decoded(
    start_router, start_endpoint, path, most
):
    router = await start_router(await start_endpoint("edge"))
    for length, expected in [(most, 400), (most + 1, 413)]:
        body = BytesIO(b"[" + b" " * (length - 1))
        status, told, fields = await router.call("POST", path, body, x_request_id="mine")
        assert (status, told["code"]) == (expected, {400: "bad_request", 413: "too_large"}[status])
        assert fields["x-request-id"] == "mine"


async def test_more_requests_than_the_limit_are_refused_at_once(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    edge.behave = lambda _: None
    router = await start_router(edge, in_flight=1)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(router.infer(x_request_timeout_seconds="0.3"))
        await router.settled(lambda: len(edge.asked) == 1)
        status, body, fields = await router.infer()
        assert (status, body["code"], fields["retry-after"]) == (503, "overloaded", "1")
    assert first.result()[0] == 504


async def test_what_the_router_says_of_itself(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    assert (await router.call("GET", "/v2/health/live"))[:2] == (200, {"live": True})
    assert (await router.call("GET", "/v2/health/ready"))[:2] == (
        200,
        {"ready": True, "live": True},
    )
    _, told, _ = await router.call("GET", "/v2")
    assert told["name"] == "isochrone"
    assert "binary_tensor_data" in told["extensions"]
    _, told, _ = await router.call("GET", "/v2/models")
    assert told["models"] == ["configured", "digits", "other"]
    _, index, _ = await router.call("POST", "/v2/repository/index")
    assert index == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]
    status, told, _ = await router.call("GET", "/v2/models/digits/ready")
    assert (status, told) == (200, {"name": "digits", "ready": True})
    status, told, _ = await router.call("GET", "/v2/models/configured/ready")
    assert (status, told) == (503, {"name": "configured", "ready": False})


async def test_a_draining_router_is_not_ready(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    router.router.readiness.draining = True
    assert (await router.call("GET", "/v2/health/ready"))[0] == 503
    assert (await router.call("GET", "/v2/health/live"))[0] == 200
    assert (await router.infer())[0] == 200


async def test_metadata_comes_from_an_endpoint(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    status, body, _ = await router.call("GET", "/v2/models/digits")
    assert (status, body["served_by"]) == (200, "edge")


async def test_place_orders_endpoints_by_the_clients_own_seconds(start_router, start_endpoint):
    eu, us = await start_endpoint("eu"), await start_endpoint("us", "us-east")
    router = await start_router(eu, us)
    asked = {"model": "digits", "client": "203.0.113.7"}
    _, told, _ = await router.call("POST", "/isochrone/place", asked)
    assert told["vantage"] == "client"
    assert [e["endpoint"] for e in told["endpoints"]] == ["us", "eu"]
    assert told["endpoints"][0]["url"] == us.url
    assert told["endpoints"][0]["seconds"]["net"] == pytest.approx(0.0149)
    assert told["endpoints"][1]["seconds"]["net"] > 0.09
    _, told, _ = await router.call("POST", "/isochrone/place", asked, x_api_key="acme-key")
    assert [(e["endpoint"], e["reason"] is None) for e in told["endpoints"]] == [
        ("eu", True),
        ("us", False),
    ]
    _, told, _ = await router.call("POST", "/isochrone/place", {"model": "digits"})
    assert (told["vantage"], told["client"]) == ("router", "127.0.0.1")
    for bad in [b"{", {"model": "digits", "client": "nowhere"}, {"modell": "digits"}]:
        status, told, _ = await router.call("POST", "/isochrone/place", bad)
        assert (status, told["code"]) == (400, "bad_request")
    assert eu.asked == us.asked == []


async def test_an_agent_joins_serves_and_leaves(start_router, start_endpoint):
    agent = await start_endpoint("agent")
    router = await start_router()
    assert (await router.infer())[0] == 404
    status, lease, _ = await router.call("POST", "/isochrone/agents", agent.enrolment())
    assert (status, lease) == (200, {"lease_s": 15.0, "renew_s": 5.0})
    await router.settled(lambda: router.router.core.ledger.site("agent").out is None)
    status, body, _ = await router.infer()
    assert (status, body["served_by"]) == (200, "agent")
    assert (await router.call("DELETE", "/isochrone/agents/agent"))[0] == 200
    assert (await router.call("DELETE", "/isochrone/agents/agent"))[0] == 404
    status, body, _ = await router.infer()
    assert (status, body["code"]) == (503, "no_endpoint"), "known for a day, held nowhere"


async def test_a_name_is_resolved_and_pinned(start_router, start_endpoint):
    agent = await start_endpoint("agent")
    router = await start_router()
    url = agent.url.replace("127.0.0.1", "localhost")
    status, _, _ = await router.call("POST", "/isochrone/agents", agent.enrolment(url=url))
    assert status == 200
    assert router.router.core.ledger.site("agent").endpoint.url == agent.url


async def test_an_agent_whose_name_no_resolver_knows_just_now_keeps_its_address(
    start_router, start_endpoint, monkeypatch
):
    agent = await start_endpoint("agent")
    router = await start_router()

    async def enrol(host, sequence):
        url = agent.url.replace("127.0.0.1", host)
        asked = agent.enrolment(url=url, sequence=sequence)
        status, _, _ = await router.call("POST", "/isochrone/agents", asked)
        return status, router.router.core.ledger.site("agent").endpoint.url

    async def nothing(where, within_s):
        raise OSError(where, within_s)

    assert await enrol("localhost", 1) == (200, agent.url)
    monkeypatch.setattr("isochrone.router.frontend.agents.addresses", nothing)
    assert await enrol("localhost", 2) == (200, agent.url)
    assert (await enrol("elsewhere.test", 3))[0] == 400, "that is another name"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://169.254.169.254:80", 403),
        ("http://[::ffff:127.0.0.1]:80", 403),
        ("http://127.0.0.1:80/admin", 400),
        ("file:///etc/passwd", 400),
        ("http://2130706433:80", 400),
        ("http://nowhere.invalid:80", 400),
    ],
)
async def test_an_address_that_may_not_be_is_refused_before_a_packet_leaves(
    start_router, start_endpoint, url, status
):
    agent = await start_endpoint("agent")
    router = await start_router()
    got, body, _ = await router.call("POST", "/isochrone/agents", agent.enrolment(url=url))
    assert got == status
    assert body["error"]
    assert router.router.core.ledger.site("agent") is None


async def test_who_may_not_join_is_told_so(start_router, start_endpoint):
    agent = await start_endpoint("agent")
    router = await start_router(enrolment={"allowed_networks": ["10.0.0.0/8"]})
    status, body, _ = await router.call("POST", "/isochrone/agents", agent.enrolment())
    assert (status, body["code"]) == (403, "forbidden")


async def test_who_comes_through_a_listed_proxy_is_judged_by_its_own_address(
    start_router, start_endpoint
):
    agent = await start_endpoint("agent")
    router = await start_router(trusted_proxies=["127.0.0.1/32"])
    asked = agent.enrolment()
    status, _, _ = await router.call(
        "POST", "/isochrone/agents", asked, x_forwarded_for="203.0.113.9"
    )
    assert status == 403
    status, _, _ = await router.call("DELETE", "/isochrone/agents/x", x_forwarded_for="203.0.113.9")
    assert status == 403
    assert (await router.call("POST", "/isochrone/agents", asked))[0] == 200


async def test_an_agent_outside_the_networks_of_today_is_not_restored(
    start_router, start_endpoint, tmp_path
):
    agent = await start_endpoint("agent")
    state = str(tmp_path / "state.db")
    first = await start_router(state_file=state)
    await first.call("POST", "/isochrone/agents", agent.enrolment())
    second = await start_router(state_file=state, enrolment={"allowed_networks": ["10.0.0.0/8"]})
    assert second.router.core.ledger.site("agent") is None
    assert (await second.infer())[0] == 503, "its model is still known"


async def test_a_limited_tenant_sees_its_own_models_only(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    _, told, _ = await router.call("GET", "/v2/models", x_api_key="narrow-key")
    assert told["models"] == ["other"]
    _, index, _ = await router.call("POST", "/v2/repository/index", x_api_key="narrow-key")
    assert index == []
    assert (await router.call("GET", "/v2/models", x_api_key="who"))[0] == 401
    assert (await router.infer("nobody", x_api_key="narrow-key"))[0] == 403


async def test_a_refusal_is_explained_and_counted(start_router, start_endpoint):
    us = await start_endpoint("us", "us-east")
    router = await start_router(us)
    status, _, fields = await router.infer(x_api_key="acme-key", x_isochrone_explain="1")
    assert status == 503
    (told,) = json.loads(fields["x-isochrone-explain"])["considered"]
    assert told["reason"].startswith("region us-east is outside")
    sample = router.router.registry.get_sample_value
    assert sample("isochrone_refusals_total", {"code": "no_endpoint"}) == 1


async def test_agents_are_known_again_after_a_restart(start_router, start_endpoint, tmp_path):
    agent = await start_endpoint("agent")
    first = await start_router(state_file=str(tmp_path / "state.db"))
    await first.call("POST", "/isochrone/agents", agent.enrolment())
    second = await start_router(state_file=str(tmp_path / "state.db"))
    await second.settled(lambda: second.router.core.ledger.site("agent").out is None)
    assert (await second.infer())[0] == 200


async def test_an_agent_can_be_asked_for_by_its_own(start_router, start_endpoint):
    agent = await start_endpoint("agent")
    router = await start_router(trusted_proxies=["127.0.0.0/8"])
    path = "/isochrone/agents/agent"
    assert (await router.call("GET", path))[0] == 404
    await router.call("POST", "/isochrone/agents", agent.enrolment())
    await router.settled(lambda: router.router.core.ledger.site("agent").out is None)
    told = {"name": "agent", "url": agent.url, "region": "eu-west", "out": None}
    assert (await router.call("GET", path))[:2] == (200, told)
    assert (await router.call("GET", path, x_forwarded_for="203.0.113.9"))[0] == 403
    assert (await router.call("PUT", path))[0] == 405


def journal_of(name, *numbers):
    entries = [{"id": f"{9:016x}-{n}", "at_s": 1.5, "kind": "rolled_back"} for n in numbers]
    return json.dumps({"wire_version": 1, "name": name, "entries": entries}).encode()


async def test_what_an_agent_tells_is_kept_once_and_logged(start_router, start_endpoint, caplog):
    caplog.set_level("INFO", "isochrone.router.agents")
    agent = await start_endpoint("agent")
    router = await start_router(trusted_proxies=["127.0.0.0/8"])
    path = "/isochrone/journal"
    assert (await router.call("POST", path, journal_of("agent", 1)))[0] == 404, "not enrolled"
    await router.call("POST", "/isochrone/agents", agent.enrolment())
    for numbers, new in (((1, 2), 2), ((2, 3), 1)):
        told = await router.call("POST", path, journal_of("agent", *numbers))
        assert told[:2] == (200, {"new": new})
    assert sum(record.message == "agent_told" for record in caplog.records) == 3
    outside = await router.call("POST", path, journal_of("agent", 4), x_forwarded_for="203.0.113.9")
    assert outside[0] == 403


async def test_nothing_a_client_sends_is_a_500(start_router, start_endpoint):
    router = await start_router(await start_endpoint("edge"))
    bodies = [
        b"",
        b"{",
        b"\x00" * 100,
        b"[" * 50_000,
        b'{"model":"\xff","ready":"\xff"}',
        b'{"\xff":1}',
        json.dumps({"inputs": None}).encode(),
        json.dumps({"url": "http://a..b:80"}).encode(),
    ]
    paths = [
        "/v2/models/digits/infer",
        "/isochrone/agents",
        "/isochrone/journal",
        "/isochrone/place",
    ]
    async with aiohttp.ClientSession() as client:
        for path in [*paths, "/v2/repository/index"]:
            for body in bodies:
                async with client.post(router.url + path, data=body) as response:
                    assert response.status < 500


async def test_a_wall_clock_that_jumps_by_days_changes_nothing(
    start_router, start_endpoint, tmp_path, monkeypatch
):
    now_s = 1_800_000_000.0
    instants, told = cycle([now_s, now_s + 2 * 86_400, now_s - 2 * 86_400]), []

    def jumping():
        told.append(next(instants))
        return told[-1]

    monkeypatch.setattr("tests.router.frontend.conftest.wall", jumping)
    agent = await start_endpoint("agent")
    router = await start_router(state_file=str(tmp_path / "state.db"))
    await router.call("POST", "/isochrone/agents", agent.enrolment())
    await router.settled(lambda: router.router.core.ledger.site("agent").out is None)
    answers = [await router.infer() for _ in range(20)]
    assert {status for status, _, _ in answers} == {200}
    assert router.router.core.membership.expire(monotonic()) == []
    assert len(told) > 20, "it was this clock"
