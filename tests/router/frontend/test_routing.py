"""One request's way through a real router, over sockets, to endpoints that behave in every way."""

import asyncio
import json
import re

import aiohttp
import pytest

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.wire.report import ModelState


async def test_a_request_is_answered_and_says_where_and_why(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    status, body, fields = await router.infer(x_request_id="abc", x_api_key="acme-key")
    assert (status, body["served_by"]) == (200, "edge")
    assert fields["x-request-id"] == "abc"
    assert fields["x-isochrone-endpoint"] == "edge"
    assert fields["x-isochrone-region"] == "eu-west"
    assert fields["x-isochrone-reason"] == "nearest"
    assert fields["x-isochrone-attempts"] == "1"
    assert [part.split(";")[0] for part in fields["server-timing"].split(", ")] == [
        "route",
        "net",
        "wait",
        "infer",
    ]
    assert "endpoint-load-metrics" not in fields
    (asked,) = edge.asked
    assert asked[b"x-isochrone-tenant"] == b"acme"
    assert re.fullmatch(rb"r1\.[0-9a-f]{8}=1", asked[b"x-isochrone-seq"])
    assert b"x-api-key" not in asked
    assert float(asked[b"x-request-timeout-seconds"]) == pytest.approx(30, abs=1)


async def test_a_law_is_kept_even_when_that_means_no_answer(start_router, start_endpoint):
    eu, us = await start_endpoint("eu"), await start_endpoint("us", "us-east")
    router = await start_router(eu, us)
    for _ in range(5):
        status, body, _ = await router.infer(x_api_key="acme-key")
        assert (status, body["served_by"]) == (200, "eu")
    await eu.stop()
    status, body, fields = await router.infer(x_api_key="acme-key")
    assert (status, body["code"]) == (503, "no_endpoint")
    status, body, fields = await router.infer(x_api_key="acme-key")
    assert status == 503
    assert body["reasons"]["us"] == "region us-east is outside eu (tenant acme)"
    assert body["reasons"]["eu"] == "refused (nobody listens there)", "it is asked as a last resort"
    assert int(fields["retry-after"]) >= 1
    status, body, _ = await router.infer()
    assert (status, body["served_by"]) == (200, "us"), "who is not bound is served elsewhere"
    assert len(us.asked) == 1


async def test_a_model_that_is_being_unloaded_is_asked_as_one_that_is_cold(
    start_router, start_endpoint
):
    edge = await start_endpoint("edge")
    edge.state = ModelState.DRAINING
    router = await start_router(edge)
    await router.settled(lambda: _states(router) == {ModelState.DRAINING})
    assert (await router.infer())[0] == 200
    assert edge.wakes == 0, "what is being unloaded is not fetched back without a call"


def _states(router):
    sites = router.router.core.ledger.sites()
    return {holding.state for site in sites for holding in site.holdings.values()}


async def test_an_endpoint_that_is_full_sends_requests_on_and_stays_in(
    start_router, start_endpoint
):
    near, far = await start_endpoint("near"), await start_endpoint("far", "us-east")
    near.behave = lambda exchange: exchange.respond(503, [(b"retry-after", b"1")], b"{}")
    far.behave = lambda exchange: far.answer(exchange, infer_s=0.05)
    router = await start_router(near, far)
    await router.settled(lambda: all(s.net_s < 0.01 for s in router.router.core.ledger.sites()))
    answers = [await router.infer(x_isochrone_regions="eu-west,us-east") for _ in range(12)]
    assert {status for status, _, _ in answers} == {200}
    assert {body["served_by"] for _, body, _ in answers} == {"far"}
    assert "fallback_busy" in {fields["x-isochrone-reason"] for _, _, fields in answers}
    assert router.router.core.ledger.site("near").out is None, "back-pressure opens no breaker"


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda e: e.abort(), id="closes"),
        pytest.param(lambda e: e.respond(500, [], b"oh no"), id="500"),
        pytest.param(
            lambda e: e.respond(307, [(b"location", b"http://us.example/")], b""), id="elsewhere"
        ),
    ],
)
async def test_a_failing_endpoint_costs_no_answer_and_is_taken_out(
    start_router, start_endpoint, behave
):
    bad, good = await start_endpoint("bad"), await start_endpoint("good")
    bad.behave = behave
    good.behave = lambda exchange: good.answer(exchange, infer_s=0.05)  # the bad one looks better
    router = await start_router(bad, good)
    answers = [await router.infer() for _ in range(30)]
    assert [status for status, _, _ in answers] == [200] * 30
    assert {body["served_by"] for _, body, _ in answers} == {"good"}
    assert 3 <= len(bad.asked) <= 12, "out after 3 failures, in again after two good probes"


