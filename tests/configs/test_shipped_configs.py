"""The shipped configuration parses, its schemas accept it, and they are what the structs give."""

import json
from pathlib import Path

import jsonschema
import pytest

from isochrone.deploy.schemas import KINDS, main, rendered
from isochrone.router.law.region_policy import RegionPolicy, region_problems
from isochrone.router.process.document import read_document
from isochrone.router.process.settings import problems_in

CONFIGS = Path(__file__).parents[2] / "configs"

SHIPPED = [
    *((name, CONFIGS / f"{name}.yaml") for name in KINDS if name != "scenario"),
    *(("scenario", path) for path in sorted((CONFIGS / "scenarios").iterdir())),
]

each_kind = pytest.mark.parametrize("name", KINDS)
each_file = pytest.mark.parametrize(
    ("name", "path"), SHIPPED, ids=[path.stem for _, path in SHIPPED]
)


@each_file
def test_a_shipped_file_has_no_problems(name, path):
    assert problems_in(path, KINDS[name]) == []


@each_file
def test_a_shipped_file_is_accepted_by_its_schema(name, path):
    made = json.loads((CONFIGS / "schema" / f"{name}.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(made)
    jsonschema.Draft202012Validator(made).validate(read_document(path).data)


def test_every_scenario_that_is_promised_is_shipped():
    promised = {"worldwide", "bursty", "scale_to_zero", "sinkhole", "region_loss", "slow_twin"}
    promised.add("recovered")
    assert promised <= {path.stem for name, path in SHIPPED if name == "scenario"}


@each_kind
def test_a_schema_is_what_the_structs_give(name):
    committed = (CONFIGS / "schema" / f"{name}.schema.json").read_bytes()
    assert committed == rendered(name), "run: make schemas"


@each_kind
def test_a_typo_is_refused_by_the_schema_too(name):
    made = json.loads(rendered(name))
    errors = jsonschema.Draft202012Validator(made).iter_errors({"no_such_key": 1})
    assert "additionalProperties" in {error.validator for error in errors}


def test_every_schema_is_written(tmp_path):
    main(tmp_path / "schema")
    written = {path.name for path in (tmp_path / "schema").iterdir()}
    assert written == {f"{name}.schema.json" for name in KINDS}
    assert written == {path.name for path in (CONFIGS / "schema").iterdir()}


def test_the_shipped_region_policy_can_be_used():
    assert region_problems(CONFIGS / "regions.yaml") == []
    policy = RegionPolicy.from_file(CONFIGS / "regions.yaml")
    assert policy.rule("default", "digits").required_regions is None
    assert policy.rule("acme", "digits").required_regions == frozenset({"eu-west", "eu-central"})
    assert policy.known_models == {"digits", "digits-large"}
    place = policy.locator.place("192.0.2.1")
    assert (place.region, place.country) == ("eu-west", "IE")
