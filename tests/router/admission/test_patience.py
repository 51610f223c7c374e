"""Who takes a turn when clients hang up: the newest, of its own kind only, and not for long."""

from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.admission.queue import Line, Outcome, Ticket
from tests.router.admission.waiting import join, line_of


def stand(line: Line[object], **who: Any) -> Ticket[object]:
    ticket = join(line, **who)
    assert ticket
    return ticket


def hang_up(line, *, waited_s, now_s, **who):
    """Somebody has waited so long, and goes."""
    ticket = stand(line, now_s=now_s - waited_s, **who)
    line.expire(now_s)
    line.leave(ticket)


@pytest.mark.parametrize(
    ("now_s", "newest"),
    [
        pytest.param(5.0, True, id="at once"),
        pytest.param(7.9, True, id="for as long as that one had waited"),
        pytest.param(8.0, False, id="and no longer"),
    ],
)
def test_after_somebody_has_hung_up_the_newest_goes_first(now_s, newest):
    line = line_of()
    first, second = join(line), join(line)
    hang_up(line, waited_s=3.0, now_s=5.0)
    assert line.peek(now_s) is (second if newest else first)
    assert line.start(now_s) is (second if newest else first)


def test_a_longer_patience_is_not_forgotten_for_a_shorter_one():
    line = line_of()
    _, second = join(line), join(line)
    hang_up(line, waited_s=3.0, now_s=5.0)
    hang_up(line, waited_s=0.1, now_s=5.0)
    assert line.start(7.9) is second


@pytest.mark.parametrize(
    "who",
    [
        pytest.param({"tenant": "b"}, id="another tenant"),
        pytest.param({"priority": 4}, id="another priority"),
    ],
)
def test_the_impatience_of_others_changes_nothing(who):
    line = line_of()
    first, second, other = join(line), join(line), join(line, **who)
    hang_up(line, waited_s=3.0, now_s=5.0, **who)
    started = [line.start(5.0) for _ in range(3)]
    assert [ticket for ticket in started if ticket is not other] == [first, second]


def test_who_hangs_up_after_its_start_was_started_too_late():
    line = line_of()
    gone = stand(line)
    line.start(3.0)
    _, second = join(line, now_s=3.0), join(line, now_s=3.0)
    line.leave(gone)
    assert line.start(4.0) is second


def test_what_expires_is_no_impatience():
    line = line_of()
    first, _, late = join(line), join(line), stand(line, deadline_s=4.0)
    line.expire(4.0)
    line.leave(late)
    assert line.start(4.0) is first


def test_when_nobody_is_left_patience_is_as_good_as_new():
    line = line_of()
    hang_up(line, waited_s=3.0, now_s=5.0)
    first, _ = join(line, now_s=5.0), join(line, now_s=5.0)
    assert line.start(5.0) is first


def test_a_turn_that_age_has_earned_is_taken_by_the_newest():
    """Else those who had waited for just so long would start, when they are about to go."""
    line = line_of(age_s=2.0)
    old = stand(line)
    join(line, "b", priority=4, now_s=2.5)
    hang_up(line, waited_s=2.4, now_s=2.5)
    new = stand(line, now_s=2.5)
    assert line.start(2.5) is new
    assert (old.band, old.outcome, new.band) == (4, None, 4)


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=40), st.sampled_from([1.0, 3.0]))
def test_who_takes_a_turn_does_not_change_whose_turn_it_is(arrivals, weight):
    """But for ties, which go to whose first came first."""
    patient, impatient = line_of(a=weight), line_of(a=weight)
    for line in (patient, impatient):
        for tenant in arrivals:
            join(line, tenant)
    for tenant in set(arrivals):
        hang_up(impatient, tenant=tenant, waited_s=9.0, now_s=9.0)
    more = 0
    for _ in arrivals:
        mine, other = patient.start(9.0), impatient.start(9.0)
        assert mine
        assert other
        more += (mine.tenant == "a") - (other.tenant == "a")
        assert -1 <= more <= 1