async def test_an_endpoint_that_no_longer_holds_the_model_is_passed_over_and_stays_in(
    start_router, start_endpoint
):
    bad, good = await start_endpoint("bad"), await start_endpoint("good")
    bad.behave = lambda exchange: exchange.respond(404, [], b"no such model")
    good.behave = lambda exchange: good.answer(exchange, infer_s=0.05)
    router = await start_router(bad, good)
    answers = [await router.infer() for _ in range(30)]
    assert {body["served_by"] for _, body, _ in answers} == {"good"}
    assert 1 <= len(bad.asked) <= 10, "asked again only after it has reported again"
    assert router.router.core.ledger.site("bad").out is None


async def test_an_endpoint_that_dies_in_its_answer_costs_nothing(start_router, start_endpoint):
    bad, good = await start_endpoint("bad"), await start_endpoint("good")

    def die(exchange):
        exchange.start(200, [(b"content-length", b"100")])
        exchange.write(b"half of it")
        exchange.abort()

    bad.behave = die
    good.behave = lambda exchange: good.answer(exchange, infer_s=0.05)
    router = await start_router(bad, good)
    answers = [await router.infer() for _ in range(10)]
    assert {body["served_by"] for _, body, _ in answers} == {"good"}
    assert bad.asked


async def test_rubbish_is_no_answer(start_router, start_endpoint, stack):
    async def speak_rubbish(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01 not HTTP at all\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_rubbish, "127.0.0.1", 0)
    stack.push_async_callback(server.wait_closed)
    stack.callback(server.close)
    port = server.sockets[0].getsockname()[1]
    good = await start_endpoint("good")
    endpoints = [
        {"name": "rubbish", "url": f"http://127.0.0.1:{port}", "region": "eu-west"},
        {"name": "good", "url": good.url, "region": "eu-west", "tier": "edge"},
    ]
    router = await start_router(endpoints=endpoints)
    assert [(await router.infer())[0] for _ in range(5)] == [200] * 5
    assert router.router.core.ledger.site("rubbish").out is not None


async def test_a_frozen_endpoint_is_out_after_two_missed_probes_and_what_waits_there_moves(
    start_router, start_endpoint
):
    frozen, good = await start_endpoint("frozen"), await start_endpoint("good", "us-east")
    router = await start_router(frozen, good)
    frozen.deaf = True
    frozen.behave = lambda _: None
    answers = await asyncio.gather(*(router.infer() for _ in range(6)))
    assert {(status, body["served_by"]) for status, body, _ in answers} == {(200, "good")}
    await router.settled(lambda: router.router.core.ledger.site("frozen").out == "2 probes missed")
    frozen.deaf = False
    frozen.behave = frozen.answer
    await router.settled(lambda: router.router.core.ledger.site("frozen").out is None)


async def test_the_deadline_ends_a_request(start_router, start_endpoint):
    slow = await start_endpoint("slow")
    slow.behave = lambda _: None
    router = await start_router(slow)
    status, body, _ = await router.infer(x_request_timeout_seconds="0.15")
    assert (status, body["code"]) == (504, "deadline_exceeded")
    site = router.router.core.ledger.site("slow")
    assert site.open == {}, "its lease has come back"
    assert site.out is None, "slow is not dead"


async def test_a_deadline_that_passes_at_the_endpoint_condemns_nobody(start_router, start_endpoint):
    edge, other = await start_endpoint("edge"), await start_endpoint("other")
    for endpoint in (edge, other):
        endpoint.behave = lambda exchange: exchange.respond(504, [], b"{}")
    router = await start_router(edge, other)
    for _ in range(6):
        status, body, _ = await router.infer(x_request_timeout_seconds="0.05")
        assert (status, body["code"]) == (504, "deadline_exceeded")
    assert len(edge.asked) + len(other.asked) == 6, "there is no time for a second try"
    assert all(site.out is None for site in router.router.core.ledger.sites())


