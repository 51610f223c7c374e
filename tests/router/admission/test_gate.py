"""The router's waiting room: models do not block each other, one capacity, waits that are true."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.admission.gate import Gate
from isochrone.router.admission.queue import Outcome


def offer(gate, model, tenant="a", priority=5, *, lane="any", now_s=0.0, cost_s=1.0, **more):
    more.setdefault("settled", lambda _: None)
    more.setdefault("deadline_s", 1e9)
    return gate.line(model, now_s).join(
        lane=lane,
        tenant=tenant,
        priority=priority,
        now_s=now_s,
        cost_s=cost_s,
        item=model,
        **more,
    )


def gate_of(capacity=100, age_s=inf, **weights) -> Gate[object]:
    return Gate(capacity, weights=weights, age_s=age_s)


def test_a_model_that_cannot_start_holds_no_other_up():
    gate = gate_of()
    blocked, free = offer(gate, "cold"), offer(gate, "warm")
    assert gate.models(0.0) == ["cold", "warm"]
    assert gate.line("cold", 0.0).peek(0.0) is blocked
    assert gate.line("warm", 0.0).start(0.0) is free
    assert gate.models(0.0) == ["cold"]
    assert gate.line("warm", 0.0).start(0.0) is None
    assert gate.line("warm", 0.0).peek(0.0) is None


def test_a_lane_that_cannot_start_holds_no_other_up():
    gate = gate_of()
    blocked, free = offer(gate, "x", lane="us", priority=1), offer(gate, "x", lane="eu")
    assert gate.line("x", 0.0).peek(0.0) is blocked
    assert gate.line("x", 0.0).peek(0.0, {"us"}) is free
    assert gate.line("x", 0.0).start(0.0, {"us"}) is free
    assert gate.line("x", 0.0).peek(0.0, {"us"}) is None
    assert (gate.line("x", 0.0).queued("us"), gate.line("x", 0.0).queued("eu")) == (1, 0)


def test_models_take_turns_and_the_more_urgent_go_first():
    gate = gate_of()
    for model in ("x", "y", "z"):
        for _ in range(2):
            offer(gate, model)
    offer(gate, "y", priority=4)
    assert gate.models(0.0) == ["y", "x", "z"]
    gate.line("y", 0.0).start(0.0)
    assert gate.models(0.0) == ["x", "z", "y"]
    gate.line("x", 0.0).start(0.0)
    assert gate.models(0.0) == ["z", "y", "x"]


def test_a_model_is_lifted_with_who_waits_for_it():
    gate = gate_of(age_s=1.0)
    offer(gate, "old", priority=7)
    offer(gate, "new", priority=5, now_s=2.5)
    assert gate.models(2.5) == ["old", "new"]
    offer(gate, "newest", priority=3, now_s=2.5)
    assert gate.models(2.5) == ["newest", "old", "new"]
    assert gate.models(3.0)[0] == "newest"


def test_one_capacity_for_all_and_the_lowest_gives_way_wherever_it_waits():
    gate = gate_of(3)
    seen: list[Outcome] = []
    offer(gate, "x", priority=6, settled=seen.append)
    offer(gate, "y")
    offer(gate, "y")
    assert offer(gate, "z") is not None
    assert (seen, gate.waiting, gate.models(0.0)) == ([Outcome.SHED], 3, ["y", "z"])
    assert offer(gate, "x") is None
    assert [gate.line(model, 0.0).queued("any") for model in "xyz"] == [0, 2, 1]


def test_who_is_too_late_makes_room_everywhere():
    gate = gate_of(2)
    seen: list[Outcome] = []
    for model in ("x", "y"):
        offer(gate, model, deadline_s=1.0, settled=seen.append)
    gate.expire(1.0)
    assert (seen, gate.waiting, gate.models(1.0)) == ([Outcome.EXPIRED] * 2, 0, [])


def test_who_is_told_that_it_is_late_may_come_back_at_once():
    gate = gate_of(3)
    back = []
    offer(gate, "x", deadline_s=1.0, settled=lambda _: back.append(offer(gate, "x", now_s=1.0)))
    late = offer(gate, "x", now_s=1.0)
    assert gate.line("x", 1.0).queued("any") == gate.waiting == 2
    assert [gate.line("x", 1.0).start(1.0), gate.line("x", 1.0).start(1.0)] == [*back, late]


def test_tenants_share_a_model_by_weight():
    gate = gate_of(big=3.0)
    for _ in range(12):
        offer(gate, "x", "big")
        offer(gate, "x", "small")
    started = [ticket.tenant for _ in range(12) if (ticket := gate.line("x", 0.0).start(0.0))]
    assert started.count("big") == 9


def test_who_spreads_over_many_lanes_gets_no_more_than_its_share():
    gate = gate_of(1000)
    for number in range(90):
        offer(gate, "x", "spread", lane=f"lane{number % 9}")
    for _ in range(10):
        offer(gate, "x", "plain")
    started = [ticket.tenant for _ in range(20) if (ticket := gate.line("x", 0.0).start(0.0))]
    assert started.count("plain") == 10


def test_nobody_saves_up_by_waiting_where_nothing_starts():
    gate = gate_of(1000)
    offer(gate, "x", "patient", lane="full")
    for _ in range(60):
        offer(gate, "x", "busy", lane="free")
    for _ in range(40):
        gate.line("x", 0.0).start(0.0, {"full"})
    for _ in range(20):
        offer(gate, "x", "patient", lane="free")
    after = [
        ticket.tenant for _ in range(20) if (ticket := gate.line("x", 0.0).start(0.0, {"full"}))
    ]
    assert after.count("patient") == 10


def test_who_was_started_in_vain_has_its_place_and_its_share_back():
    gate = gate_of(100, age_s=10.0)
    first = offer(gate, "x", "a", now_s=1.0)
    for tenant in "bab":
        offer(gate, "x", tenant, now_s=2.0)
    assert gate.line("x", 3.0).start(3.0) is first
    back = offer(gate, "x", "a", now_s=4.0, again=first)
    assert back
    assert first
    assert (back.joined_s, back.order, back.band) == (1.0, first.order, 5)
    started = [gate.line("x", 4.0).start(4.0) for _ in range(4)]
    assert started[0] is back
    assert [ticket.tenant for ticket in started if ticket] == ["a", "b", "a", "b"]


def test_who_comes_back_is_lifted_for_all_the_time_that_it_has_waited():
    gate = gate_of(age_s=1.0)
    ticket = offer(gate, "x", priority=7)
    gate.line("x", 1.5).start(1.5)
    back = offer(gate, "x", priority=7, now_s=1.5, again=ticket)
    assert back
    assert back.band == 6
    gate.expire(2.0)
    assert back.band == 5


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=60), st.integers(1, 400))
def test_however_often_somebody_comes_back_nobody_is_lost(steps, others):
    gate = gate_of(10_000)
    for number in range(others):
        offer(gate, "x", f"once{number}")
    waiting = others
    for tenant, in_vain in steps:
        offer(gate, "x", tenant)
        ticket = gate.line("x", 0.0).start(0.0)
        assert ticket
        if in_vain:
            waiting += 1
            offer(gate, "x", ticket.tenant, again=ticket)
        assert gate.waiting == waiting


def test_a_correction_after_the_line_has_closed_is_nothing():
    gate = gate_of()
    ticket = offer(gate, "x")
    gate.line("x", 0.0).start(0.0)
    assert ticket
    gate.correct(ticket, 100.0)
    assert (gate.waiting, gate.models(0.0)) == (0, [])


COSTS = st.sampled_from([0.25, 0.5, 2.0])
WAITING = st.lists(st.tuples(st.sampled_from("abc"), st.integers(4, 6)), max_size=25)


@given(WAITING, st.integers(0, 25), COSTS, st.sampled_from("abcd"), st.integers(4, 6))
def test_the_work_ahead_is_the_work_that_then_starts_before(
    waiting, starts, cost_s, tenant, priority
):
    gate = gate_of(b=2.0)
    for who, band in waiting:
        offer(gate, "x", who, band, cost_s=cost_s)
    for _ in range(starts):
        gate.line("x", 0.0).start(0.0)
    told_s = gate.line("x", 0.0).ahead_s(tenant, priority, "any")
    mine = offer(gate, "x", tenant, priority, cost_s=cost_s)
    before_s = 0.0
    while (ticket := gate.line("x", 0.0).start(0.0)) is not mine:
        assert ticket
        before_s += ticket.cost_s
    assert told_s == pytest.approx(before_s)


def test_a_flood_of_one_tenant_does_not_make_another_wait():
    gate = gate_of()
    for _ in range(60):
        offer(gate, "x", "flood")
    line = gate.line("x", 0.0)
    assert [line.ahead_s(tenant, 5, "any") for tenant in ("flood", "quiet")] == [60.0, 1.0]


@pytest.mark.parametrize("queued", [0, 1, 8])
def test_a_newcomer_is_behind_the_work_of_those_who_wait(queued):
    gate = gate_of()
    for _ in range(queued):
        offer(gate, "x")
    assert gate.line("x", 0.0).ahead_s("a", 5, "any") == queued


def test_who_was_started_in_vain_has_its_place_back_even_if_the_room_has_filled():
    gate = gate_of(1)
    first = offer(gate, "x")
    gate.line("x", 0.0).start(0.0)
    assert offer(gate, "x")
    assert offer(gate, "x") is None
    back = offer(gate, "x", again=first)
    assert gate.line("x", 0.0).start(0.0) is back


STEP = st.one_of(
    st.tuples(st.just("offer"), st.sampled_from("xyz"), st.integers(1, 9), st.floats(0, 4)),
    st.tuples(st.just("start"), st.sampled_from("xyz")),
    st.tuples(st.just("pass"), st.floats(0, 2)),
    st.tuples(st.just("leave"), st.integers(0, 99)),
)


@given(st.integers(0, 6), st.lists(STEP, max_size=80))
def test_the_lines_hold_exactly_those_who_wait(capacity, steps):
    gate, now_s, tickets = gate_of(capacity, age_s=1.0), 0.0, []
    for action, *values in steps:
        if action == "offer":
            lane, priority, left_s = values
            ticket = offer(gate, lane, "a", priority, now_s=now_s, deadline_s=now_s + left_s)
            tickets.extend([ticket] if ticket else [])
        elif action == "start":
            ticket = gate.line(values[0], now_s).start(now_s)
            assert ticket is None or (ticket.item == values[0] and ticket.deadline_s > now_s)
        elif action == "pass":
            now_s += values[0]
        elif tickets:
            gate.leave(tickets[values[0] % len(tickets)])
        gate.expire(now_s)
        waiting = [ticket for ticket in tickets if ticket.outcome is None]
        assert gate.waiting == len(waiting) <= capacity
        queued = {model: gate.line(model, now_s).queued("any") for model in "xyz"}
        assert {t.item for t in waiting} == {model for model in "xyz" if queued[model]}
        assert sum(queued.values()) == len(waiting)
