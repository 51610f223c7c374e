"""`isochrone models` and the signing of packages, against a real agent."""

import argparse
import json
import stat

import pytest

from isochrone.deploy import cli
from isochrone.deploy import models as command
from isochrone.deploy.packages import package as package_command
from isochrone.edge_agent.runtime.package.package import SIGNATURE
from isochrone.router.errors import ConfigError, Unavailable
from tests.conftest import write_double
from tests.edge_agent.test_agent import running

TOKEN = "0123456789abcdef0123456789abcdef"


def ran(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(one) for one in arguments]))


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """An agent with one version, a source with another, and a token."""
    folder = tmp_path_factory.mktemp("agent")
    (folder / "token").write_text(TOKEN)
    write_double(folder / "packages")
    write_double(folder / "remote", version="2")
    more = {
        "admin": {"listen": "127.0.0.1:0", "token_file": "token"},
        "artefacts": {"source": {"kind": "directory", "path": "remote"}, "disk_reserve_bytes": 0},
    }
    with running(folder, folder / "packages", keep_warm=["double"], **more) as agent:
        yield agent


@pytest.fixture
def models(agent, monkeypatch):
    """The command with some arguments, shown the token through the environment."""
    monkeypatch.setenv(command.TOKEN_VARIABLE, str(agent.folder / "token"))
    return lambda *arguments: ran(command, *arguments, "--agent", agent.admin)


def listed(models, capsys):
    assert models("list", "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    return {one["version"]: (one["state"], one["active"]) for one in told["models"]}


def test_a_version_is_pulled_served_and_gone_back_from(agent, models, capsys):
    remote = agent.folder / "remote" / "double" / "2"
    assert ran(package_command, "inspect", remote, "--json", "-") == 0
    digest = json.loads(capsys.readouterr().out)["packages"][0]["digest"]
    assert models("pull", "double", "--version", "2", "--digest", f"sha256:{digest}") == 0
    assert "isochrone models load double --version 2" in capsys.readouterr().out
    assert listed(models, capsys) == {"1": ("warm", True), "2": ("cold", False)}
    assert models("load", "double", "--version", "2") == 0
    assert "double 2 is warm" in capsys.readouterr().out
    assert listed(models, capsys) == {"1": ("cold", False), "2": ("warm", True)}
    assert models("rollback", "double") == 0
    assert "double 1 serves again" in capsys.readouterr().out
    assert listed(models, capsys) == {"1": ("warm", True), "2": ("cold", False)}
    assert models("list") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["MODEL", "VERSION", "STATE", "SERVES", "SIZE", "LOAD", "DIGEST"]
    assert [row.split()[3] for row in rows] == ["before", "yes"]
    assert models("unload", "double") == 0
    assert "double is unloaded" in capsys.readouterr().out
    assert {state for state, _ in listed(models, capsys).values()} == {"cold"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("pull", "double", "--version", "7", "--digest", "0" * 64), "502", id="none"),
        pytest.param(("pull", "double", "--version", "2"), "", id="it is here already"),
        pytest.param(("load", "nobody"), "404", id="nobody"),
        pytest.param(("load", "double", "--version", "9"), "404", id="no such version"),
    ],
)
def test_a_refusal_is_told_and_is_a_problem(agent, arguments, says, capsys):
    more = ("--agent", agent.admin, "--token-file", str(agent.folder / "token"))
    code = cli.main(["models", *arguments, *more])
    assert code == 1
    assert says in capsys.readouterr().err


def test_without_the_token_nothing_is_done(agent, capsys):
    assert cli.main(["models", "list", "--agent", agent.admin]) == 1
    assert "401" in capsys.readouterr().err


def test_what_cannot_be_asked_is_told(tmp_path):
    with pytest.raises(Unavailable, match="gives no answer"):
        ran(command, "list", "--agent", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="token"):
        ran(command, "list", "--token-file", tmp_path / "none")


def test_a_key_is_made_once_and_its_secret_half_is_nobody_elses(tmp_path, capsys):
    assert ran(package_command, "keygen", "--output", tmp_path / "shop") == 0
    said = capsys.readouterr().out
    assert (tmp_path / "shop.pub").read_text().strip() in said
    assert (tmp_path / "shop.key").read_text() not in said
    assert stat.S_IMODE((tmp_path / "shop.key").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="File exists"):
        ran(package_command, "keygen", "--output", tmp_path / "shop")


def test_a_package_is_signed_and_verified(tmp_path, capsys):
    package = write_double(tmp_path / "packages")
    for name in ("shop", "other"):
        ran(package_command, "keygen", "--output", tmp_path / name)
    assert ran(package_command, "sign", package.path, "--key", tmp_path / "shop.key") == 0
    assert (package.path / SIGNATURE).is_file()
    verify = ("verify", package.path, "--trusted-key")
    assert ran(package_command, *verify, tmp_path / "shop.pub") == 0
    capsys.readouterr()
    assert ran(package_command, *verify, tmp_path / "other.pub") == 1
    assert "no trusted key" in capsys.readouterr().out
    for name in ("shop.pub", "none"):
        with pytest.raises(ConfigError, match="cannot be used"):
            ran(package_command, "sign", package.path, "--key", tmp_path / name)


@pytest.mark.parametrize(
    ("state", "active", "role"),
    [("warm", True, "yes"), ("cold", True, "once warm"), ("warm", False, "no")],
)
def test_only_a_warm_model_serves(state, active, role):
    model = command._ModelListed(
        "m", "1", state, active=active, previous=False, bytes=1, load_s=None, digest="0"
    )
    assert command._row(model)[3] == role