async def test_what_waits_at_an_endpoint_that_is_out_already_moves_too(
    start_router, start_endpoint
):
    dead, good = await start_endpoint("dead"), await start_endpoint("good", "us-east")
    router = await start_router(dead, good)
    dead.behave = lambda _: None
    slower = router.router.core.ledger.site("good").holdings["digits", "1"]
    slower.served(0.0, 0.5, 0, 0.0)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(router.infer(x_request_timeout_seconds="5"))
        await router.settled(lambda: len(dead.asked) == 1)
        site = router.router.core.ledger.site("dead")
        lease = router.router.core.ledger.sent(site.endpoint, "digits", "1", 0.0)
        router.router.core.ledger.close(lease, Outcome.REFUSED, 0.0)
        dead.deaf = True
    status, body, _ = waiting.result()
    assert (status, body["served_by"]) == (200, "good")


async def test_who_leaves_in_good_order_finishes_its_streams(start_router, start_endpoint):
    agent = await start_endpoint("agent")
    router = await start_router()
    await router.call("POST", "/isochrone/agents", agent.enrolment())
    await router.settled(lambda: router.router.core.ledger.site("agent").out is None)
    held = []

    def stream(exchange):
        exchange.start(200, [])
        exchange.write(b"one ")
        held.append(exchange)

    agent.behave = stream
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{router.url}/v2/models/digits/generate_stream") as response,
    ):
        assert await response.content.readexactly(4) == b"one "
        assert (await router.call("DELETE", "/isochrone/agents/agent"))[0] == 200
        held[0].write(b"two")
        held[0].finish()
        assert await response.content.read() == b"two"