def test_shares_hold_however_many_hang_up():
    line, now_s, served = line_of(age_s=2.0), 0.0, Counter[str]()
    waiting = deque[Ticket[object]]()
    for _ in range(3000):
        now_s += 0.01
        for tenant in ("greedy", "greedy", "greedy", "modest"):
            waiting.append(stand(line, tenant=tenant, now_s=now_s))
        while waiting[0].joined_s < now_s - 2.2:
            line.leave(waiting.popleft())
        ticket = line.start(now_s)
        assert ticket
        served[ticket.tenant] += 1
    assert 0.48 <= served["modest"] / served.total() <= 0.52


# Everything is slow for a while, and clients who say nothing of their patience ask again.

SLOTS, LOAD, TRIES = 10, 0.9, 3
SLOW_FROM_S, SLOW_TO_S, LOOK_S, END_S = 5.0, 10.0, 30.0, 40.0


@dataclass
class Call:
    """What a client wants at `asked_s`."""

    asked_s: float
    tries: int = 0
    ok: bool = False


class Storm:
    """A server whose work, once it has begun, cannot be stopped; in virtual time.

    It takes `behind` calls more than it serves at once, and serves these in order.
    """

    def __init__(
        self, service_s: float, patience_s: float, *, behind: int = 0, told: bool = True
    ) -> None:
        self.line: Line[Any] = line_of(age_s=2.0)
        self.service_s, self.patience_s, self.told = service_s, patience_s, told
        self.behind, self.taken = behind, deque[tuple[Call, float]]()
        self.rng, self.numbers = Random(1), count()
        self.now_s, self.busy = 0.0, 0
        self.events: list[tuple[Any, ...]] = []
        self.calls: list[Call] = []

    def run(self) -> float:
        """The share of the calls between LOOK_S and END_S that were answered."""
        asked_s = 0.0
        while asked_s < END_S:
            self.calls.append(Call(asked_s))
            self.at(asked_s, self.ask, self.calls[-1])
            asked_s += self.rng.expovariate(LOAD * SLOTS / self.service_s)
        while self.events:
            self.now_s, _, act, what = heappop(self.events)
            act(*what)
        last = [call.ok for call in self.calls if call.asked_s >= LOOK_S]
        return sum(last) / len(last)

    def at(self, due_s, act, *what):
        heappush(self.events, (due_s, next(self.numbers), act, what))

    def ask(self, call):
        call.tries += 1
        gone_s = self.now_s + self.patience_s
        ticket = self.line.join(
            tenant="a",
            priority=5,
            now_s=self.now_s,
            deadline_s=self.now_s + 30.0,
            cost_s=self.service_s,
            item=(call, gone_s),
            settled=lambda _: None,
        )
        self.at(gone_s, self.give_up, call, ticket)
        self.serve()

    def serve(self):
        room = SLOTS + self.behind
        while self.busy + len(self.taken) < room and (ticket := self.line.start(self.now_s)):
            self.taken.append(ticket.item)
            if self.busy < SLOTS:
                self.begin()

    def begin(self):
        slow = SLOW_FROM_S <= self.now_s < SLOW_TO_S
        self.busy += 1
        due_s = self.now_s + self.service_s * (1 + slow)
        self.at(due_s, self.served, *self.taken.popleft())

    def served(self, call, gone_s):
        self.busy -= 1
        call.ok = call.ok or self.now_s <= gone_s
        if self.taken:
            self.begin()
        self.serve()

    def give_up(self, call, ticket):
        if call.ok:
            return
        self.line.expire(self.now_s)
        if self.told:
            self.line.leave(ticket)
        else:
            self.line.room.end(ticket, Outcome.WITHDRAWN)
        if call.tries < TRIES:
            self.at(self.now_s + self.rng.uniform(0.05, 0.1), self.ask, call)


@pytest.mark.parametrize(
    "storm",
    [
        pytest.param(partial(Storm, 0.1, 0.5), id="impatient"),
        pytest.param(partial(Storm, 0.1, 2.05), id="they go just after age has lifted them"),
        pytest.param(partial(Storm, 0.1, 4.05), id="and so do these, the second time"),
        pytest.param(partial(Storm, 0.4, 1.0), id="a long service"),
        pytest.param(partial(Storm, 0.1, 0.5, behind=34), id="they leave after they were started"),
    ],
)
def test_a_storm_of_retries_does_not_outlive_its_cause(storm):
    assert storm().run() >= 0.95


def test_served_in_order_it_would():
    assert Storm(0.1, 0.5, told=False).run() < 0.5
