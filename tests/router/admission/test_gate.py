"""The router's waiting room: lanes do not block each other, one capacity, waits that are true."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.gate import Gate
from router.admission.queue import Outcome


def offer(gate, lane, tenant="a", priority=5, *, now_s=0.0, deadline_s=1e9, cost_s=1.0, **more):
    more.setdefault("settled", lambda _: None)
    return gate.offer(
        lane,
        tenant=tenant,
        priority=priority,
        now_s=now_s,
        deadline_s=deadline_s,
        cost_s=cost_s,
        item=lane,
        **more,
    )


def gate_of(capacity=100, age_s=inf, **weights) -> Gate[str, object]:
    return Gate(capacity, weights=weights, age_s=age_s)


def test_a_lane_that_cannot_start_holds_no_other_up():
    gate = gate_of()
    blocked, free = offer(gate, "cold"), offer(gate, "warm")
    assert gate.lanes(0.0) == ["cold", "warm"]
    assert gate.peek("cold", 0.0) is blocked
    assert gate.start("warm", 0.0) is free
    assert gate.lanes(0.0) == ["cold"]
    assert gate.start("warm", 0.0) is None
    assert gate.peek("warm", 0.0) is None


def test_lanes_take_turns_and_the_more_urgent_go_first():
    gate = gate_of()
    for lane in ("x", "y", "z"):
        for _ in range(2):
            offer(gate, lane)
    offer(gate, "y", priority=4)
    assert gate.lanes(0.0) == ["y", "x", "z"]
    gate.start("y", 0.0)
    assert gate.lanes(0.0) == ["x", "z", "y"]
    gate.start("x", 0.0)
    assert gate.lanes(0.0) == ["z", "y", "x"]


def test_a_lane_is_lifted_with_who_waits_in_it():
    gate = gate_of(age_s=1.0)
    offer(gate, "old", priority=7)
    offer(gate, "new", priority=5, now_s=2.5)
    assert gate.lanes(2.5) == ["old", "new"]
    offer(gate, "newest", priority=3, now_s=2.5)
    assert gate.lanes(2.5) == ["newest", "old", "new"]
    assert gate.lanes(3.0)[0] == "newest"


def test_one_capacity_for_all_lanes_and_the_lowest_gives_way_in_whichever_lane():
    gate = gate_of(3)
    seen: list[Outcome] = []
    offer(gate, "x", priority=6, settled=seen.append)
    offer(gate, "y")
    offer(gate, "y")
    assert offer(gate, "z") is not None
    assert (seen, gate.waiting, gate.lanes(0.0)) == ([Outcome.SHED], 3, ["y", "z"])
    assert offer(gate, "x") is None
    assert (gate.queued("x"), gate.queued("y"), gate.queued("z")) == (0, 2, 1)


def test_who_is_too_late_makes_room_in_every_lane():
    gate = gate_of(2)
    seen: list[Outcome] = []
    for lane in ("x", "y"):
        offer(gate, lane, deadline_s=1.0, settled=seen.append)
    gate.expire(1.0)
    assert (seen, gate.waiting, gate.lanes(1.0)) == ([Outcome.EXPIRED] * 2, 0, [])


def test_who_is_told_that_it_is_late_may_come_back_to_its_lane_at_once():
    gate = gate_of(3)
    back = []
    offer(gate, "x", deadline_s=1.0, settled=lambda _: back.append(offer(gate, "x", now_s=1.0)))
    late = offer(gate, "x", now_s=1.0)
    assert gate.queued("x") == gate.waiting == 2
    assert [gate.start("x", 1.0), gate.start("x", 1.0)] == [*back, late]


def test_tenants_share_a_lane_by_weight():
    gate = gate_of(big=3.0)
    for _ in range(12):
        offer(gate, "x", "big")
        offer(gate, "x", "small")
    started = [ticket.tenant for _ in range(12) if (ticket := gate.start("x", 0.0))]
    assert started.count("big") == 9


def test_a_correction_after_the_lane_has_closed_is_nothing():
    gate = gate_of()
    ticket = offer(gate, "x")
    gate.start("x", 0.0)
    assert ticket
    gate.correct(ticket, 100.0)
    assert (gate.waiting, gate.lanes(0.0)) == (0, [])


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
        gate.start("x", 0.0)
    told_s = gate.ahead_s("x", tenant=tenant, priority=priority)
    mine = offer(gate, "x", tenant, priority, cost_s=cost_s)
    before_s = 0.0
    while (ticket := gate.start("x", 0.0)) is not mine:
        assert ticket
        before_s += ticket.cost_s
    assert told_s == pytest.approx(before_s)


def test_a_flood_of_one_tenant_does_not_make_another_miss():
    gate = gate_of()
    for _ in range(60):
        offer(gate, "x", "flood")
    misses = {
        tenant: gate.would_miss(
            "x", tenant=tenant, priority=5, now_s=10.0, deadline_s=20.0, slots=2, needs_s=1.0
        )
        for tenant in ("flood", "quiet")
    }
    assert misses == {"flood": True, "quiet": False}


@pytest.mark.parametrize(
    ("queued", "slots", "needs_s", "misses"),
    [
        pytest.param(0, 1, 10.0, False, id="just in time"),
        pytest.param(0, 1, 10.1, True, id="even without waiting"),
        pytest.param(8, 1, 2.0, False, id="behind eight seconds of work"),
        pytest.param(9, 1, 2.0, True, id="behind nine"),
        pytest.param(9, 2, 2.0, False, id="behind nine at two slots"),
        pytest.param(1, 0, 0.0, True, id="nobody works"),
    ],
)
def test_what_cannot_make_its_deadline_is_known_at_once(queued, slots, needs_s, misses):
    gate = gate_of()
    for _ in range(queued):
        offer(gate, "x")
    assert misses == gate.would_miss(
        "x",
        tenant="a",
        priority=5,
        now_s=100.0,
        deadline_s=110.0,
        slots=slots,
        needs_s=needs_s,
    )


STEP = st.one_of(
    st.tuples(st.just("offer"), st.sampled_from("xyz"), st.integers(1, 9), st.floats(0, 4)),
    st.tuples(st.just("start"), st.sampled_from("xyz")),
    st.tuples(st.just("pass"), st.floats(0, 2)),
    st.tuples(st.just("leave"), st.integers(0, 99)),
)


@given(st.integers(0, 6), st.lists(STEP, max_size=80))
def test_the_lanes_hold_exactly_those_who_wait(capacity, steps):
    gate, now_s, tickets = gate_of(capacity, age_s=1.0), 0.0, []
    for action, *values in steps:
        if action == "offer":
            lane, priority, left_s = values
            ticket = offer(gate, lane, "a", priority, now_s=now_s, deadline_s=now_s + left_s)
            tickets.extend([ticket] if ticket else [])
        elif action == "start":
            ticket = gate.start(values[0], now_s)
            assert ticket is None or (ticket.item == values[0] and ticket.deadline_s > now_s)
        elif action == "pass":
            now_s += values[0]
        elif tickets:
            gate.leave(tickets[values[0] % len(tickets)])
        waiting = [ticket for ticket in tickets if ticket.outcome is None]
        assert gate.waiting == len(waiting) <= capacity
        assert {t.item for t in waiting} == {lane for lane in "xyz" if gate.queued(lane)}
        assert sum(map(gate.queued, "xyz")) == len(waiting)
