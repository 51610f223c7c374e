"""`isochrone simulate`: what it prints and writes, and what it refuses before it begins."""

import json
from random import Random
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from isochrone.deploy.check import guessed
from isochrone.deploy.cli import FINE, USAGE, main
from isochrone.deploy.simulate import SCENARIOS, shipped
from isochrone.router.fleet import ledger as ledger_module
from isochrone.router.members import membership
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import Member
from isochrone.router.policy import choose
from isochrone.router.policy.policy import Policy
from isochrone.router.policy.query import Query
from isochrone.router.simulate.rules import OURS, RULES
from isochrone.router.wire.report import CallReport, HeldModel, Lease, ModelState

SMALL = """\
seconds: 6
warmup_s: 1
places:
  Rome: {latitude: 41.9, longitude: 12.5, population: 3}
  Oslo: {latitude: 59.9, longitude: 10.8, population: 1}
routers:
- {name: r, city: Rome, region: south}
endpoints:
- {name: a, city: Rome, region: south, slots: 4, service: {mean_s: 0.05}}
- {name: b, city: Oslo, region: north, slots: 4, service: {mean_s: 0.05}}
tenants:
- {name: public, share: 3}
- {name: bank, require: [north]}
"""
CITIES = "city,Lat,Long,Population\nFrankfurt,50.1,8.7,700\nNew York,40.7,-74,8000\n"
PAIRS = (
    "src_city,dst,distance_km,avg_ms,min_ms\n"
    '"New York","Frankfurt Germany, Eurasia",6200,86,85\n'
    '"New York","Atlantis Nowhere, Ocean",1,1,1\n'
)


