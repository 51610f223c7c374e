"""What may be done beside what clients asked for: second tries, and hedges, within budgets."""

from typing import Any

import pytest

from isochrone.router.dispatch.budget import HedgeBudget
from isochrone.router.wire.http import first
from tests.router.dispatch.world import World


def test_refused_requests_earn_no_second_tries():
    world = World(in_flight=1, retries=1.0)
    for _ in range(50):
        world.ask()
    assert world.spare.retries.left(world.now_s) == 1


def test_a_retry_storm_stays_within_the_budget():
    world = World(names=("eu.a", "eu.b", "us.c"), slots=50, retries=0.2)
    for _ in range(50):
        world.ask()
    for sent in world.open:
        sent.answer(500)
    assert len(world.sent) == 60


def hedging(**changes: Any) -> World:
    budget = HedgeBudget(0.05)
    for _ in range(100):
        budget.requested()
    return World(names=("eu.a", "eu.b"), hedges=budget, **changes)


def test_a_late_answer_is_hedged_and_the_first_one_wins():
    world = hedging()
    client = world.ask()
    world.wait(1.0)
    slow, fast = world.sent
    assert {slow.to, fast.to} == {"eu.a", "eu.b"}
    fast.answer()
    assert slow.over, "the loser is cancelled"
    assert client.status == 200
    (record,) = world.ended
    assert (record.hedges, [t.outcome for t in record.attempts]) == (
        1,
        ["answered", "another was faster"],
    )
    assert first(client.headers, b"x-isochrone-reason") == b"hedge"
    assert all(site.occupancy.in_flight == 0 for site in world.ledger.sites())


NO_HEDGES = {
    "generations are not hedged": {"action": "generate"},
    "nor what may not be repeated": {"repeatable": False},
    "nor a model that is not to be": {"model": "alone"},
    "nor what could not make its deadline": {"timeout_s": 0.09},
}


@pytest.mark.parametrize("changes", NO_HEDGES.values(), ids=NO_HEDGES)
def test_the_gates_of_hedging(changes):
    for asked, sent in ((changes, 1), ({}, 2)):
        world = hedging()
        world.ask(**asked)
        world.wait(0.08)
        assert len(world.sent) == sent


def test_nothing_is_hedged_to_a_busy_endpoint_or_without_a_budget():
    world = hedging(slots=2)
    for _ in range(2):
        world.ask()
    world.wait(1.0)
    assert len(world.sent) == 2, "each has half of its slots in use"
    world = World(names=("eu.a", "eu.b"), hedges=HedgeBudget(0.05))
    world.ask()
    world.wait(1.0)
    assert len(world.sent) == 1
    assert not World().runner.hedging, "off costs nothing"
