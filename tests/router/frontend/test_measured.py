"""Round trips come in from clients and agents, and `/isochrone/place` goes by them."""

import asyncio

import pytest

BEHIND = {"trusted_proxies": ["127.0.0.1"], "enrolment": {"allowed_networks": ["127.0.0.0/8"]}}
"""Who sends X-Forwarded-For is a client behind a proxy; who does not is an agent."""
CLIENT = "203.0.113.7"
OTHER = "198.51.100.1"


def sample(endpoint="us", rtt_s=0.005, **more):
    return {"endpoint": endpoint, "rtt_s": rtt_s, **more}


@pytest.fixture
async def router(start_router, start_endpoint):
    endpoints = [await start_endpoint("eu"), await start_endpoint("us", "us-east")]
    return await start_router(*endpoints, **BEHIND)


async def tell(router, *samples, **headers):
    body = {"samples": list(samples)}
    return await router.call("POST", "/isochrone/measurements", body, **headers)


async def nets(router, client=CLIENT):
    status, told, _ = await router.call(
        "POST", "/isochrone/place", {"model": "digits", "client": client}
    )
    assert status == 200
    return {e["endpoint"]: e["net"] for e in told["endpoints"]}, told


async def test_a_client_tells_of_itself_and_is_placed_by_it(router):
    before, told = await nets(router)
    assert {net["source"] for net in before.values()} == {"distance"}
    assert told["endpoints"][0]["endpoint"] == "us"
    slow, fast = sample("us", 0.4), sample("eu", 0.09)
    status, body, _ = await tell(router, slow, fast, x_forwarded_for=CLIENT)
    assert (status, body) == (204, {})
    after, told = await nets(router)
    assert {name: (net["mean_s"], net["source"]) for name, net in after.items()} == {
        "us": (0.4, "measured"),
        "eu": (0.09, "measured"),
    }
    assert told["endpoints"][0]["endpoint"] == "eu"
    assert told["endpoints"][0]["seconds"]["net"] == pytest.approx(0.09)


async def test_a_client_of_unknown_place_is_seen_from_the_router_until_it_is_measured(router):
    unknown, told = await nets(router, OTHER)
    assert told["vantage"] == "router"
    assert {net["source"] for net in unknown.values()} == {"router"}
    await tell(router, sample("eu", 0.02), x_forwarded_for=OTHER)
    known, told = await nets(router, OTHER)
    assert told["vantage"] == "client"
    assert {name: net["source"] for name, net in known.items()} == {
        "eu": "measured",
        "us": "unknown",
    }


async def test_an_agent_speaks_for_its_clients_and_nobody_else_does(router):
    status, told, _ = await tell(router, sample(client=CLIENT), x_forwarded_for=OTHER)
    assert (status, told["code"]) == (403, "forbidden")
    assert (await nets(router))[0]["us"]["source"] == "distance"
    assert (await tell(router, sample("us", 0.03, client=CLIENT)))[0] == 204
    assert (await nets(router))[0]["us"]["source"] == "measured"


async def test_a_client_does_not_overwrite_what_an_agent_measured(router):
    await tell(router, sample("us", 0.03, client=CLIENT))
    lies = [sample("us", 9.0)] * 64
    assert (await tell(router, *lies, x_forwarded_for=CLIENT))[0] == 204
    assert (await nets(router))[0]["us"]["mean_s"] == pytest.approx(0.03)


async def test_one_sample_of_a_pair_counts_in_one_message(router):
    await tell(router, *[sample("us", 9.0)] * 63, sample("us", 0.4), x_forwarded_for=CLIENT)
    once = (await nets(router))[0]["us"]
    assert once["mean_s"] == 0.4
    assert once["sigma_s"] == pytest.approx(0.2), "it grows with age"


async def test_all_or_none_is_taken_and_unknown_endpoints_are_passed_over(router):
    status, _, _ = await tell(router, sample("us", 0.03, client=CLIENT), sample(client="nobody"))
    assert status == 400
    assert (await nets(router))[0]["us"]["source"] == "distance"
    status, _, _ = await tell(
        router, sample("elsewhere", client=CLIENT), sample("us", 0.03, client=CLIENT)
    )
    assert status == 204
    assert (await nets(router))[0]["us"]["source"] == "measured"


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([sample(rtt_s=0)], id="no time"),
        pytest.param([sample(rtt_s=-0.1)], id="before it was asked"),
        pytest.param([sample(rtt_s=61)], id="a minute and more"),
        pytest.param([sample(rtt_s="0.1")], id="a text"),
        pytest.param([sample(rtt_ms=3)], id="an unknown field"),
        pytest.param([{"endpoint": "us"}], id="without a time"),
        pytest.param([sample("no name")], id="no name"),
        pytest.param([sample()] * 65, id="too many"),
    ],
)
async def test_what_is_no_measurement_is_refused(router, samples):
    status, told, _ = await tell(router, *samples)
    assert (status, told["code"]) == (400, "bad_request")


async def test_measurements_are_posted(router):
    status, told, fields = await router.call("GET", "/isochrone/measurements")
    assert (status, told["code"], fields["allow"]) == (405, "method_not_allowed", "POST")


async def test_many_at_once_are_all_taken(router):
    async def one(number):
        return (await tell(router, *[sample(client=f"10.1.{number}.1", rtt_s=0.03)] * 64))[0]

    assert set(await asyncio.gather(*map(one, range(16)))) == {204}
    told, _ = await nets(router, "10.1.15.200")
    assert told["us"]["source"] == "measured"
