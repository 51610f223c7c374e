"""The administration's listener: what it refuses, and how."""

import json

import aiohttp
import pytest
from aiohttp import web

REFUSALS = {
    "unknown path": ("GET", "/nope", 404, "not_found"),
    "unknown decision": ("GET", "/isochrone/decisions/nope", 404, "not_found"),
    "wrong method": ("POST", "/isochrone/fleet", 405, "method_not_allowed"),
}


@pytest.fixture
async def admin(start_router, start_endpoint):
    """The URL of its administration, and the router."""
    router = await start_router(await start_endpoint("edge"))
    runner = web.AppRunner(router.router.admin.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
        yield client, router.router
    await runner.cleanup()


@pytest.mark.parametrize(("method", "path", "status", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_refusals_are_json(admin, method, path, status, code):
    client, _ = admin
    async with client.request(method, path) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        assert json.loads(await answer.read())["code"] == code
        assert (answer.headers.get("allow") == "GET, HEAD") == (status == 405)


async def test_a_mistake_of_ours_is_json_and_tells_nothing(admin, monkeypatch, caplog):
    client, router = admin
    monkeypatch.setattr(router._store, "told", lambda _: 1 / 0)
    async with client.get("/isochrone/journal") as answer:
        assert (answer.status, answer.content_type) == (500, "application/json")
        assert json.loads(await answer.read()) == {"error": "internal error", "code": "internal"}
    assert "ZeroDivisionError" in caplog.text
