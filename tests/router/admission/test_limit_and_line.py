"""Laws of the limit and the line: never too many, one outcome each, nothing late is started."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from router.admission.limit import Lease, Limit
from router.admission.queue import Line, Outcome, Ticket

STEP = st.one_of(
    st.tuples(st.just("join"), st.floats(0, 5)),
    st.tuples(st.just("start"), st.just(0.0)),
    st.tuples(st.just("pass"), st.floats(0, 3)),
    st.tuples(st.just("expire"), st.just(0.0)),
    st.tuples(st.just("leave"), st.integers(0, 50)),
)


@given(
    st.integers(1, 5), st.lists(st.tuples(st.sampled_from(["take", "give"]), st.integers(0, 20)))
)
def test_there_are_never_more_leases_than_slots(slots, steps):
    freed = []
    limit = Limit(slots, lambda: freed.append(1))
    ever: list[Lease] = []
    for action, which in steps:
        if action == "take" and (lease := limit.acquire()):
            ever.append(lease)
        elif action == "give" and ever:
            ever[which % len(ever)].release()
        assert 0 <= limit.in_flight <= slots
    assert limit.in_flight == len(ever) - len(freed)


def test_a_lease_that_is_released_twice_frees_one_place():
    limit = Limit(2)
    first, second = limit.acquire(), limit.acquire()
    assert first
    assert second
    assert limit.acquire() is None
    first.release()
    first.release()
    assert limit.in_flight == 1


@given(st.integers(0, 4), st.lists(STEP, max_size=60))
def test_every_ticket_ends_once_and_nothing_late_is_started(capacity, steps):
    line, now = Line(capacity), 0.0
    tickets: list[Ticket] = []
    outcomes: Counter[int] = Counter()

    def settled(key):
        return lambda _: outcomes.update([key])

    for action, value in steps:
        if action == "join":
            if ticket := line.join(now, now + value, 5, settled(len(tickets))):
                tickets.append(ticket)
        elif action == "start" and (ticket := line.start(now)):
            assert ticket.deadline_s > now
        elif action == "pass":
            now += value
        elif action == "expire":
            line.expire(now)
        elif action == "leave" and tickets:
            line.leave(tickets[value % len(tickets)])
        assert len(line) <= capacity
    assert all(count == 1 for count in outcomes.values())
    waiting = [ticket for ticket in tickets if ticket.outcome is None]
    assert len(waiting) == len(line)
    assert sum(outcomes.values()) + len(waiting) == len(tickets)


def test_first_come_is_first_served():
    line = Line(3)
    tickets = [line.join(0.0, 10.0, 5, lambda _: None) for _ in range(3)]
    assert [line.start(1.0) for _ in range(4)] == [*tickets, None]


@given(st.lists(st.integers(1, 9), max_size=20))
def test_the_most_urgent_starts_first_and_equals_keep_their_order(priorities):
    line = Line(20)
    tickets = [line.join(0.0, 1.0, priority, lambda _: None) for priority in priorities]
    started = [line.start(0.5) for _ in priorities]
    by_urgency = sorted(zip(priorities, tickets, strict=True), key=lambda pair: pair[0])
    assert started == [ticket for _, ticket in by_urgency]


def test_an_expired_ticket_makes_room_for_a_new_one():
    line = Line(1)
    seen: list[Outcome] = []
    line.join(0.0, 1.0, 5, seen.append)
    assert line.join(0.5, 2.0, 5, seen.append) is None
    assert line.join(1.0, 2.0, 5, seen.append) is not None
    assert seen == [Outcome.EXPIRED]
