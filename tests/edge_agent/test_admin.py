"""The administrators' listener of a real agent: who is let in, what is refused, what survives."""

import asyncio
import json

import pytest
import yaml
from aiohttp import ClientSession

from isochrone.deploy.packages import signing
from isochrone.edge_agent.config import check
from isochrone.edge_agent.guard import guard_of
from isochrone.edge_agent.runtime.package.package import SIGNATURE
from isochrone.router.errors import ConfigError
from tests.conftest import write_double
from tests.edge_agent.artefacts.conftest import write_weights
from tests.edge_agent.artefacts.shop import open_shop
from tests.edge_agent.test_agent import AgentProcess, running
from tests.edge_agent.test_agent_memory import infer

TOKEN = "4f6d2c4e8a0b4d57"


@pytest.fixture
async def http():
    async with ClientSession() as session:
        yield session


@pytest.fixture
def packages(tmp_path):
    path = tmp_path / "packages"
    for version in "12":
        write_double(path, version=version)
    return path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(f"{TOKEN}\n")
    admin = {"listen": "127.0.0.1:0", "token_file": "token"}
    with running(folder, store, admin=admin) as agent:
        yield agent


PATHS = [
    ("GET", "/metrics"),
    ("GET", "/isochrone/models"),
    ("POST", "/v2/repository/models/double/load"),
    ("POST", "/v2/repository/models/double/unload"),
    ("POST", "/isochrone/models/double/pull"),
    ("POST", "/isochrone/models/double/rollback"),
    ("GET", "/nowhere"),
]


async def test_without_the_token_nothing_is_told_or_done_but_health(guarded, http):
    wrong = (None, "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}0")
    for method, path in PATHS:
        for shown in wrong:
            headers = {} if shown is None else {"authorization": shown}
            async with http.request(method, guarded.admin + path, headers=headers) as answer:
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert TOKEN not in await answer.text()
    async with http.get(f"{guarded.admin}/health") as answer:
        assert answer.status == 200
    async with http.get(
        f"{guarded.admin}/isochrone/models", headers={"authorization": f"bearer {TOKEN}"}
    ) as answer:
        assert {one["state"] for one in (await answer.json())["models"]} == {"cold"}
    assert TOKEN not in guarded.log()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("GET", "/v2/repository/models/double/load", {}, 405, id="load_with_get"),
        pytest.param(
            "POST",
            "/v2/repository/models/double/load",
            {"parameters": {"config": "{}"}},
            400,
            id="load_with_a_configuration",
        ),
        pytest.param("POST", "/v2/repository/models/nobody/load", {}, 404, id="load_of_nobody"),
        pytest.param(
            "POST",
            "/v2/repository/models/double/load",
            {"parameters": {"version": "9"}},
            404,
            id="load_of_no_version",
        ),
        pytest.param(
            "POST",
            "/v2/repository/models/double/unload",
            {"parameters": {"unload_dependents": True}},
            200,
            id="unload_with_dependents",
        ),
        pytest.param(
            "POST", "/isochrone/models/double/rollback", {}, 400, id="rollback_to_nothing"
        ),
        pytest.param("POST", "/isochrone/models/double/pull", {}, 400, id="pull_of_no_version"),
        pytest.param(
            "POST", "/isochrone/models/double/pull", {"version": "3"}, 400, id="pull_from_nowhere"
        ),
        pytest.param(
            "POST",
            "/isochrone/models/double/pull",
            {"version": "../3"},
            400,
            id="pull_of_no_version_at_all",
        ),
        pytest.param(
            "POST",
            "/isochrone/models/double/pull",
            {"version": "3", "digest": "abc"},
            400,
            id="pull_of_no_digest",
        ),
        pytest.param(
            "POST", "/isochrone/models/a b/pull", {"version": "3"}, 400, id="pull_of_no_name"
        ),
    ],
)
async def test_a_wrong_order_is_refused(guarded, http, method, path, body, status):
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with http.request(method, guarded.admin + path, json=body, headers=headers) as answer:
        assert answer.status == status
        if status != 200:
            assert set(await answer.json()) >= {"error", "code"}


