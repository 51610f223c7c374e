"""Whose turn it is among those who wait, and when somebody is looked for who can take them."""

from typing import Any

import pytest

from isochrone.router.dispatch.turns import LOOKS_COUNT
from isochrone.router.policy.query import Query
from isochrone.router.wire.http import first
from tests.router.dispatch.world import World, full


def test_news_of_an_endpoint_are_looked_at_with_the_next_sweep():
    world = World()
    full(world)
    world.wait(0.5)
    looks = watched(world)
    world.dispatcher.sweep(world.now_s + 0.001)
    assert not looks
    (site,) = world.ledger.sites()
    world.dispatcher.news(site)
    world.dispatcher.sweep(world.now_s + 0.002)
    assert [query.request_id for query in looks] == ["q2"]


def test_who_may_go_elsewhere_does_not_overtake_a_higher_class():
    world = World(names=("eu.a", "us.b"))
    europe = frozenset({"eu"})
    held = [world.ask(required_regions=europe), world.ask(required_regions=frozenset({"us"}))]
    assert {s.to for s in world.open} == {"eu.a", "us.b"}
    world.ask(required_regions=europe)
    urgent = world.open[2]
    urgent.answer(503)
    world.ask(required_regions=europe, priority=1)
    world.ask(priority=9)
    assert world.waiting >= 2
    assert held[0].status is None
    world.sent[0].answer()
    world.wait(0.3)
    begun = [first(s.request.headers, b"x-request-id") for s in world.open if s.to == "eu.a"]
    assert begun == [b"q4"]


@pytest.mark.parametrize("priority", [1, 5, 9])
def test_a_place_that_nobody_has_seen_yet_goes_to_who_waits_in_another_lane(priority):
    world = World()
    world.ask(priority=1, required_regions=frozenset({"eu"}))
    world.open[0].answer(503)
    assert (world.waiting, world.open) == (1, [])
    world.now_s += 0.5  # by now it has room again
    world.ask(priority=priority)
    assert world.under_way == ["q1"]


def test_who_can_start_where_nobody_else_waits_starts_at_once():
    world = World(names=("eu.a", "us.b"))
    europe = frozenset({"eu"})
    for _ in range(2):
        world.ask(required_regions=europe)
    world.open[1].answer(503)
    assert world.waiting == 1
    world.ask(required_regions=frozenset({"us"}))
    assert [s.to for s in world.open] == ["eu.a", "us.b"]


def test_one_tenant_in_many_lanes_gets_one_share():
    world = World(capacity=1000)
    full(world)
    pins = [None, "1"]
    regions = [None, frozenset({"eu"}), frozenset({"eu", "us"})]
    for number in range(36):
        lane: dict[str, Any] = {
            "version": pins[number % 2],
            "required_regions": regions[number % 3],
        }
        world.ask(tenant="spread", **lane)
    for _ in range(6):
        world.ask(tenant="plain")
    for _ in range(14):
        world.open[0].answer()
        world.wait(0.2)
    tenants = [r.query.tenant for r in world.ended][2:]
    assert len(tenants) == 12
    assert tenants.count("plain") >= 5, "half, within one largest cost of each"


def watched(world: World) -> list[Query]:
    """For whom somebody to take them is looked for, from now on."""
    looks: list[Query] = []
    best = world.chooser.best

    def look(query: Query, tried=()):
        looks.append(query)
        return best(query, tried)

    world.chooser.best = look
    return looks


def test_a_sweep_looks_again_only_where_something_may_have_changed():
    world = World(capacity=1000)
    full(world)
    looks = watched(world)
    for site in world.ledger.sites():
        site.holdings["digits", "1"].full_until_s = world.now_s + 20
    for number in range(100):
        regions = frozenset({"eu", f"r{number}"})
        world.ask(required_regions=regions)
    looks.clear()
    world.dispatcher.sweep(world.now_s)
    assert 0 < len(looks) <= LOOKS_COUNT
    for _ in range(10):
        world.dispatcher.sweep(world.now_s)
    seen = {query.required_regions for query in looks}
    assert len(seen) == 101, "each lane has had its look"
    looks.clear()
    world.dispatcher.sweep(world.now_s + 0.01)
    assert not looks
