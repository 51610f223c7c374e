"""`isochrone check`: OK, or every problem with its place."""

import json

import pytest

from deploy.check import guessed
from deploy.cli import PROBLEM, main
from deploy.local.files import write_files
from deploy.local.layout import lay_out
from router.errors import ConfigError


@pytest.fixture
def files(tmp_path):
    """The configuration files of a local system."""
    packages = tmp_path / "packages"
    (packages / "digits" / "1").mkdir(parents=True)
    folder = tmp_path / "run"
    folder.mkdir()
    layout = lay_out(folder, tmp_path / "ray")
    write_files(layout, packages, {})
    return folder


@pytest.mark.parametrize(
    ("file", "role"),
    [
        ("eu-west.yaml", "router"),
        ("eu-west-1.yaml", "agent"),
        ("cloud-us-east.yaml", "cloud"),
        ("regions.yaml", "regions"),
    ],
)
def test_the_local_systems_own_files_are_fine_and_their_roles_are_guessed(
    file, role, files, capsys
):
    path = files / file
    if role == "cloud":  # Ray's folder must have a short path, which a test's folder has not
        path.write_text(path.read_text().replace(str(files.parent / "ray"), "/tmp/ray"))
    assert guessed(path) == role
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: OK ({role})\n"


def test_every_problem_is_told_with_its_place(files, capsys):
    path = files / "eu-west-1.yaml"
    path.write_text(path.read_text().replace("slots: 4", "slots: none").replace("queue:", "que:"))
    report = files / "report.json"
    assert main(["check", "--config", str(path), "--json", str(report)]) == PROBLEM
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{path}:") for line in lines)
    told = json.loads(report.read_text())
    assert (told["schema"], told["ok"], told["role"]) == ("isochrone.check/1", False, "agent")
    assert {problem["key"] for problem in told["problems"]} == {"slots", "que"}


def test_a_contradiction_between_two_files_is_told(files, capsys):
    path = files / "eu-west.yaml"
    path.write_text(path.read_text().replace("region: eu-west", "region: mars"))
    assert main(["check", "--config", str(path)]) == PROBLEM
    assert "'mars' is not in" in capsys.readouterr().out


def test_a_file_that_says_nothing_is_nobodys(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("colour: blue\n")
    with pytest.raises(ConfigError, match="whose file is this"):
        guessed(path)
    assert main(["check", "--config", str(path)]) == PROBLEM
    assert "--role" in capsys.readouterr().out


def test_an_agent_that_knows_no_router_is_an_agent(tmp_path, capsys):
    path = tmp_path / "agent.yaml"
    path.write_text("name: e\nregion: eu\nkeep_warm: []\npackages: .\nstate_file: agent.state\n")
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: OK (agent)\n"


def test_a_file_that_may_be_of_several_is_asked_about(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("name: e\nregion: eu\nstate_file: x.state\n")
    with pytest.raises(ConfigError, match="agent or router"):
        guessed(path)
