"""Every baseline plays two seconds of the shipped scenario to the end, within the law."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from isochrone.router.process.settings import load_settings
from isochrone.router.simulate.arrivals import requests
from isochrone.router.simulate.baselines import BASELINES
from isochrone.router.simulate.harness import play
from isochrone.router.simulate.plugged import plugged
from isochrone.router.simulate.scenario import Scenario
from isochrone.router.simulate.world import placed

WORLDWIDE = Path(__file__).parents[4] / "configs" / "scenarios" / "worldwide.yaml"


@pytest.fixture(scope="module")
def world():
    scenario = load_settings(WORLDWIDE, Scenario)
    return placed(msgspec.structs.replace(scenario, seconds=2.0, warmup_s=0.0))


@pytest.mark.parametrize("name", BASELINES)
def test_every_request_ends_and_stays_where_it_may_be(world, name):
    asked = list(requests(world, 0.3, seed=1))
    endings = []
    rule = BASELINES[name].among(len(world.scenario.routers))
    played = play(world, asked, plugged(rule, 1), seed=1, ended=lambda _, end: endings.append(end))
    assert played.requests == len(endings) == len(asked) > 100
    assert all(ending.lawful for ending in endings)
    assert Counter(ending.served for ending in endings)[True] > 0.9 * len(endings)
    assert (played.probes > 0) == (name in {"prequal", "gorgo", "selective_push"})