async def test_administrators_are_told_why_a_load_failed(tmp_path, packages, http):
    (packages / "double" / "2" / "model.onnx").write_bytes(
        b"\0" * (packages / "double" / "2" / "model.onnx").stat().st_size
    )
    with running(tmp_path, packages) as agent:
        async with http.post(f"{agent.admin}/v2/repository/models/double/load") as answer:
            assert answer.status == 501
            assert "retry-after" not in answer.headers, "trying again does not help"
            assert "sha256" in (await answer.json())["reasons"]["cause"]


async def test_a_load_finds_what_came_into_the_folder_since_the_start(tmp_path, packages, http):
    with running(tmp_path, packages, keep_warm=["double"]) as agent:
        load = f"{agent.admin}/v2/repository/models/"

        async def loaded(model, version=None):
            body = {"parameters": {"version": version}} if version else {}
            async with http.post(f"{load}{model}/load", json=body) as answer:
                return answer.status, await answer.json()

        status, told = await loaded("late")
        assert status == 404
        assert "isochrone package build --output" in told["error"]
        write_double(packages, name="late")
        write_double(packages, version="3")
        assert await loaded("late") == (200, {"name": "late", "version": "1"})
        assert (await infer(agent, http, "late"))[0] == 200
        assert await loaded("double") == (200, {"name": "double", "version": "2"}), "as before"
        assert (await loaded("double", "4"))[0] == 404
        assert await loaded("double", "3") == (200, {"name": "double", "version": "3"})
        write_double(packages, name="spoilt")
        (packages / "spoilt" / "1" / "model.onnx").write_bytes(b"")
        status, told = await loaded("spoilt")
        assert status == 422
        assert "model.onnx" in told["error"]
        assert (await loaded("..%2f"))[0] == 400


async def test_only_signed_packages_are_found_later(tmp_path, packages, http):
    list(signing.keygen(tmp_path / "shop"))
    for version in "12":
        list(signing.sign(packages / "double" / version, tmp_path / "shop.key"))
    artefacts = {"trusted_key_files": [str(tmp_path / "shop.pub")]}
    with running(tmp_path, packages, artefacts=artefacts, keep_warm=["double"]) as agent:
        write_double(packages, name="late")
        async with http.post(f"{agent.admin}/v2/repository/models/late/load") as answer:
            assert answer.status == 422
            assert "sign" in (await answer.json())["error"]


async def test_a_load_that_fails_as_foreseen_writes_no_traceback(tmp_path, packages, http):
    models = {"double": {"variant": "nowhere"}}
    with running(tmp_path, packages, models=models, keep_warm=["double"]) as agent:
        async with http.get(f"{agent.url}/v2/health/live") as answer:
            assert answer.status == 200
        assert "has no variant nowhere" in agent.log()
        assert "Traceback" not in agent.log()


def write(tmp_path, **more):
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "region": "r", "packages": ".", **more}))
    return path


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "somewhere.example:1"])
def test_off_loopback_a_token_is_needed(tmp_path, listen):
    with pytest.raises(ConfigError, match="token_file"):
        check(write(tmp_path, admin={"listen": listen}))
    (tmp_path / "token").write_text(TOKEN)
    config = check(write(tmp_path, admin={"listen": listen, "token_file": "token"}))
    assert config.admin.token_file == tmp_path / "token"


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.9.9.9:1"])
def test_on_loopback_none_is(tmp_path, listen):
    assert check(write(tmp_path, admin={"listen": listen})).admin.token_file is None


@pytest.mark.parametrize("content", [None, "", "short", "two words of a sentence", "§" * 16])
def test_a_token_that_is_none_keeps_the_agent_from_starting(tmp_path, content):
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match=r"admin\.token_file"):
        guard_of(tmp_path / "token")


