"""Laws of the room: never above its capacity, the lowest class shed first, the higher kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.admission.queue import Outcome, Ticket
from tests.router.admission.waiting import join, line_of


@pytest.mark.parametrize(
    ("priority", "most"),
    [(1, 10), (4, 10), (5, 10), (6, 8), (7, 6), (8, 4), (9, 2)],
)
def test_classes_below_the_default_may_fill_a_part_of_the_room(priority, most):
    line = line_of(10)
    assert sum(join(line, priority=priority) is not None for _ in range(20)) == most


@pytest.mark.parametrize("priority", range(1, 10))
def test_a_room_for_one_takes_one_of_any_class(priority):
    line = line_of(1)
    assert join(line, priority=priority)
    assert line_of(0).room.capacity == 0
    assert join(line_of(0), priority=priority) is None


@pytest.mark.parametrize(
    ("held", "newcomer", "shed"),
    [
        pytest.param([5, 5, 5], 4, 2, id="the newest of the lowest class goes"),
        pytest.param([5, 3, 5, 2], 4, 2, id="wherever it stands"),
        pytest.param([9, 3, 5, 2], 4, 0, id="the lowest class before the newest"),
        pytest.param([5, 5, 5], 5, None, id="never an equal"),
        pytest.param([5, 5, 5], 6, None, id="never a higher one"),
        pytest.param([1, 1, 1], 1, None, id="not even for the most urgent"),
    ],
)
def test_a_full_room_makes_place_for_a_higher_class(held, newcomer, shed):
    line = line_of(len(held))
    tickets = [join(line, priority=priority) for priority in held]
    assert (join(line, priority=newcomer) is not None) == (shed is not None)
    gone = [number for number, ticket in enumerate(tickets) if ticket and ticket.outcome]
    assert gone == ([] if shed is None else [shed])
    assert len(line) == len(held)


def test_a_lower_class_that_finds_its_part_taken_may_still_push_out_a_lower_one():
    line = line_of(10)
    seen: list[Outcome] = []
    join(line, priority=9, settled=seen.append)
    for _ in range(7):
        join(line, priority=5)
    assert join(line, priority=6) is not None
    assert (seen, len(line)) == ([Outcome.SHED], 8)
    assert join(line, priority=6) is None


def test_who_has_waited_long_is_as_safe_as_the_band_it_was_lifted_to():
    line = line_of(1, age_s=1.0)
    join(line, priority=7)
    assert join(line, priority=5, now_s=2.0) is None
    assert join(line, priority=4, now_s=2.0) is not None


def test_nobody_is_pushed_out_by_one_who_is_too_late_itself():
    line = line_of(1)
    held = join(line, priority=9)
    assert join(line, priority=1, now_s=5.0, deadline_s=5.0) is None
    assert held
    assert held.outcome is None


def test_who_is_pushed_out_may_come_back_at_once():
    line = line_of(2)
    back = []

    def again(_):
        back.append(join(line, priority=6))

    held = [join(line, priority=7, settled=again) for _ in range(2)]
    urgent = join(line, priority=1)
    assert [ticket.outcome for ticket in held if ticket] == [Outcome.SHED, Outcome.SHED]
    assert len(line) == 2
    assert back[0] is None  # it came before there was a place for it
    assert [line.start(0.0), line.start(0.0), line.start(0.0)] == [urgent, back[1], None]


ARRIVALS = st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1.5), st.booleans()), max_size=60)


@given(st.integers(1, 8), ARRIVALS)
def test_a_higher_class_is_never_refused_while_a_lower_one_is_held(capacity, arrivals):
    line, now_s = line_of(capacity, age_s=1.0), 0.0
    held: list[Ticket[object]] = []
    for priority, pause_s, starts in arrivals:
        now_s += pause_s
        line.expire(now_s)
        before = [ticket for ticket in held if ticket.outcome is None]
        ticket = join(line, priority=priority, now_s=now_s)
        shed = [t for t in before if t.outcome is Outcome.SHED]
        if ticket is None:
            assert all(t.band <= priority for t in before)
            assert not shed
        elif shed:
            (gone,) = shed
            lowest = max(t.band for t in before)
            assert gone.band == lowest > priority
            assert gone.order == max(t.order for t in before if t.band == lowest)
        held.extend([ticket] if ticket else [])
        assert len(line) <= capacity
        if starts:
            line.start(now_s)


def test_memory_follows_those_who_wait():
    line = line_of()
    join(line, "stays", deadline_s=1e9)
    for number in range(5000):
        ticket = join(line, f"t{number % 3}", now_s=number * 1e-4, deadline_s=1e6 + number)
        assert ticket
        line.leave(ticket)
    room = line.room
    assert len(room._timers._entries) < 50
    assert len(room._newest[5]._entries) < 50
