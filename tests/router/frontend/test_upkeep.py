"""What a router does because time passes, and what is seen where a part of it fails."""

import asyncio
import json
import shutil
from itertools import count

import pytest
from prometheus_client import generate_latest

from isochrone.router import app


async def test_a_part_that_fails_makes_the_router_not_ready_and_stops_no_other(
    start_router, start_endpoint
):
    edge = await start_endpoint("edge")
    router = await start_router(edge)

    def broken(now_s):
        raise ZeroDivisionError(now_s)

    housekeeping = router.router.core.housekeeping
    (part,) = [p for p in housekeeping._parts if p.name == "exploration"]
    works, part.act = part.act, broken
    await router.settled(lambda: bool(housekeeping.failing))
    status, told, _ = await router.call("GET", "/v2/health/ready")
    assert (status, told["failing"]) == (503, {"exploration": "ZeroDivisionError"})
    assert (await router.call("GET", "/v2/health/live"))[0] == 200
    assert (await router.infer())[0] == 200
    edge.behave = lambda _: None
    assert (await router.infer(x_request_timeout_seconds="0.1"))[0] == 504  # deadlines are swept
    assert b'housekeeping_failures_total{part="exploration"}' in generate_latest(
        router.router.registry
    )
    part.act = works
    await router.settled(lambda: not housekeeping.failing)
    assert (await router.call("GET", "/v2/health/ready"))[0] == 200


async def test_a_late_farewell_and_a_late_renewal_do_not_touch_a_successor(
    start_router, start_endpoint
):
    agent = await start_endpoint("agent")
    router = await start_router(await start_endpoint("edge"))
    path = "/isochrone/agents"
    assert (await router.call("POST", path, agent.enrolment(instance="old")))[0] == 200
    assert (await router.call("POST", path, agent.enrolment(instance="new")))[0] == 200
    assert (await router.call("DELETE", f"{path}/agent?instance=old"))[0] == 404
    late = agent.enrolment(instance="old", sequence=2)
    assert (await router.call("POST", path, late))[0] == 403
    assert router.router.core.membership.get("agent").instance == "new"
    assert (await router.call("POST", path, agent.enrolment(instance="new", sequence=2)))[0] == 200
    assert (await router.call("POST", path, late))[0] == 403
    assert (await router.call("DELETE", f"{path}/agent?instance=new"))[0] == 200
    assert router.router.core.membership.get("agent") is None


async def test_a_refused_enrolment_is_logged_with_name_address_and_reason(
    start_router, start_endpoint, caplog
):
    caplog.set_level("WARNING", "isochrone.router.agents")
    agent = await start_endpoint("agent")
    router = await start_router(await start_endpoint("edge"))
    refused = agent.enrolment(region="us-east", name="edge")
    for _ in range(3):
        assert (await router.call("POST", "/isochrone/agents", refused))[0] == 403
    (record,) = caplog.records
    assert record.message == "enrolment_refused"
    told = record.isochrone_fields
    assert (told["agent"], told["address"]) == ("edge", "127.0.0.1")
    assert told["reason"] == "edge is the name of a configured endpoint"


async def test_enrolments_refused_by_network_are_logged_and_a_flood_of_them_is_not(
    start_router, start_endpoint, caplog
):
    caplog.set_level("WARNING", "isochrone.router.agents")
    agent = await start_endpoint("agent")
    enrolment = {"allowed_networks": ["192.0.2.0/24"]}
    router = await start_router(await start_endpoint("edge"), enrolment=enrolment)
    for number in range(30):
        asked = agent.enrolment(name=f"agent-{number}")
        assert (await router.call("POST", "/isochrone/agents", asked))[0] == 403
    told = [record.isochrone_fields for record in caplog.records]
    assert [one["agent"] for one in told] == [f"agent-{number}" for number in range(10)]
    assert {one["address"] for one in told} == {"127.0.0.1"}


async def test_the_access_log_of_a_router_is_kept_small(start_router, start_endpoint, tmp_path):
    path = tmp_path / "access.jsonl"
    log = {"access": str(path), "access_bytes": 4096}
    router = await start_router(await start_endpoint("edge"), log=log)
    ids = (f"id-{number}" for number in count())
    async with asyncio.timeout(20):
        while not path.with_name("access.jsonl.1").exists():
            assert (await router.infer(x_request_id=next(ids)))[0] == 200
    lines = path.with_name("access.jsonl.1").read_text().splitlines()
    assert [json.loads(line)["request_id"] for line in lines[:2]] == ["id-0", "id-1"]


async def test_a_geoip_file_is_taken_up_while_the_router_serves(
    start_router, start_endpoint, maxmind, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "isochrone.router")
    monkeypatch.setattr(app, "GEOIP_S", 0.02)
    live = tmp_path / "live.mmdb"
    shutil.copyfile(maxmind / "GeoIP2-City-Test.mmdb", live)
    router = await start_router(await start_endpoint("edge"), geoip_database=str(live))
    asked = {"model": "digits", "client": "81.2.69.142"}
    _, told, _ = await router.call("POST", "/isochrone/place", asked)
    assert told["place"]["latitude"] == pytest.approx(51.5142)
    live.write_bytes(b"spoilt")
    await router.settled(lambda: "geoip_refused" in caplog.messages)
    assert b"isochrone_geoip_refused 1.0" in generate_latest(router.router.registry)
    shutil.copyfile(maxmind / "GeoIP2-Country-Test.mmdb", live)
    await router.settled(lambda: "geoip_taken_up" in caplog.messages)
    _, told, _ = await router.call("POST", "/isochrone/place", asked)
    assert (told["place"]["country"], told["place"]["latitude"]) == ("GB", None)
    page = generate_latest(router.router.registry)
    assert b"isochrone_geoip_refused 0.0" in page
    assert b"isochrone_geoip_age_seconds" in page
