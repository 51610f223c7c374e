"""`isochrone check`: OK, or every problem with its place."""

import json
from pathlib import Path

import pytest

from isochrone.deploy.check import guessed
from isochrone.deploy.cli import PROBLEM, main
from isochrone.deploy.local.files import write_files
from isochrone.deploy.local.layout import lay_out
from isochrone.router.errors import ConfigError
from isochrone.router.law.region_policy import RegionPolicy


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


REGIONS = """\
regions:
  eu: {location: {latitude: 53, longitude: -6}, jurisdiction: IE}
  us: {location: {latitude: 39, longitude: -77}, jurisdiction: US}
tenants: {default: {require: any}}
"""


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("agent", "name: e\nregion: eu\npackages: .\n"),
        ("cloud", "name: c\nregion: eu\npackages: .\nmodels: [{name: digits}]\n"),
        ("router", "name: r\nregion: eu\nregions_file: regions.yaml\n"),
        ("regions", REGIONS),
        ("scenario", None),
    ],
)
def test_the_least_file_of_each_role_is_guessed(tmp_path, capsys, role, text):
    (tmp_path / "regions.yaml").write_text(REGIONS)
    shipped = Path(__file__).parents[2] / "configs" / "scenarios" / "worldwide.yaml"
    path = shipped if text is None else tmp_path / "least.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["check", "--config", str(path)]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out == f"{path}: OK ({role})\n"


@pytest.mark.parametrize("role", ["agent", "cloud"])
def test_a_missing_folder_of_packages_is_found(tmp_path, capsys, role):
    path = tmp_path / f"{role}.yaml"
    more = "models: [{name: digits}]\n" if role == "cloud" else ""
    path.write_text(f"name: e\nregion: eu\npackages: nowhere\n{more}")
    assert main(["check", "--config", str(path)]) == PROBLEM
    told = capsys.readouterr().out
    assert told.startswith(f"{path}:3:11: packages {tmp_path / 'nowhere'} is no directory; make it")


def test_faults_of_all_kinds_in_an_agents_file_are_told_at_once(tmp_path):
    path, report = tmp_path / "agent.yaml", tmp_path / "report.json"
    path.write_text(
        "name: e\nregion: eu\npackages: nowhere\nslots: many\ncolour: blue\n"
        "admin: {listen: 0.0.0.0:1}\nrouters: [{url: ftp://x}]\n"
    )
    main(["check", "--config", str(path), "--role", "agent", "--json", str(report)])
    told = {one["key"] for one in json.loads(report.read_text())["problems"]}
    assert told == {"packages", "slots", "colour", "admin", "routers[0]"}


def test_faults_of_all_kinds_in_a_router_and_its_region_policy_are_told_at_once(tmp_path):
    regions, path = tmp_path / "regions.yaml", tmp_path / "router.yaml"
    regions.write_text(
        REGIONS.replace("{default: {require: any}}", "")
        + "  default: {require: any, colour: blue}\n"
        "  bank: {require: [eu], keys_file: nokeys, weight: heavy}\n"
        "geoip_database: nowhere.mmdb\n"
        "rules:\n"
        "- {name: a, match: {tenant: bnak}, require: [mars]}\n"
        "- {name: b, match: {tenant: bank}, require: [us], prefer: {us: 99}}\n"
    )
    path.write_text(
        "name: r\nregion: venus\nregions_file: regions.yaml\n"
        "enrolment: {lease_s: 1, renew_s: 2}\nendpoints: [{name: a, url: 'ftp://h', region: eu}]\n"
    )
    report = tmp_path / "report.json"
    assert main(["check", "--config", str(path), "--json", str(report)]) == PROBLEM
    told = {
        (Path(one["file"]).name, one["key"]) for one in json.loads(report.read_text())["problems"]
    }
    assert told == {
        ("router.yaml", "enrolment"),
        ("router.yaml", "endpoints[0]"),
        ("regions.yaml", "tenants.default.colour"),
        ("regions.yaml", "tenants.bank.weight"),
        ("nokeys", ""),
        ("regions.yaml", "geoip_database"),
        ("regions.yaml", "rules[0].match.tenant"),
        ("regions.yaml", "rules[0].require[0]"),
        ("regions.yaml", "rules[1].prefer.us"),
        ("regions.yaml", "rules[1].require"),
    }


@pytest.mark.parametrize(
    ("more", "key", "told"),
    [
        (
            "rules: [{name: r, match: {tenant: bank}, require: [us]}]\n",
            "rules[0].require",
            "tenant bank (eu) and rule r (us) have none in common",
        ),
        (
            "models: {fraud: {require: [US]}}\n",
            "models.fraud.require",
            "tenant bank (eu) and model fraud (US) have none in common",
        ),
        (
            "data_classes: {card: {require: [us], tenants: [bank]}}\n",
            "data_classes.card.require",
            "tenant bank (eu) and data class card (us) have none in common",
        ),
    ],
    ids=["a rule", "a model of the tenant's own list", "a data class of the tenant"],
)
def test_laws_that_leave_no_region_are_found(tmp_path, capsys, more, key, told):
    path = tmp_path / "regions.yaml"
    bank = "{default: {require: any}, bank: {require: [eu], models: [fraud]}}"
    path.write_text(REGIONS.replace("{default: {require: any}}", bank) + more)
    assert main(["check", "--config", str(path)]) == PROBLEM
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{key} leaves no region: {told}" in line
    RegionPolicy.from_file(path)  # it is obeyed all the same: such requests are refused


def test_a_law_that_some_region_satisfies_is_none_of_them(tmp_path, capsys):
    path = tmp_path / "regions.yaml"
    path.write_text(REGIONS + "rules: [{name: r, require: [IE]}]\nmodels: {m: {require: [us]}}\n")
    assert main(["check", "--config", str(path)]) == 0, capsys.readouterr().out


def test_an_unknown_region_is_told_beside_other_faults_of_the_file(tmp_path, capsys):
    (tmp_path / "regions.yaml").write_text(REGIONS)
    path = tmp_path / "router.yaml"
    path.write_text("name: r\nregion: uss\nregions_file: regions.yaml\ntries: 0\n")
    assert main(["check", "--config", str(path)]) == PROBLEM
    first, second = capsys.readouterr().out.splitlines()
    assert "tries must be a whole number in [1, 10], not 0" in first
    assert f"{path}:2:9: region 'uss' is not in" in second
    assert second.endswith("did you mean us?")
