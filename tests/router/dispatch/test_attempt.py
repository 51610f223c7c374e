"""The attempt machine, as transcripts and as laws."""

from hypothesis import given
from hypothesis import strategies as st

from router.dispatch.attempt import (
    Abort,
    Attempt,
    Begin,
    Cancel,
    Deliver,
    Finish,
    Forward,
    GiveUp,
    Send,
    Settle,
)
from router.dispatch.event import Cause, Chunk, ClientGone, End, Head, Lost, Timer
from router.errors import DeadlineExceeded, NoEndpoint, Overloaded, UnusableAnswer
from router.fleet.endpoint import Endpoint, FrozenCandidate
from router.fleet.ledger import Outcome
from router.policy.law import Permit, permit
from router.policy.query import Query

QUERY = Query("r1", "digits", now_s=0.0, deadline_s=30.0)


def leave(name: str) -> Permit:
    made = permit(QUERY, FrozenCandidate(Endpoint(name, f"http://{name}:1", "eu-west")))
    assert isinstance(made, Permit)
    return made


EDGE, OTHER, CLOUD, FOURTH = map(leave, ("edge", "other", "cloud", "fourth"))
SHORT = Head(200, [(b"content-length", b"4")])
STREAM = Head(200, [(b"content-type", b"text/event-stream")])
FULL = Head(503, [(b"retry-after", b"3"), (b"content-length", b"2")])
BROKEN = Head(500, [(b"content-length", b"0")])
MISTAKE = Head(400, [(b"content-length", b"2")])


def test_a_short_answer_is_held_until_it_is_whole():
    attempt = Attempt([EDGE, CLOUD])
    assert attempt.start() == [Send(EDGE, 0)]
    assert attempt.on(SHORT, 0) == []
    assert attempt.on(Chunk(b"ab"), 0) == []
    assert attempt.on(Chunk(b"cd"), 0) == []
    assert attempt.on(End(), 0) == [Settle(0, Outcome.ANSWERED), Deliver(0, SHORT, b"abcd")]
    assert attempt.done


def test_an_endpoint_that_dies_in_a_short_answer_costs_nothing():
    attempt = Attempt([EDGE, CLOUD])
    attempt.start()
    attempt.on(SHORT, 0)
    attempt.on(Chunk(b"ab"), 0)
    assert attempt.on(Lost(Cause.RESET, "cut"), 0) == [
        Settle(0, Outcome.FAILED, "reset (cut)"),
        Send(CLOUD, 1),
    ]
    attempt.on(SHORT, 1)
    attempt.on(Chunk(b"wxyz"), 1)
    assert attempt.on(End(), 1) == [Settle(1, Outcome.ANSWERED), Deliver(1, SHORT, b"wxyz")]


def test_a_stream_passes_chunk_by_chunk():
    attempt = Attempt([EDGE])
    attempt.start()
    assert attempt.on(STREAM, 0) == [Begin(0, STREAM)]
    assert attempt.on(Chunk(b"data: 1\n\n"), 0) == [Forward(b"data: 1\n\n")]
    assert attempt.on(End(), 0) == [Settle(0, Outcome.ANSWERED), Finish()]


def test_nothing_is_tried_again_after_the_head_of_a_stream():
    attempt = Attempt([EDGE, CLOUD])
    attempt.start()
    attempt.on(STREAM, 0)
    assert attempt.on(Lost(Cause.RESET, ""), 0) == [
        Settle(0, Outcome.FAILED, "reset"),
        Abort("reset"),
    ]
    assert attempt.done


def test_a_full_endpoint_sends_the_request_on_and_the_rest_of_its_answer_is_ignored():
    attempt = Attempt([EDGE, CLOUD])
    attempt.start()
    assert attempt.on(FULL, 0) == [Settle(0, Outcome.BUSY, "answered 503"), Send(CLOUD, 1)]
    assert attempt.on(Chunk(b"{}"), 0) == []
    assert attempt.on(End(), 0) == []
    assert attempt.on(Lost(Cause.RESET, ""), 0) == []


def test_a_clients_own_mistake_is_an_answer():
    attempt = Attempt([EDGE, CLOUD])
    attempt.start()
    attempt.on(MISTAKE, 0)
    attempt.on(Chunk(b"{}"), 0)
    assert attempt.on(End(), 0) == [Settle(0, Outcome.ANSWERED), Deliver(0, MISTAKE, b"{}")]