@pytest.mark.parametrize(
    ("artefacts", "words"),
    [
        pytest.param(
            {"source": {"kind": "ftp"}}, r"source\.kind must be one of directory", id="another_kind"
        ),
        pytest.param(
            {"source": {"path": "."}}, r"source\.kind is missing.*directory", id="no_kind"
        ),
        pytest.param(
            {"source": {"kind": "directory", "pat": "."}}, r"source\.pat.*path", id="typo"
        ),
        pytest.param({"source": {"kind": "http", "url": "ftp://a"}}, "url", id="another_scheme"),
        pytest.param({"source": {"kind": "http", "url": "http://u:p@a"}}, "url", id="a_user"),
        pytest.param({"source": {"kind": "http", "url": "http://a?b"}}, "url", id="a_query"),
        pytest.param({"source": {"kind": "s3", "bucket": "A_B"}}, "bucket", id="no_bucket"),
        pytest.param({"trusted_keys": ["abc"]}, "base64", id="no_key"),
        pytest.param({"disk_budget_bytes": "4 GB"}, "disk_budget_bytes", id="unit_in_the_value"),
    ],
)
def test_a_wrong_source_is_told_with_its_key(tmp_path, artefacts, words):
    with pytest.raises(ConfigError, match=words):
        check(write(tmp_path, artefacts=artefacts))


async def test_with_trusted_keys_only_what_they_signed_is_there(tmp_path, packages, http):
    list(signing.keygen(tmp_path / "shop"))
    list(signing.sign(packages / "double" / "1", tmp_path / "shop.key"))
    (packages / "double" / "2" / SIGNATURE).write_bytes(
        (packages / "double" / "1" / SIGNATURE).read_bytes()
    )
    trust = {"trusted_key_files": ["shop.pub"]}
    with running(tmp_path, packages, artefacts=trust, keep_warm=["double"]) as agent:
        async with http.post(f"{agent.url}/v2/repository/index") as answer:
            states = {one["version"]: one["state"] for one in await answer.json()}
        (broken,) = agent.events("package_broken")
        async with http.get(f"{agent.url}/isochrone/report") as answer:
            told = {one["version"]: one["state"] for one in (await answer.json())["models"]}
    assert states == {"1": "READY"}
    assert "no trusted key" in broken["error"]
    assert told == {"1": "warm", "2": "absent"}


def test_a_token_or_key_that_cannot_be_read_is_told_at_the_start(tmp_path, packages):
    for more in (
        {"admin": {"listen": "127.0.0.1:0", "token_file": "none"}},
        {"artefacts": {"trusted_key_files": ["none"]}},
    ):
        agent = AgentProcess(tmp_path, packages, **more)
        try:
            assert agent.process.wait(30) == 2
            assert "none" in agent.log()
            assert "Traceback" not in agent.log()
        finally:
            agent.end()


async def test_a_killed_agent_goes_on_with_its_pull_by_itself(tmp_path, packages, http):
    remote = tmp_path / "remote"
    package = write_weights(remote)
    order = {"version": "1", "digest": package.digest}
    async with open_shop(remote) as shop:
        shop.pause_s = 0.05  # a second or more
        source = {"source": {"kind": "http", "url": shop.url}, "disk_reserve_bytes": 0}
        agent = AgentProcess(tmp_path, packages, artefacts=source)
        try:
            await asyncio.to_thread(agent.wait_ready)
            asked = asyncio.ensure_future(  # noqa: TID251 - it is cut off
                http.post(f"{agent.admin}/isochrone/models/net/pull", json=order)
            )
            async with asyncio.timeout(10):
                while not any(name == "a.onnx" for name, _ in shop.asked):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
        finally:
            agent.end()
        assert isinstance((await asyncio.gather(asked, return_exceptions=True))[0], Exception)
        shop.pause_s = 0
        agent = AgentProcess(tmp_path, packages, artefacts=source)
        try:
            await asyncio.to_thread(agent.wait_ready)
            async with asyncio.timeout(10):
                while ("net", "1") not in await listed(agent, http):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            agent.end()
    begins = [begin for name, begin in shop.asked if name == "a.onnx"]
    assert begins[-1] > 0, "from where it was"


async def listed(agent, http):
    async with http.get(f"{agent.admin}/isochrone/models") as answer:
        told = json.loads(await answer.read())
    assert (told["schema"], told["ok"]) == ("isochrone.models/1", True)
    return [(one["name"], one["version"]) for one in told["models"]]
