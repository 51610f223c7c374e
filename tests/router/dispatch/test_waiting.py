"""The line before full endpoints: who waits for whom, who is told at once, who keeps its place."""

from typing import Any

import pytest

from isochrone.router.upstream.event import Cause
from isochrone.router.wire.http import first
from tests.router.dispatch.world import World, full


def test_who_finds_everybody_full_waits_and_begins_anew():
    world = World()
    full(world)
    world.wait(0.01)
    world.sent[0].answer()
    assert [s.to for s in world.open] == ["eu.a"], "at once: a slot is free"
    world.open[0].answer()
    assert [r.status for r in world.ended] == [200, 200]
    served = world.ended[1]
    assert (served.attempts_count, served.waited_s > 0) == (2, True)
    assert [t.outcome for t in served.attempts] == ["answered 503", "answered"]


def test_the_numbers_of_tries_go_on_after_waiting():
    world = World()
    full(world)
    world.sent[0].answer()
    world.wait(0.05)
    sent = [first(s.request.headers, b"x-isochrone-attempt") for s in world.sent]
    assert sent == [b"0", b"0", b"1"]


def test_a_newcomer_does_not_overtake_its_class_but_a_higher_one_does():
    world = World()
    full(world)
    later = world.ask()
    urgent = world.ask(priority=1)
    assert world.waiting == 3
    for _ in range(4):
        world.open[0].answer()
        world.wait(0.05)
    order = [r.query.request_id for r in world.ended]
    assert order == ["q1", "q4", "q2", "q3"]
    assert later.status == urgent.status == 200


def test_a_place_that_becomes_free_goes_to_who_waits_not_to_who_comes():
    world = World()
    full(world)
    world.now_s += 0.5  # nobody has looked since
    world.sent[0].answer()
    newcomer = world.ask()
    assert world.under_way == ["q2"]
    assert newcomer.status is None


def test_what_expires_in_line_never_starts():
    world = World()
    full(world)
    late = world.ask(timeout_s=1.0)
    world.wait(1.1)
    assert (late.status, late.code) == (504, "deadline_exceeded")
    world.sent[0].answer()
    world.wait(0.1)
    assert b"q3" not in [first(s.request.headers, b"x-request-id") for s in world.sent]


def test_the_line_is_bounded_and_says_when_there_is_room():
    world = World(capacity=2)
    full(world)
    world.ask()
    refused = world.ask()
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.retry_after_s >= 1


def test_the_lowest_class_gives_way_when_the_line_is_full():
    world = World(capacity=1)
    full(world)
    world.ended.clear()
    urgent = world.ask(priority=1)
    (shed,) = world.ended
    assert (shed.query.request_id, shed.status, shed.code) == ("q2", 503, "overloaded")
    assert urgent.status is None


def test_who_leaves_the_line_is_counted_and_forgotten():
    world = World()
    full(world)
    gone = world.ask()
    gone.leave()
    assert world.waiting == 1
    assert [(r.query.request_id, r.status) for r in world.ended] == [("q3", 0)]


def test_when_nobody_is_left_who_may_come_back_those_in_line_are_told():
    world = World()
    full(world)
    world.kill("eu.a")
    world.wait(0.05)
    assert [r.code for r in world.ended] == ["no_endpoint"]


def test_what_only_the_line_makes_too_late_is_told_when_to_come_back():
    world = World()
    full(world)
    for _ in range(60):
        world.ask()
    refused = world.ask(timeout_s=0.2)
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.retry_after_s >= 1


@pytest.mark.parametrize(
    ("regions", "code"),
    [
        pytest.param({"us"}, "overloaded", id="all who wait in the other lane want these slots"),
        pytest.param({"eu"}, None, id="nobody does"),
    ],
)
def test_what_waits_in_another_lane_for_the_same_slots_counts(regions, code):
    world = World(names=("eu.a", "us.b"))
    for site in ("us", "us", "eu", "eu"):
        world.ask(required_regions=frozenset({site}))
    world.open[1].answer(503)
    world.open[2].answer(503)
    for _ in range(60):
        world.ask(required_regions=frozenset({"us"}))
    refused = world.ask(timeout_s=0.3, required_regions=frozenset(regions), version="1")
    assert (refused.code if refused.status else None) == code


def test_what_a_long_body_needs_is_not_what_the_one_before_it_needed():
    world = World()
    for site in world.ledger.sites():
        site.holdings["digits", "1"].served(0.0, 0.02, 100_000, world.now_s)
        for number in range(40):
            now_s = world.now_s + number
            site.path.observe(0.01 + 0.5 * (number % 2), 1_000_000 * (number % 2), now_s)
    full(world)
    world.ask()
    assert world.ask(timeout_s=0.3).status is None
    assert world.ask(timeout_s=0.3, body_bytes=5_000_000).code == "deadline_exceeded"


