"""The attempt machine, as transcripts and as laws."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from isochrone.router.dispatch import command
from isochrone.router.dispatch.classify import retry_after_s
from isochrone.router.dispatch.command import Abort, Choose, Command, Finish, Forward, GiveUp, Send
from isochrone.router.dispatch.event import ClientGone, DeadlinePassed, HedgeDue, Next
from isochrone.router.dispatch.machine import Machine
from isochrone.router.errors import (
    DeadlineExceeded,
    IsochroneError,
    NoEndpoint,
    Overloaded,
    Poison,
    UnusableAnswer,
)
from isochrone.router.fleet.candidate import FrozenCandidate
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.law.permit import Permit, permit
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.policy.pick import Scored
from isochrone.router.policy.query import Query
from isochrone.router.policy.scores import Seconds
from isochrone.router.upstream.event import Cause, Chunk, End, Head, Lost
from isochrone.router.wire.report import CallReport

QUERY = Query("r1", "digits", now_s=0.0, deadline_s=30.0)
NOT_PREDICTED = Seconds(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
REPORT = CallReport(
    instance="i1",
    sequence=1,
    in_flight=0,
    slots=1,
    latency_s=0.0,
    wait_s=0.0,
    infer_s=0.0,
    models_generation=1,
)


def at(name: str) -> Scored:
    candidate = FrozenCandidate(Endpoint(name, f"http://{name}:1", "eu-west"))
    leave = permit(QUERY, candidate)
    assert isinstance(leave, Permit)
    return Scored(candidate, leave, NOT_PREDICTED, 0.0, 0.0)


EDGE, OTHER, CLOUD, FOURTH = FLEET = tuple(map(at, ("edge", "other", "cloud", "fourth")))
SHORT = Head(200, [(b"content-length", b"4")])
STREAM = Head(200, [(b"content-type", b"text/event-stream")])
FULL = Head(503, [(b"retry-after", b"3"), (b"content-length", b"2")])
BROKEN = Head(500, [(b"content-length", b"0")])
MISTAKE = Head(400, [(b"content-length", b"2")])
EXPIRED = Head(504, [(b"content-length", b"0")])
CRASH = Lost(Cause.RESET, "")


Begin: Any = command.Begin  # with the number of an attempt in its place
Cancel: Any = command.Cancel
Deliver: Any = command.Deliver
Settle: Any = command.Settle


class Sent(NamedTuple):
    """A `Send` command, by the number of its attempt."""

    scored: Scored
    number: int
    hedge: bool = False


CHOSEN = Callable[[Sequence[Scored]], Scored | None]


def among(*scored: Scored) -> CHOSEN:
    """Always the first that was not tried: what a fleet that does not change would give."""
    return lambda tried: next((one for one in scored if one not in tried), None)


class Transcript:
    """A machine and what a shell does for it; attempts are told by their numbers.

    `choose` gives the next endpoint, `leave` what the retry budget says, `reported` whether heads
    bring a load report.
    """

    def __init__(
        self,
        first: Scored,
        choose: CHOSEN,
        *,
        leave: Callable[[], bool] = lambda: True,
        reported: bool = True,
        is_due: bool = False,
        **more: Any,
    ) -> None:
        self.machine = Machine(due_s=-math.inf if is_due else math.inf, **more)
        self.first = first
        self.choose = choose
        self.leave = leave
        self.reported = reported

    @property
    def done(self) -> bool:
        return self.machine.done

    def start(self) -> list[Any]:
        return self._told(self.machine.start(self.first))

    def on(self, event: Any, number: int = -1) -> list[Any]:
        if not isinstance(event, Head | Chunk | End | Lost):
            return self._told(self.machine.on(event))
        attempt = self.machine.attempts[number]
        if isinstance(event, Head):
            attempt.report = REPORT if self.reported else None
            attempt.retry_after_s = retry_after_s(event.headers, lambda: 0.0)
        return self._told(self.machine.hear(attempt, [event], 0.0))

    def _told(self, commands: Sequence[Command]) -> list[Any]:
        if commands and isinstance(commands[-1], Choose):
            scored = self.choose([one.scored for one in self.machine.attempts])
            leave = scored is None or not commands[-1].needs_leave or self.leave()
            commands = [*commands[:-1], *self.machine.on(Next(scored, leave))]
        return [self._by_number(command) for command in commands]

    def _by_number(self, command: Any) -> Any:
        if isinstance(command, Send):
            attempt = command.attempt
            return Sent(attempt.scored, self.machine.attempts.index(attempt), attempt.hedge)
        if isinstance(command, Settle | Cancel | Deliver | Begin):
            number = self.machine.attempts.index(command.attempt)
            return structs.replace(command, attempt=number)
        return command


def attempt(*scored: Scored, **more) -> Transcript:
    return Transcript(scored[0], among(*scored), **more)


CRASHED = Settle(0, Outcome.CRASHED, "reset")


def error_of(commands) -> IsochroneError:
    assert isinstance(commands[-1], GiveUp)
    return commands[-1].error


def test_a_short_answer_is_held_until_it_is_whole():
    machine = attempt(EDGE, CLOUD)
    assert machine.start() == [Sent(EDGE, 0)]
    assert machine.on(SHORT, 0) == []
    assert machine.on(Chunk(b"ab"), 0) == []
    assert machine.on(Chunk(b"cd"), 0) == []
    assert machine.on(End(), 0) == [Settle(0, Outcome.ANSWERED), Deliver(0, SHORT, b"abcd")]
    assert machine.done


def test_an_endpoint_that_dies_in_a_short_answer_costs_nothing():
    machine = attempt(EDGE, CLOUD)
    machine.start()
    machine.on(SHORT, 0)
    machine.on(Chunk(b"ab"), 0)
    assert machine.on(Lost(Cause.RESET, "cut"), 0) == [
        Settle(0, Outcome.CRASHED, "reset (cut)"),
        Sent(CLOUD, 1),
    ]
    machine.on(SHORT, 1)
    machine.on(Chunk(b"wxyz"), 1)
    assert machine.on(End(), 1) == [Settle(1, Outcome.ANSWERED), Deliver(1, SHORT, b"wxyz")]


def test_a_stream_passes_chunk_by_chunk():
    machine = attempt(EDGE)
    machine.start()
    assert machine.on(STREAM, 0) == [Begin(0, STREAM)]
    assert machine.on(Chunk(b"data: 1\n\n"), 0) == [Forward(b"data: 1\n\n")]
    assert machine.on(End(), 0) == [Settle(0, Outcome.ANSWERED), Finish()]


def test_nothing_is_tried_again_after_the_head_of_a_stream():
    machine = attempt(EDGE, CLOUD)
    machine.start()
    machine.on(STREAM, 0)
    assert machine.on(CRASH, 0) == [CRASHED, Abort("unusable_answer")]
    assert machine.done


def test_a_full_endpoint_sends_the_request_on_and_the_rest_of_its_answer_is_ignored():
    machine = attempt(EDGE, CLOUD)
    machine.start()
    assert machine.on(FULL, 0) == [Settle(0, Outcome.BUSY, "answered 503", 3.0), Sent(CLOUD, 1)]
    assert machine.on(Chunk(b"{}"), 0) == []
    assert machine.on(End(), 0) == []
    assert machine.on(CRASH, 0) == []


def test_who_is_next_is_asked_when_it_is_needed_and_with_whom_was_tried():
    asked = []

    def choose(tried):
        asked.append(list(tried))
        return CLOUD if tried == [EDGE] else None

    machine = Transcript(EDGE, choose)
    assert machine.start() == [Sent(EDGE, 0)]
    assert asked == [], "an answer at once needs no other"
    assert machine.on(BROKEN, 0)[-1] == Sent(CLOUD, 1)
    machine.on(BROKEN, 1)
    assert asked == [[EDGE], [EDGE, CLOUD]]


def test_nobody_is_asked_twice_whatever_the_chooser_says():
    machine = Transcript(EDGE, lambda _: EDGE)
    machine.start()
    assert isinstance(error_of(machine.on(BROKEN, 0)), UnusableAnswer)


CLASSES: dict[str, tuple[Any, Outcome]] = {
    "a mistake of the client is an answer": (MISTAKE, Outcome.ANSWERED),
    "and so is one that we have no word for": (Head(418, []), Outcome.ANSWERED),
    "500 failed": (BROKEN, Outcome.FAILED),
    "505 failed": (Head(505, []), Outcome.FAILED),
    "501 its package is broken": (Head(501, []), Outcome.UNABLE),
    "502 failed": (Head(502, []), Outcome.FAILED),
    "elsewhere is not followed": (Head(307, []), Outcome.FAILED),
    "503 is back-pressure": (FULL, Outcome.BUSY),
    "429 is back-pressure": (Head(429, []), Outcome.BUSY),
    "404 does not hold it": (Head(404, []), Outcome.UNABLE),
    "421 must not": (Head(421, []), Outcome.UNABLE),
    "507 cannot hold it": (Head(507, []), Outcome.UNABLE),
    "408 ran out of time": (Head(408, []), Outcome.LATE),
    "504 ran out of time": (EXPIRED, Outcome.LATE),
    "no connection": (Lost(Cause.REFUSED, ""), Outcome.REFUSED),
    "lost while it was there": (CRASH, Outcome.CRASHED),
    "rubbish": (Lost(Cause.MALFORMED, ""), Outcome.FAILED),
    "found dead meanwhile": (Lost(Cause.TIMEOUT, ""), Outcome.LATE),
}


def test_how_a_try_ended_is_told_apart():
    for sentence, (event, outcome) in CLASSES.items():
        machine = attempt(EDGE, is_due=True)
        machine.start()
        settle, *_ = machine.on(event, 0) or machine.on(End(), 0)
        assert isinstance(settle, Settle)
        assert settle.outcome is outcome, sentence


PAID: dict[str, tuple[Any, bool]] = {
    "failed": (BROKEN, True),
    "crashed": (CRASH, True),
    "found dead": (Lost(Cause.TIMEOUT, ""), True),
    "refused": (Lost(Cause.REFUSED, ""), False),
    "full": (FULL, False),
    "unable": (Head(404, []), False),
}


def test_only_a_try_that_may_have_run_needs_leave_to_be_repeated():
    for name, (event, paid) in PAID.items():
        asked: list[str] = []

        def refuse(name: str = name, asked: list[str] = asked) -> bool:
            asked.append(name)
            return False

        machine = attempt(EDGE, CLOUD, leave=refuse)
        machine.start()
        last = machine.on(event, 0)[-1]
        assert bool(asked) == paid, name
        assert isinstance(last, GiveUp if paid else Sent), name


TURNED_AWAY = [404, 421, 429, 503, 507]


@pytest.mark.parametrize("status", TURNED_AWAY)
def test_what_may_not_be_repeated_is_only_where_an_agent_has_turned_it_away(status):
    for reported, last in ((False, GiveUp), (True, Sent)):
        machine = attempt(EDGE, CLOUD, leave=lambda: False, repeatable=False, reported=reported)
        machine.start()
        assert isinstance(machine.on(Head(status, []), 0)[-1], last)


def test_what_may_have_run_is_not_begun_anew_after_waiting():
    machine = attempt(EDGE, leave=lambda: False, repeatable=False, reported=False)
    machine.start()
    assert isinstance(error_of(machine.on(FULL, 0)), UnusableAnswer)


def test_without_leave_to_repeat_the_failure_is_told():
    machine = attempt(EDGE, CLOUD, leave=lambda: False)
    machine.start()
    error = error_of(machine.on(CRASH, 0))
    assert isinstance(error, UnusableAnswer)
    assert error.reasons == {"edge": "reset"}


def test_leave_is_not_asked_for_where_nobody_is_left():
    machine = attempt(EDGE, leave=lambda: 1 / 0)
    machine.start()
    assert isinstance(error_of(machine.on(BROKEN, 0)), UnusableAnswer)


def test_what_crashed_two_endpoints_is_poison():
    machine = attempt(*FLEET)
    machine.start()
    assert machine.on(CRASH, 0) == [CRASHED, Sent(OTHER, 1)]
    error = error_of(machine.on(CRASH, 1))
    assert isinstance(error, Poison)
    assert set(error.reasons) == {"edge", "other"}


def test_a_crash_and_a_failure_are_no_poison():
    machine = attempt(*FLEET)
    machine.start()
    machine.on(CRASH, 0)
    assert machine.on(BROKEN, 1)[-1] == Sent(CLOUD, 2)


def test_the_deadline_cancels_what_runs():
    machine = attempt(EDGE)
    machine.start()
    stop, settle, give_up = machine.on(DeadlinePassed())
    assert (stop, settle) == (Cancel(0), Settle(0, Outcome.LATE))
    assert isinstance(give_up, GiveUp)
    assert isinstance(give_up.error, DeadlineExceeded)
    assert machine.on(SHORT, 0) == []


def test_a_deadline_that_passed_at_the_endpoint_is_the_end():
    machine = attempt(EDGE, CLOUD, is_due=True)
    machine.start()
    assert isinstance(error_of(machine.on(EXPIRED, 0)), DeadlineExceeded)


@pytest.mark.parametrize("status", [408, 504])
def test_a_deadline_that_has_not_passed_is_no_excuse(status):
    machine = attempt(EDGE, CLOUD)
    machine.start()
    assert machine.on(Head(status, []), 0) == [
        Settle(0, Outcome.FAILED, f"answered {status}"),
        Sent(CLOUD, 1),
    ]
    assert isinstance(error_of(machine.on(Head(status, []), 1)), UnusableAnswer)
    machine = attempt(EDGE, CLOUD, leave=lambda: False)
    machine.start()
    assert isinstance(error_of(machine.on(EXPIRED, 0)), UnusableAnswer), "it is paid for"


def test_the_deadline_of_a_stream_cuts_it():
    machine = attempt(EDGE)
    machine.start()
    machine.on(STREAM, 0)
    assert machine.on(DeadlinePassed())[-1] == Abort("deadline_exceeded")


def test_nobody_is_told_after_the_client_has_gone():
    machine = attempt(EDGE, CLOUD)
    machine.start()
    assert machine.on(ClientGone()) == [Cancel(0), Settle(0, Outcome.CANCELLED)]
    assert machine.on(CRASH, 0) == []


def test_three_tries_are_the_most():
    machine = attempt(*FLEET)
    machine.start()
    machine.on(BROKEN, 0)
    machine.on(BROKEN, 1)
    error = error_of(machine.on(BROKEN, 2))
    assert isinstance(error, UnusableAnswer)
    assert error.reasons == dict.fromkeys(["edge", "other", "cloud"], "answered 500")


def test_full_everywhere_says_when_to_come_back():
    machine = attempt(EDGE, OTHER)
    machine.start()
    machine.on(Head(429, [(b"retry-after", b"7")]), 0)
    error = error_of(machine.on(FULL, 1))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 3.0


def test_an_endpoint_cannot_hold_itself_out_for_long():
    machine = attempt(EDGE, OTHER)
    machine.start()
    settle, _ = machine.on(Head(503, [(b"retry-after", b"9" * 400)]), 0)
    assert settle == Settle(0, Outcome.BUSY, "answered 503", 60.0)


def test_full_after_a_crash_is_no_reason_to_begin_anew():
    machine = attempt(EDGE, OTHER)
    machine.start()
    machine.on(CRASH, 0)
    assert isinstance(error_of(machine.on(FULL, 1)), UnusableAnswer)


def test_refused_everywhere_is_no_endpoint():
    machine = attempt(EDGE)
    machine.start()
    assert isinstance(error_of(machine.on(Lost(Cause.REFUSED, ""), 0)), NoEndpoint)


def hedged(*scored: Scored, **more) -> Transcript:
    machine = attempt(*scored, **more)
    machine.start()
    assert machine.on(HedgeDue()) == [Sent(scored[1], 1, hedge=True)]
    return machine


LOSER = Outcome.CANCELLED, "another was faster"


def test_the_first_usable_answer_wins_and_the_other_is_cancelled():
    machine = hedged(EDGE, CLOUD)
    machine.on(SHORT, 1)
    machine.on(Chunk(b"gpu!"), 1)
    assert machine.on(End(), 1) == [
        Settle(1, Outcome.ANSWERED),
        Cancel(0),
        Settle(0, *LOSER),
        Deliver(1, SHORT, b"gpu!"),
    ]
    assert machine.on(SHORT, 0) == []


def test_a_stream_that_begins_has_won():
    machine = hedged(EDGE, CLOUD)
    assert machine.on(STREAM, 0) == [Cancel(1), Settle(1, *LOSER), Begin(0, STREAM)]


def test_where_one_of_two_fails_the_other_goes_on():
    machine = hedged(EDGE, CLOUD, OTHER)
    assert machine.on(BROKEN, 1) == [Settle(1, Outcome.FAILED, "answered 500")]
    machine.on(SHORT, 0)
    assert machine.on(End(), 0) == [Settle(0, Outcome.ANSWERED), Deliver(0, SHORT, b"")]


def test_where_both_fail_a_third_is_asked():
    machine = hedged(EDGE, CLOUD, OTHER)
    machine.on(CRASH, 0)
    assert machine.on(FULL, 1)[-1] == Sent(OTHER, 2)


def test_two_of_two_crashed_is_poison():
    machine = hedged(EDGE, CLOUD, OTHER)
    assert machine.on(CRASH, 0) == [CRASHED]
    assert isinstance(error_of(machine.on(CRASH, 1)), Poison)


def test_the_deadline_stops_both():
    machine = hedged(EDGE, CLOUD)
    commands = machine.on(DeadlinePassed())
    assert [c for c in commands if isinstance(c, Cancel)] == [Cancel(0), Cancel(1)]
    assert isinstance(error_of(commands), DeadlineExceeded)


def test_there_is_one_hedge_and_none_once_the_answer_has_begun():
    machine = hedged(EDGE, CLOUD, OTHER)
    assert machine.on(HedgeDue()) == []
    machine = attempt(*FLEET)
    machine.start()
    machine.on(SHORT, 0)
    assert machine.on(HedgeDue()) == []


def test_a_hedge_is_one_of_the_tries():
    machine = hedged(EDGE, CLOUD, OTHER, most=2)
    machine.on(BROKEN, 0)
    assert isinstance(error_of(machine.on(BROKEN, 1)), UnusableAnswer)


EVENTS = st.sampled_from(
    [
        SHORT,
        STREAM,
        FULL,
        BROKEN,
        MISTAKE,
        EXPIRED,
        Chunk(b"x"),
        End(),
        DeadlinePassed(),
        ClientGone(),
    ]
    + [Lost(cause, "") for cause in Cause]
    + [HedgeDue()] * 3
)
SCRIPTS = st.lists(st.tuples(EVENTS, st.integers(0, 3)), max_size=30)


def possible(event, number: int, sent: int, heads: set[int], ended: set[int]) -> bool:
    """What an upstream keeps to: one head, then its body, then one end."""
    match event:
        case DeadlinePassed() | ClientGone() | HedgeDue():
            return True
        case Lost():
            return number < sent and number not in ended
        case Head():
            return number < sent and number not in heads | ended
        case _:
            return number in heads - ended


@given(
    SCRIPTS,
    st.integers(1, 4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.sampled_from(FLEET)), min_size=8, max_size=8),
)
def test_laws(script, most, leaves, choices):
    """Whatever is heard, chosen and granted."""
    drawn, granted = iter(choices), iter(leaves)
    machine = Transcript(
        EDGE,
        lambda _: next(drawn, None),
        leave=lambda: next(granted, False),
        is_due=len(script) % 2 == 0,
        most=most,
    )
    commands = machine.start()
    heads: set[int] = set()
    ended: set[int] = set()
    for event, number in script:
        sent = sum(isinstance(c, Sent) for c in commands)
        if not possible(event, number, sent, heads, ended):
            continue
        if isinstance(event, Head):
            heads.add(number)
        if isinstance(event, End | Lost):
            ended.add(number)
        commands += machine.on(event, number)
    check_laws(machine, commands, most)


def check_laws(machine, commands, most):
    sends = [c for c in commands if isinstance(c, Sent)]
    settles = [c for c in commands if isinstance(c, Settle)]
    finals = [c for c in commands if isinstance(c, Deliver | Finish | Abort | GiveUp)]
    assert [s.number for s in sends] == list(range(len(sends)))
    assert len({s.scored.permit.endpoint.name for s in sends}) == len(sends) <= most
    assert sum(s.hedge for s in sends) <= 1
    numbers = [s.attempt for s in settles]
    assert len(set(numbers)) == len(numbers), "no try is settled twice"
    live = most_live = 0
    for one in commands:
        live += isinstance(one, Sent) - isinstance(one, Settle)
        most_live = max(most_live, live)
    assert most_live <= 2
    if machine.done:
        assert sorted(numbers) == [s.number for s in sends], "every try is settled"
        gone = not finals
        assert len(finals) <= 1, "exactly one end"
        if gone:
            assert settles[-1].outcome is Outcome.CANCELLED
    else:
        assert not finals