@pytest.fixture
def small(tmp_path):
    """A scenario of two endpoints and six seconds."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def simulate(*arguments):
    return main(["simulate", *map(str, arguments), "--jobs", "1"])


def test_every_rule_is_listed_with_where_it_is_from(capsys):
    assert main(["simulate", "--list"]) == FINE
    told = capsys.readouterr().out
    for name, rule in RULES.items():
        assert f"{name} " in told
        assert rule.about in told


def test_a_comparison_is_printed_written_and_drawn(small, tmp_path, capsys):
    target, picture = tmp_path / "out.json", tmp_path / "out.svg"
    done = simulate(
        *(small, "--algorithm", f"{OURS},random", "--load", "0.3,0.5", "--seed", "1-2"),
        *("--baseline", "random", "--json", target, "--svg", picture, "--regions"),
    )
    assert done == FINE
    captured = capsys.readouterr()
    assert "[8/8]" in captured.err
    assert "p99 / random" in captured.out
    told = json.loads(target.read_bytes())
    assert (told["schema"], told["ok"], told["scenario"]) == ("isochrone.simulate/1", True, "small")
    assert [(run["algorithm"], run["load"], run["seed"]) for run in told["runs"]][:3] == [
        (OURS, 0.3, 1),
        ("random", 0.3, 1),
        (OURS, 0.3, 2),
    ]
    for run in told["runs"]:
        assert run["requests"] == pytest.approx(160 * run["load"] * 5, rel=0.2)
        assert run["outside_requirement"] == 0
        assert {part["requirement"] for part in run["by"]} == {"any", "north"}
        assert {part["client_region"] for part in run["by"]} == {"south"}
    by_seed = {(run["load"], run["seed"]): run["requests"] for run in told["runs"]}
    assert all(run["requests"] == by_seed[run["load"], run["seed"]] for run in told["runs"])
    assert len(told["summary"]) == 4
    for one in told["summary"]:
        assert one["p99_ms"]["lo"] <= one["p99_ms"]["mean"] <= one["p99_ms"]["hi"]
    assert ET.parse(picture).getroot().tag.endswith("svg")  # our own


def test_the_same_command_gives_the_same_figures(small, tmp_path, capsys):
    for name in ("one", "two"):
        assert simulate(small, "--algorithm", OURS, "--seed", 3, "--json", tmp_path / name) == FINE
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    capsys.readouterr()


def test_cities_and_round_trips_come_from_files_and_are_accounted_for(small, tmp_path, capsys):
    (tmp_path / "cities.csv").write_text(CITIES)
    (tmp_path / "pairs.csv").write_text(PAIRS)
    target = tmp_path / "out.json"
    done = simulate(
        *(small, "--algorithm", "random", "--seed", 1, "--json", target),
        *("--cities", tmp_path / "cities.csv", "--rtt", tmp_path / "pairs.csv"),
    )
    assert done == FINE
    assert "1 pairs of cities measured, 1 left out" in capsys.readouterr().out
    assert json.loads(target.read_bytes())["world"] == {
        "cities_read": 2,
        "cities_of_split": 2,
        "pairs_measured": 1,
        "pairs_unmatched": 1,
        "round_trips_used": 2,
        "round_trips_fitted": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "which scenario? One of bursty"),
        (["worldwild"], "neither a shipped scenario nor a file; did you mean worldwide?"),
        (["sinkhole", "--algorithm", "randon"], "'randon' is no rule; did you mean random?"),
        (["sinkhole", "--load", "high"], "--load: 'high' is no list of numbers"),
        (["sinkhole", "--load", "0"], "--load: each must be above 0"),
        (["sinkhole", "--load", "nan"], "--load: each must be above 0"),
        (["sinkhole", "--seed", "1-999999999"], "--seed: '1-999999999' is no list of numbers"),
        (["sinkhole", "--algorithm", "random", "--baseline", "c3"], "not among the rules"),
        (["sinkhole", "--seconds", "3"], "--seconds must be above the scenario's warm-up, 5"),
        (["sinkhole", "--rtt", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["bursty"], "name a CSV file with --trace"),
    ],
)
def test_what_cannot_be_played_is_2_and_one_clear_line(arguments, told, capsys):
    assert simulate(*arguments) == USAGE
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""


def test_a_shipped_scenario_is_known_as_one_by_check():
    assert {guessed(SCENARIOS / f"{name}.yaml") for name in shipped()} == {"scenario"}


def snippets() -> list[str]:
    """The Python of docs/routing.md."""
    text = (SCENARIOS.parents[1] / "docs" / "routing.md").read_text()
    return [part.split("```")[0] for part in text.split("```python\n")[1:]]


def test_a_rule_of_ones_own_is_played_as_the_manual_says(small, tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text(snippets()[0])
    rules = f"{OURS},{mine}:emptiest"
    assert simulate(small, "--algorithm", rules, "--seed", "1", "--baseline", OURS) == FINE
    assert "mine.py:emptiest" in capsys.readouterr().out


def test_a_rule_that_is_not_there_is_refused_before_anything_runs(small, tmp_path, capsys):
    assert simulate(small, "--algorithm", f"{tmp_path / 'none.py'}:rule") == USAGE
    assert "none.py:rule cannot be used" in capsys.readouterr().err


def test_our_decision_is_used_elsewhere_as_the_manual_says():
    endpoint = Endpoint("a", "http://127.0.0.1:1", "eu")
    held = HeldModel("digits", "1", ModelState.WARM)
    report = CallReport(
        instance="i",
        sequence=1,
        in_flight=0,
        slots=2,
        latency_s=0.02,
        wait_s=0.0,
        infer_s=0.02,
        models_generation=1,
    )
    scope: dict[str, Any] = {
        "members": [Member(endpoint, 2, (held,))],
        "now_s": 1.0,
        "report": report,
        **vars(choose),
        **vars(ledger_module),
        **vars(membership),
        "Query": Query,
        "Policy": Policy,
        "Lease": Lease,
        "Random": Random,
    }
    before, after = snippets()[1].split("lease = ")
    first, *rest = before.splitlines()
    follow, *others = rest
    exec(f"{first}\n{follow}", scope)
    ledger = scope["ledger"]
    ledger.probe_ready(ledger.site("a"), 0.01, 1.0)
    exec("\n".join([*others, "lease = " + after]), scope)
    assert ledger.site("a").occupancy.in_flight == 0
    assert scope["scored"].permit.endpoint == endpoint