def test_the_deadline_cancels_what_runs():
    attempt = Attempt([EDGE])
    attempt.start()
    stop, settle, give_up = attempt.on(Timer())
    assert (stop, settle) == (Cancel(0), Settle(0, Outcome.LATE))
    assert isinstance(give_up, GiveUp)
    assert isinstance(give_up.error, DeadlineExceeded)
    assert attempt.on(SHORT, 0) == []


def test_the_deadline_of_a_stream_cuts_it():
    attempt = Attempt([EDGE])
    attempt.start()
    attempt.on(STREAM, 0)
    assert isinstance(attempt.on(Timer())[-1], Abort)


def test_nobody_is_told_after_the_client_has_gone():
    attempt = Attempt([EDGE, CLOUD])
    attempt.start()
    assert attempt.on(ClientGone()) == [Cancel(0), Settle(0, Outcome.CANCELLED)]
    assert attempt.on(Lost(Cause.RESET, ""), 0) == []


def test_three_tries_are_the_most():
    attempt = Attempt([EDGE, OTHER, CLOUD, FOURTH])
    attempt.start()
    attempt.on(BROKEN, 0)
    attempt.on(BROKEN, 1)
    last = attempt.on(BROKEN, 2)[-1]
    assert isinstance(last, GiveUp)
    assert isinstance(last.error, UnusableAnswer)
    assert last.error.reasons == dict.fromkeys(["edge", "other", "cloud"], "answered 500")


def test_full_everywhere_says_when_to_come_back():
    attempt = Attempt([EDGE, OTHER])
    attempt.start()
    attempt.on(Head(429, [(b"retry-after", b"7")]), 0)
    last = attempt.on(FULL, 1)[-1]
    assert isinstance(last, GiveUp)
    assert isinstance(last.error, Overloaded)
    assert last.error.retry_after_s == 3.0


def test_refused_everywhere_is_no_endpoint():
    attempt = Attempt([EDGE])
    attempt.start()
    last = attempt.on(Lost(Cause.REFUSED, ""), 0)[-1]
    assert isinstance(last, GiveUp)
    assert isinstance(last.error, NoEndpoint)


def test_without_a_permit_nothing_is_sent():
    (only,) = Attempt([]).start()
    assert isinstance(only, GiveUp)


EVENTS = st.sampled_from(
    [SHORT, STREAM, FULL, BROKEN, MISTAKE, Chunk(b"x"), End(), Timer(), ClientGone()]
    + [Lost(cause, "") for cause in Cause]
)
SCRIPTS = st.lists(st.tuples(EVENTS, st.integers(0, 3)), max_size=30)


def possible(event, begun: bool, ended: bool) -> bool:
    """What an upstream keeps to: one head, then its body, then one end."""
    match event:
        case Timer() | ClientGone():
            return True
        case Lost():
            return not ended
        case Head():
            return not begun and not ended
        case _:
            return begun and not ended


@given(SCRIPTS, st.integers(1, 4))
def test_laws(script, most):
    permits = [EDGE, OTHER, CLOUD, FOURTH]
    attempt = Attempt(permits, most=most)
    commands = attempt.start()
    heads: set[int] = set()
    ended: set[int] = set()
    for event, number in script:
        if not possible(event, number in heads, number in ended):
            continue
        if isinstance(event, Head):
            heads.add(number)
        if isinstance(event, End | Lost):
            ended.add(number)
        commands += attempt.on(event, number)
    sends = [c for c in commands if isinstance(c, Send)]
    settles = [c.number for c in commands if isinstance(c, Settle)]
    finals = [c for c in commands if isinstance(c, Deliver | Finish | Abort | GiveUp)]
    assert [s.permit for s in sends] == permits[: len(sends)], "in order, none twice"
    assert len(sends) <= most
    assert len(set(settles)) == len(settles), "no try is settled twice"
    if attempt.done:
        assert settles == [s.number for s in sends], "every try is settled"
        gone = any(isinstance(c, Settle) and c.outcome is Outcome.CANCELLED for c in commands)
        assert len(finals) == (0 if gone else 1), "exactly one end"
    else:
        assert not finals