async def test_an_answer_that_cannot_be_passed_on_ends_the_request(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    site = router.router.core.ledger.site("edge")

    def broken(*_args, **_more):
        raise ValueError("a mistake of ours")

    router.router.core.ledger.answered = broken
    with pytest.raises(aiohttp.ClientError):
        await router.infer(x_request_timeout_seconds="3")
    assert site.open == {}
    assert not router.router.core.runner.running


async def test_a_refusal_without_a_length_is_held_and_made_readable(start_router, start_endpoint):
    edge = await start_endpoint("edge")

    def refuse(exchange):
        exchange.start(422, [(b"content-type", b"text/plain")])
        exchange.write(b"Traceback in /srv/x.py")
        exchange.finish()

    edge.behave = refuse
    router = await start_router(edge)
    status, told, _ = await router.infer()
    assert (status, told["code"]) == (422, "refused")


async def test_another_server_is_used_while_it_is_ready(start_router, start_endpoint):
    foreign = await start_endpoint("foreign")
    entry = {
        "name": "foreign",
        "url": foreign.url,
        "region": "eu-west",
        "models": ["digits"],
        "reports": False,
    }
    foreign.behave = lambda exchange: exchange.respond(
        200, [(b"content-type", b"application/json")], b'{"ready": true}'
    )
    router = await start_router(endpoints=[entry])
    assert (await router.infer())[0] == 200
    asked = len(foreign.asked)
    status, told, _ = await router.call("POST", "/v2/models/digits/versions/1/infer", b"opaque")
    assert (status, told["code"]) == (404, "not_found"), "it never said that it has a version 1"
    assert len(foreign.asked) == asked
    foreign.behave = lambda exchange: exchange.respond(503, [], b"")
    await router.settled(lambda: router.router.core.ledger.site("foreign").out == "2 probes missed")


async def test_a_client_that_leaves_frees_everything(start_router, start_endpoint):
    slow = await start_endpoint("slow")
    arrived = asyncio.Event()
    slow.behave = lambda _: arrived.set()
    router = await start_router(slow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await router.infer()
    assert arrived.is_set()
    await router.settled(lambda: not router.router.core.runner.running)
    assert router.router.core.ledger.site("slow").open == {}


async def test_a_cold_endpoint_is_woken_once_and_serves_when_it_is_warm(
    start_router, start_endpoint
):
    cold, warm = await start_endpoint("cold"), await start_endpoint("warm")
    cold.state = ModelState.COLD
    slow_s = 0.4  # less than a load takes, and more than anything else may take here
    warm.behave = lambda exchange: warm.answer(exchange, infer_s=slow_s)
    router = await start_router(cold, warm)
    answers = await asyncio.gather(*(router.infer() for _ in range(40)))
    assert {status for status, _, _ in answers} == {200}
    await router.settled(
        lambda: (
            router.router.core.ledger.site("cold").holdings["digits", "1"].state is ModelState.WARM
        )
    )
    warm.behave = lambda e: e.respond(503, [(b"retry-after", b"1")], b"{}")
    status, told, _ = await router.infer()
    assert (status, told["served_by"], cold.wakes) == (200, "cold", 1)


async def test_a_stream_passes_chunk_by_chunk(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    router = await start_router(edge)
    begun = asyncio.Event()
    held = []

    def stream(exchange):
        exchange.start(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
        exchange.write(b'data: {"text_output":"a"}\n\n')
        held.append(exchange)
        begun.set()

    edge.behave = stream
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{router.url}/v2/models/digits/generate_stream", data=b"{}") as response,
    ):
        await begun.wait()
        first = await response.content.readuntil(b"\n\n")
        assert first == b'data: {"text_output":"a"}\n\n', "before the stream has ended"
        held[0].write(b'data: {"text_output":"b"}\n\n')
        held[0].finish()
        assert await response.content.read() == b'data: {"text_output":"b"}\n\n'


async def test_a_stream_that_breaks_is_seen_to_be_broken(start_router, start_endpoint):
    edge, other = await start_endpoint("edge"), await start_endpoint("other", "us-east")

    def stream(exchange):
        exchange.start(200, [])
        exchange.write(b"data: 1\n\n")
        exchange.abort()

    edge.behave = stream
    router = await start_router(edge, other)
    async with aiohttp.ClientSession() as client:
        response = await client.post(
            f"{router.url}/v2/models/digits/generate_stream", headers={"x-isochrone-regions": "eu"}
        )
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert other.asked == []


async def test_a_clients_mistakes_do_not_count_against_the_endpoint(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    body = json.dumps({"error": "shape"}).encode()
    edge.behave = lambda e: e.respond(400, [(b"content-type", b"application/json")], body)
    router = await start_router(edge)
    for _ in range(10):
        status, told, _ = await router.infer()
        assert (status, told) == (400, {"error": "shape"})
    assert router.router.core.ledger.site("edge").out is None


async def test_an_upstream_refusal_in_text_is_json_for_the_client(start_router, start_endpoint):
    edge = await start_endpoint("edge")
    edge.behave = lambda e: e.respond(422, [(b"content-type", b"text/plain")], b"at 10.0.0.7")
    router = await start_router(edge)
    status, told, _ = await router.infer()
    assert status == 422
    assert "10.0.0.7" not in told["error"]


async def test_a_decision_is_explained_on_the_spot_and_kept(start_router, start_endpoint):
    edge, us = await start_endpoint("edge"), await start_endpoint("us", "us-east")
    router = await start_router(edge, us)
    _, _, fields = await router.infer(
        x_isochrone_explain="1", x_api_key="acme-key", x_request_id="why"
    )
    told = json.loads(fields["x-isochrone-explain"])
    by_name = {c["endpoint"]: c for c in told["considered"]}
    assert by_name["edge"]["seconds"]["total"] > 0
    assert by_name["us"]["reason"] == "region us-east is outside eu (tenant acme)"
    kept = router.router.decisions.tell("why")
    assert kept is not None
    assert kept["considered"] == told["considered"]
    assert [a["endpoint"] for a in kept["attempts"]] == ["edge"]
    assert (kept["tenant"], kept["status"], kept["ok"]) == ("acme", 200, True)


async def test_a_stale_connection_is_no_failure(start_router, start_endpoint):
    edge = await start_endpoint("edge")

    def answer_and_hang_up(exchange):
        edge.answer(exchange)
        exchange.abort()  # the connection goes just after the answer

    edge.behave = answer_and_hang_up
    router = await start_router(edge)
    for _ in range(20):
        status, _, fields = await router.infer()
        assert (status, fields["x-isochrone-attempts"]) == (200, "1")
