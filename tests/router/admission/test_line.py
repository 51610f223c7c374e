"""Laws of a line: one outcome each, nothing late is started, most urgent first, no band starves."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.admission.queue import Line, Outcome, Room
from tests.router.admission.waiting import join, line_of

STEP = st.one_of(
    st.tuples(st.just("join"), st.floats(0, 5), st.integers(1, 9), st.sampled_from("abc")),
    st.tuples(st.just("start")),
    st.tuples(st.just("expire")),
    st.tuples(st.just("pass"), st.floats(0, 3)),
    st.tuples(st.just("leave"), st.integers(0, 50)),
    st.tuples(st.just("correct"), st.integers(0, 50), st.floats(0, 5)),
)


class Story:
    """A line, and everything that ever happened in it."""

    def __init__(self, capacity, age_s):
        self.line = line_of(capacity, age_s, b=2.5)
        self.now_s = 0.0
        self.tickets = []
        self.outcomes: Counter[int] = Counter()

    def act(self, action, *values):
        getattr(self, f"do_{action}")(*values)

    def do_join(self, left_s, priority, tenant):
        joining, told = True, len(self.tickets)

        def settled(_):
            assert not joining or told != len(self.tickets)
            self.outcomes[told] += 1

        ticket = join(
            self.line,
            tenant,
            priority,
            now_s=self.now_s,
            deadline_s=self.now_s + left_s,
            settled=settled,
        )
        joining = False
        if ticket:
            assert not self.outcomes[told]
            self.tickets.append(ticket)

    def do_start(self):
        before = len(self.line)
        head = self.line.peek(self.now_s)
        ticket = self.line.start(self.now_s)
        assert ticket is head
        if ticket:
            assert ticket.deadline_s > self.now_s
            assert ticket.outcome is Outcome.STARTED
        else:
            assert all(t.outcome for t in self.tickets) or not before

    def do_expire(self):
        self.line.expire(self.now_s)
        assert all(t.outcome for t in self.tickets if t.deadline_s <= self.now_s)

    def do_pass(self, seconds):
        self.now_s += seconds

    def do_leave(self, which):
        if self.tickets:
            self.line.leave(self.tickets[which % len(self.tickets)])

    def do_correct(self, which, cost_s):
        if self.tickets:
            self.line.correct(self.tickets[which % len(self.tickets)], cost_s)


@given(st.integers(0, 6), st.sampled_from([0.5, 2.0, 1e9]), st.lists(STEP, max_size=80))
def test_every_ticket_ends_once_and_nothing_late_is_started(capacity, age_s, steps):
    story = Story(capacity, age_s)
    for step in steps:
        story.act(*step)
        assert len(story.line) <= capacity
        waiting = [ticket for ticket in story.tickets if ticket.outcome is None]
        assert len(waiting) == len(story.line) == story.line.room.waiting
    assert all(count <= 1 for count in story.outcomes.values())
    ended = [ticket for ticket in story.tickets if ticket.outcome is not None]
    assert sum(story.outcomes.values()) == len(ended)


def test_first_come_is_first_served():
    line = line_of(3)
    tickets = [join(line) for _ in range(3)]
    assert [line.start(1.0) for _ in range(4)] == [*tickets, None]


@given(st.lists(st.integers(1, 9), max_size=20))
def test_the_most_urgent_starts_first_and_equals_keep_their_order(priorities):
    line = line_of()
    tickets = [join(line, priority=priority) for priority in priorities]
    started = [line.start(0.5) for _ in priorities]
    by_urgency = sorted(zip(priorities, tickets, strict=True), key=lambda pair: pair[0])
    assert started == [ticket for _, ticket in by_urgency]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.floats(0, 3))))
def test_within_a_tenant_and_a_priority_it_is_first_come_first_served(arrivals):
    line, now_s = line_of(age_s=1.0), 0.0
    tickets = []
    for tenant, priority, pause_s in arrivals:
        now_s += pause_s
        tickets.append(join(line, tenant, priority, now_s=now_s))
    started: dict[tuple[str, int], list[int]] = {}
    while ticket := line.start(now_s):
        started.setdefault((ticket.tenant, ticket.priority), []).append(ticket.order)
    assert sum(map(len, started.values())) == len(tickets)
    assert all(orders == sorted(orders) for orders in started.values())


def test_an_expired_ticket_makes_room_for_a_new_one():
    line = line_of(1)
    seen: list[Outcome] = []
    join(line, deadline_s=1.0, settled=seen.append)
    assert join(line, now_s=0.5, deadline_s=2.0, settled=seen.append) is None
    assert join(line, now_s=1.0, deadline_s=2.0, settled=seen.append) is not None
    assert seen == [Outcome.EXPIRED]


@pytest.mark.parametrize(
    ("priority", "waited_s", "band"),
    [
        pytest.param(9, 0.0, 9, id="just come"),
        pytest.param(9, 1.9, 9, id="not yet"),
        pytest.param(9, 2.0, 8, id="one band for each 2 s"),
        pytest.param(9, 7.0, 6, id="several at once"),
        pytest.param(5, 8.0, 1, id="up to the first"),
        pytest.param(5, 800.0, 1, id="and no further"),
        pytest.param(0, 0.0, 1, id="nobody is above the first"),
        pytest.param(12, 0.0, 9, id="nobody is below the last"),
    ],
)
def test_waiting_lifts(priority, waited_s, band):
    line = line_of(age_s=2.0)
    ticket = join(line, priority=priority, now_s=100.0)
    line.expire(100.0 + waited_s)
    assert ticket
    assert ticket.band == band


def test_who_was_lifted_goes_before_those_of_its_tenant_who_came_later():
    line = line_of(age_s=1.0)
    old, new = join(line, priority=6), join(line, priority=5, now_s=0.9)
    assert [line.start(1.0), line.start(1.0)] == [old, new]


@given(
    priority=st.integers(1, 9),
    age_s=st.floats(0.5, 4),
    tenants=st.integers(1, 5),
    step_s=st.floats(0.05, 0.5),
)
def test_no_band_starves(priority, age_s, tenants, step_s):
    """However many urgent ones keep coming: lifted to the top, it waits for one turn of each."""
    line, now_s = line_of(age_s=age_s), 0.0
    last = join(line, "patient", priority)
    assert last
    for tenant in range(tenants):
        join(line, f"urgent{tenant}", 1)
        join(line, f"urgent{tenant}", 1)
    while last.outcome is None:
        ticket = line.start(now_s)
        assert ticket
        join(line, ticket.tenant, 1, now_s=now_s)
        now_s += step_s
        assert now_s <= (priority - 1) * age_s + (tenants + 2) * step_s


def test_without_ageing_the_least_urgent_would_wait_for_ever():
    line = line_of()
    join(line, "patient", 2)
    for now_s in range(1000):
        join(line, "urgent", 1, now_s=now_s)
        ticket = line.start(now_s)
        assert ticket
        assert ticket.tenant == "urgent"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_where_that_is_asked_for_the_earliest_deadline_of_a_tenant_goes_first(deadlines):
    line: Line[object] = Line(Room(100), by_deadline=True)
    for deadline_s in deadlines:
        join(line, deadline_s=float(deadline_s))
    started = [line.start(0.0) for _ in deadlines]
    ends = [ticket.deadline_s for ticket in started if ticket is not None]
    assert ends == sorted(map(float, deadlines))


def test_those_about_to_start_take_no_place_from_others():
    line = line_of(capacity=1)
    line.room.spare = 1
    assert join(line)
    assert join(line)
    assert join(line) is None


def test_a_line_says_when_it_has_to_be_looked_at_again():
    line = line_of(age_s=5.0)
    assert line.room.due_s == float("inf")
    join(line, now_s=1.0, deadline_s=4.0)
    assert line.room.due_s == 4.0
    join(line, now_s=1.0, priority=1, deadline_s=3.0)
    assert line.room.due_s == 3.0
    assert list(line.lanes) == [None]
