"""Every shipped scenario can be played, by every rule, and a run holds what its scenario says."""

from pathlib import Path

import msgspec
import pytest

from isochrone.router.process.settings import load_settings
from isochrone.router.simulate.play import Player
from isochrone.router.simulate.rules import OURS, RULES
from isochrone.router.simulate.run import Task
from isochrone.router.simulate.scenario import Scenario
from isochrone.router.simulate.world import placed

SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "scenarios").glob("*.yaml"))
TRACE = (0.0, 0.1, 0.11, 0.5)
LIGHT = {"scale_to_zero": 0.01}


def player(path, seconds, **changes):
    """The scenario's first seconds."""
    scenario = load_settings(path, Scenario)
    shorter = msgspec.structs.replace(
        scenario, seconds=seconds, warmup_s=min(1.0, seconds / 3), **changes
    )
    return Player(placed(shorter), TRACE)


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_shipped_scenario_can_be_played(path):
    load = LIGHT.get(path.stem, 0.3)
    run = player(path, 20.0 if path.stem in LIGHT else 2.0)(Task(OURS, load, 1))
    assert run.requests > 5
    assert run.outside_requirement == 0
    assert run.failed_share < 0.01
    assert run.coverage90 is not None


@pytest.mark.parametrize("name", RULES)
def test_every_rule_gets_the_same_requests_and_keeps_the_law(name):
    play = player(SHIPPED[-1], 1.5)
    assert SHIPPED[-1].stem == "worldwide"
    run, other = play(Task(name, 0.4, 1)), play(Task("nearest", 0.4, 1))
    assert run.outside_requirement == 0
    assert [(one.client_region, one.requirement, one.requests) for one in run.by] == [
        (one.client_region, one.requirement, one.requests) for one in other.by
    ]


def test_what_comes_in_the_warm_up_is_played_and_not_counted():
    whole = player(SHIPPED[-1], 3.0)
    world = msgspec.structs.replace(whole.world.scenario, warmup_s=2.0)
    late = Player(placed(world), TRACE)
    early_run, late_run = whole(Task("p2c", 0.3, 1)), late(Task("p2c", 0.3, 1))
    assert late_run.requests == pytest.approx(early_run.requests / 2, rel=0.2)
    assert late_run.cost == early_run.cost


def test_cost_is_price_times_slots_kept_warm():
    scenario = load_settings(SHIPPED[-1], Scenario)
    assert player(SHIPPED[-1], 2.0)(Task("random", 0.2, 1)).cost == pytest.approx(
        # everything is warm from two seconds before the first request on
        (2.0 + 2.0) * sum(one.price * one.slots for one in scenario.endpoints)
    )