def test_who_finds_one_gone_and_the_other_full_waits():
    world = World(names=("eu.a", "us.b"))
    world.ask(required_regions=frozenset({"us"}))
    world.ask(required_regions=frozenset({"us"}))
    world.open[1].answer(503)
    client = world.ask(priority=1)
    world.open[1].lose(Cause.REFUSED)
    assert client.status is None
    assert world.waiting == 2
    world.wait(0.3)
    assert len(world.sent) == 3, "it is not asked again and again who refused"
    world.open[0].answer()
    world.wait(0.3)
    assert world.under_way == ["q3"]


def beside_a_full_one(**changes: Any) -> World:
    """`us.b` is full, as is known, and the next request goes to `eu.a`; `open[0]` is at `us.b`."""
    world = World(names=("eu.a", "us.b"), **changes)
    for _ in range(2):
        world.ask(required_regions=frozenset({"us"}))
    world.open[1].answer(503)
    return world


@pytest.mark.parametrize("status", [404, 421, 507, 500, 302])
def test_who_was_asked_in_vain_waits_for_who_is_only_full(status):
    world = beside_a_full_one()
    client = world.ask(priority=1)
    assert world.open[1].to == "eu.a"
    world.open[1].answer(status)
    assert (client.status, world.waiting) == (None, 2)
    world.wait(0.3)
    assert len(world.sent) == 3, "where it failed it is not asked again"
    world.open[0].answer()
    world.wait(0.3)
    world.open[0].answer()
    assert client.status == 200
    assert [t.endpoint for t in world.ended[-1].attempts] == ["eu.a", "us.b"]
    assert world.ended[-1].repeats == (status in {500, 302})


@pytest.mark.parametrize(
    ("status", "changes", "asked"),
    [
        pytest.param(500, {}, {"repeatable": False}, id="it may not be repeated"),
        pytest.param(404, {}, {"repeatable": False}, id="who knows whether it has run"),
        pytest.param(500, {"retries": 0.0}, {}, id="the budget is used up"),
    ],
)
def test_who_may_not_be_asked_again_is_told_at_once(status, changes, asked):
    world = beside_a_full_one(**changes)
    client = world.ask(priority=1, **asked)
    world.open[1].reports = False
    world.open[1].answer(status)
    assert (client.status, client.code) == (502, "unusable_answer")


def test_a_request_that_crashed_two_is_poison_however_long_it_waited_between():
    world = World(names=("eu.a", "eu.c", "us.b"))
    for _ in range(2):
        world.ask(required_regions=frozenset({"us"}))
    world.open[1].answer(503)
    world.kill("eu.c")
    client = world.ask(priority=1)
    world.open[1].lose()
    assert (client.status, world.waiting) == (None, 2)
    world.open[0].answer()
    world.wait(0.1)
    assert world.under_way == ["q3"]
    world.open[0].lose()
    assert (client.status, client.code) == (502, "poison")


def test_nobody_waits_behind_one_who_was_asked_in_vain_where_others_may_go():
    world = beside_a_full_one()
    world.ask(priority=1)
    world.open[1].answer(500)
    world.ask(priority=5)
    assert [s.to for s in world.open] == ["us.b", "eu.a"]


def test_who_comes_back_to_a_full_line_keeps_its_place():
    world = World(capacity=1)
    full(world)
    world.sent[0].answer()
    world.wait(0.05)
    world.ask()
    assert (len(world.open), world.waiting) == (1, 1)
    world.open[0].answer(503)
    assert world.waiting == 2
    world.wait(0.5)
    assert first(world.open[0].request.headers, b"x-request-id") == b"q2"


def test_who_leaves_after_its_start_was_started_too_late_and_the_newest_go_first():
    world = World()
    full(world)
    second = world.ask()
    for _ in range(3):
        world.ask()
    world.sent[0].answer()
    world.wait(0.5)
    world.open[0].answer()
    world.wait(0.5)
    assert world.under_way == ["q3"]
    second.leave()
    world.wait(0.2)
    assert world.under_way == ["q6"]


def test_who_found_everybody_full_after_its_turn_keeps_its_place():
    world = World()
    full(world)
    for _ in range(3):
        world.ask()
    world.sent[0].answer()
    world.wait(0.05)
    world.open[0].answer(503)  # another router was faster
    world.wait(0.05)
    assert world.under_way == ["q2"]
