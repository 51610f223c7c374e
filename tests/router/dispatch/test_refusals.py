"""Endpoints that refuse: how often they are asked again, what they teach, what clients are told."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from isochrone.router.dispatch.spare import FULL_FLOOR_PER_SLOT_S
from isochrone.router.errors import IsochroneError, NoSpace, Quarantined, Unavailable, Unloadable
from isochrone.router.fleet.holding import Holding
from isochrone.router.wire.http import first
from isochrone.router.wire.problem import problem_answer
from isochrone.router.wire.report import HeldModel, ModelState, encode_call_report
from tests.router.dispatch.world import NOTHING_NEW, Client, Sent, World

TRIES = 3


def lone(*, foreign: bool = True, **changes: Any) -> World:
    return World(names=("eu.a",), foreign=("eu.a",) if foreign else (), **changes)


def refusing(world: World, seconds: float, status: int = 503, **fields: str) -> None:
    """Time passes, and whatever is sent is refused within a tick."""
    for _ in range(round(seconds / 0.01)):
        world.wait(0.01)
        for sent in world.open:
            sent.answer(status, **fields)


def holding(world: World, name: str = "eu.a") -> Holding:
    site = world.ledger.site(name)
    assert site is not None
    return site.holdings["digits", "1"]


def refuse(sent: Sent, error: IsochroneError) -> None:
    """As an agent does."""
    status, headers, body = problem_answer(error)
    fields = {name.decode().replace("-", "_"): value.decode() for name, value in headers}
    sent.answer(status, body, **{"retry_after": "", **fields})


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("foreign", [True, False], ids=["foreign", "an agent"])
def test_one_request_is_not_sent_to_who_refuses_it_without_bound(status, foreign):
    world = lone(foreign=foreign)
    before_s = holding(world).service_s
    client = world.ask()
    refusing(world, 31.0, status)
    assert client.status == 503 or client.code == "deadline_exceeded"
    assert 3 <= len(world.sent) <= 16, "each pause is about twice the one before"
    assert holding(world).service_s == before_s, "a refusal is no work"
    (record,) = world.ended
    assert record.attempts_count == len(world.sent)
    assert len(world.sent) - 1 <= record.full_repeats <= len(world.sent), "each has leave"


def test_beside_a_good_endpoint_who_refuses_gets_next_to_nothing():
    world = World(names=("eu.a", "eu.b"), foreign=("eu.a", "eu.b"))
    for _ in range(300):
        client = world.ask()
        while client.status is None:
            (sent,) = world.open
            if sent.to == "eu.a":
                sent.answer(503)
            else:
                world.wait(0.05)
                sent.answer()
        assert client.status == 200
    asked = [sent.to for sent in world.sent]
    assert asked.count("eu.b") == 300
    assert asked.count("eu.a") <= 15


def test_a_success_ends_the_back_off():
    world = lone()
    world.ask()
    refusing(world, 3.0)
    assert holding(world).refusals > 4
    while not world.open:
        world.wait(0.05)
    world.open[0].answer()
    assert holding(world).refusals == 0
    world.ask()
    world.open[0].answer(503)
    sent = len(world.sent)
    world.wait(0.3)
    assert len(world.sent) == sent + 1


def test_what_left_before_a_refusal_was_known_does_not_lengthen_the_pause():
    world = lone(slots=8)
    for _ in range(8):
        world.ask()
    for sent in world.open:
        sent.answer(503)
    assert holding(world).refusals == 1


RETRY_AFTER = {
    "seconds": ("2", 2.0),
    "a fraction": ("1.5", 1.5),
    "huge": ("9" * 400, 60.0),
    "a date": ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
    "a date of RFC 850": ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
    "a past date": ("Sun, 06 Nov 1994 08:49:07 GMT", 0.0),
    "a far date": ("Sun, 06 Nov 2094 08:49:07 GMT", 60.0),
    "negative": ("-5", 0.0),
    "garbage": ("soon", 0.0),
    "nothing": ("", 0.0),
}


@pytest.mark.parametrize(("value", "told_s"), RETRY_AFTER.values(), ids=RETRY_AFTER)
def test_retry_after_is_kept_in_either_form(value, told_s):
    world = lone()
    world.ask(timeout_s=300.0)
    world.open[0].answer(503, retry_after=value, date="Sun, 06 Nov 1994 08:49:37 GMT")
    pause_s = holding(world).full_until_s - world.now_s
    assert pause_s == pytest.approx(max(told_s, 0.02))


def test_a_date_without_a_date_beside_it_counts_from_the_wall_clock():
    world = lone()  # whose wall clock says 1_000_000_100, 01:48:20
    world.ask()
    world.open[0].answer(503, retry_after="Sun, 09 Sep 2001 01:48:30 GMT")
    assert holding(world).full_until_s == pytest.approx(world.now_s + 10)


def test_an_agent_is_taken_at_its_word_once_it_has_refused_twice():
    world = lone(foreign=False)
    world.ask()
    world.open[0].answer(503, retry_after="1")
    assert holding(world).full_until_s - world.now_s == pytest.approx(0.02), "it is full just now"
    world.wait(0.05)
    world.open[0].answer(503, retry_after="1")
    assert holding(world).full_until_s - world.now_s == pytest.approx(1.0)


@pytest.mark.parametrize("foreign", [True, False], ids=["foreign", "an agent"])
def test_a_retry_after_beyond_the_deadline_is_told_at_once(foreign):
    world = lone(foreign=foreign)
    client = world.ask(timeout_s=4.0)
    world.open[0].answer(503, retry_after="30")
    assert (client.status, client.code, client.retry_after_s) == (503, "overloaded", 30)
    assert json.loads(client.body)["reasons"] == {"eu.a": "answered 503"}
    later = world.ask(timeout_s=4.0)
    assert later.status == 503
    assert later.retry_after_s >= 29
    assert len(world.sent) == 1


def test_who_waits_is_told_when_everybody_closes_beyond_its_deadline():
    world = lone(slots=1)
    world.ask()
    world.ask()
    world.sent[1].answer(503)
    waits = world.ask(timeout_s=4.0)
    assert world.waiting == 2
    world.sent[0].answer(503, retry_after="30")
    world.wait(0.2)
    assert waits.status == 503
    assert waits.retry_after_s >= 29


def test_a_model_that_will_fit_is_waited_for_and_its_retry_after_kept():
    world = lone(foreign=False)
    client = world.ask(timeout_s=20.0)
    refuse(world.open[0], NoSpace("m needs 80 MB, 20 MB are free", retry_after_s=1.0))
    assert world.waiting == 1
    world.wait(1.5)
    world.open[0].answer()
    assert client.status == 200
    world = lone(foreign=False)
    client = world.ask(timeout_s=20.0)
    refuse(world.open[0], NoSpace("m needs 80 MB, 20 MB are free", retry_after_s=30.0))
    assert (client.status, client.retry_after_s) == (503, 30)
    assert json.loads(client.body)["reasons"] == {
        "eu.a": "answered 507: m needs 80 MB, 20 MB are free"
    }


FOR_GOOD = {
    "its package is broken": (Unloadable("digits cannot be loaded here"), 501, "unloadable"),
    "it cannot be loaded": (Unavailable("digits cannot be loaded here"), 503, "unavailable"),
    "it can never fit": (NoSpace("digits needs 80 MB of 40 MB"), 507, "no_space"),
    "it has crashed the model": (Quarantined("this input is quarantined"), 422, "quarantined"),
}


@pytest.mark.parametrize(("error", "status", "code"), FOR_GOOD.values(), ids=FOR_GOOD)
def test_a_refusal_for_good_is_told_at_once_in_the_endpoints_words(error, status, code):
    world = lone(foreign=False)
    client = world.ask()
    refuse(world.open[0], error)
    assert (client.status, client.code) == (status, code)
    assert first(client.headers, b"retry-after") is None
    assert error.message in json.loads(client.body)["error"]
    assert len(world.sent) == 1


@pytest.mark.parametrize(("error", "status", "code"), FOR_GOOD.values(), ids=FOR_GOOD)
def test_after_a_refusal_for_good_another_is_asked(error, status, code):
    del status, code
    world = World(names=("eu.a", "eu.b"))
    client = world.ask(repeatable=False)
    refuse(world.open[0], error)
    world.open[0].answer()
    assert client.status == 200
    assert world.spare.retries.left(world.now_s) == 1, "nothing had run"


OF_A_MODEL = [case for case in FOR_GOOD.values() if not isinstance(case[0], Quarantined)]


def held(state: ModelState) -> list[HeldModel]:
    return [HeldModel("digits", "1", state, load_s=0.5)]


@pytest.mark.parametrize(("error", "status", "code"), OF_A_MODEL)
def test_a_refusal_for_good_stands_until_the_next_report(error, status, code):
    world = lone(foreign=False, state=ModelState.COLD)
    answers = [world.ask()]
    refuse(world.open[0], error)
    answers.append(world.ask())
    assert len(world.sent) == 1
    for told in answers:
        assert (told.status, told.code) == (status, code)
        assert first(told.headers, b"retry-after") is None
        assert json.loads(told.body) == json.loads(answers[0].body)
    world.report(held(ModelState.COLD), sequence=2)
    world.ask()
    assert len(world.open) == 1, "it may have changed"
    world.report(held(ModelState.WARM), sequence=3)
    world.open[0].answer()
    assert world.ask().status is None
    assert len(world.open) == 1


def test_a_refusal_for_good_is_kept_within_bounds():
    world = lone(foreign=False, state=ModelState.COLD)
    world.ask()
    refuse(world.open[0], NoSpace("m" * 20_000, reasons={"other": "n" * 20_000}))
    assert len(world.ask().body) < 2000


def test_it_is_told_only_where_no_other_endpoint_may_serve_before_long():
    world = World(names=("eu.a", "us.b"), state=ModelState.COLD)
    world.kill("us.b")
    world.ask()
    refuse(world.open[0], NoSpace("digits needs 80 MB of 40 MB"))
    later = world.ask()
    assert (later.status, later.code, later.retry_after_s) == (503, "no_endpoint", 1)


def test_inputs_for_which_a_warm_model_has_no_room_say_nothing_of_other_inputs():
    world = lone(foreign=False)
    large = world.ask()
    refuse(world.open[0], NoSpace("these inputs need 80 MB of 40 MB: send smaller ones"))
    assert large.status == 507
    small = world.ask()
    world.open[0].answer()
    assert small.status == 200


FOREIGN = {
    501: (501, "unloadable"),
    507: (507, "no_space"),
    401: (502, "unusable_answer"),
    407: (502, "unusable_answer"),
    451: (502, "unusable_answer"),
}


@pytest.mark.parametrize(("status", "told"), FOREIGN.items(), ids=map(str, FOREIGN))
def test_a_server_of_others_that_refuses_for_good(status, told):
    world = lone()
    answers = [world.ask()]
    body = b'{"error":"no"}'
    world.open[0].answer(status, body, content_type="application/json")
    answers.append(world.ask())
    for answer in answers:
        assert (answer.status, answer.code) == told
        assert first(answer.headers, b"retry-after") is None
        assert json.loads(answer.body)["reasons"] == {"eu.a": f"answered {status}: no"}
    assert len(world.sent) == 1
    world.wait(5.1)
    world.ask()
    world.open[0].answer()
    assert world.ask().status is None, "it has changed"


@pytest.mark.parametrize("status", FOREIGN)
def test_after_it_another_is_asked(status):
    world = World(names=("eu.a", "eu.b"), foreign=("eu.a", "eu.b"))
    client = world.ask()
    world.open[0].answer(status)
    world.open[0].answer()
    assert client.status == 200


def test_a_quarantined_input_counts_as_a_crash():
    world = World(names=("eu.a", "eu.b", "us.c"))
    client = world.ask()
    refuse(world.open[0], Quarantined("this input is quarantined"))
    world.open[0].lose()
    assert (client.status, client.code, len(world.sent)) == (502, "poison", 2)
    client = world.ask()
    refuse(world.open[0], Quarantined("this input is quarantined"))
    refuse(world.open[0], Quarantined("this input is quarantined"))
    assert (client.status, client.code, len(world.sent)) == (422, "quarantined", 4)


def test_what_is_quarantined_at_one_waits_for_another_that_is_full():
    world = World(names=("eu.a", "us.b"))
    for _ in range(2):
        world.ask(required_regions=frozenset({"us"}))
    world.open[1].answer(503)
    client = world.ask(priority=1)
    refuse(world.open[1], Quarantined("this input is quarantined"))
    assert world.waiting == 2
    world.open[0].answer()
    world.wait(0.3)
    world.open[0].answer()
    assert client.status == 200


def test_a_mistake_of_the_client_is_still_its_answer():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask()
    world.open[0].answer(422, b'{"error":"shape","code":"bad_request"}')
    assert (client.status, len(world.sent)) == (422, 1)


KINDS = ["work", "full", "full for 1 s", "empty", "mistake", "failed", "cut", "unable", "wait"]


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 40)), max_size=80),
    st.sampled_from([(), ("eu.a",), ("eu.a", "eu.b")]),
    st.integers(1, 3),
)
def test_whatever_is_answered_sends_stay_within_the_budget_and_only_work_teaches(
    script, foreign, slots
):
    world = World(names=("eu.a", "eu.b"), foreign=foreign, slots=slots, retries=0.2)
    clients: list[Client] = []
    for kind, number in script:
        if kind == "wait":
            world.wait(0.02 * number)
            continue
        if not world.open:
            clients.append(world.ask(timeout_s=1.0 + number / 4))
        if world.open:
            play(world, world.open[number % len(world.open)], kind)
    world.wait(12.0)
    records = world.ended
    assert len(records) == len(clients)
    again = sum(r.repeats for r in records)
    full = sum(r.full_repeats for r in records)
    windows = (world.now_s - 100.0) / 10 + 1
    requests = sum(bool(r.attempts_count) for r in records)
    floor = FULL_FLOOR_PER_SLOT_S * 2 * slots * 10 * windows
    assert full <= 2 * requests + floor, "a request counts in the windows of two retries at most"
    assert len(world.sent) <= (requests + full + again) * TRIES
    assert len(world.sent) == sum(r.attempts_count for r in records)


def play(world: World, sent: Sent, kind: str) -> None:
    """One answer; what is no work moves no estimate."""
    before = estimates(world)
    match kind:
        case "work":
            world.wait(0.03)
            sent.answer()
            return
        case "full":
            sent.answer(503, retry_after="" if not sent.reports else "1")
        case "full for 1 s":
            sent.answer(429, retry_after="1")
        case "empty":
            sent.answer(200, b"")
        case "mistake":
            sent.answer(400)
        case "failed":
            sent.answer(500)
        case "cut":
            sent.begin()
            sent.lose()
        case "unable":
            sent.answer(404)
    assert estimates(world) == before


def estimates(world: World) -> list[tuple[float, float]]:
    held = [h for site in world.ledger.sites() for h in site.holdings.values()]
    assert all(h.service.mean_s >= 1e-4 for h in held)
    return [(h.service.mean_s, h.site.occupancy.turn_s) for h in held]


def test_a_service_time_has_a_floor():
    world = lone()
    for _ in range(200):
        client = world.ask()
        world.open[0].answer()  # sooner than the way there takes
        assert client.status == 200
    assert 1e-4 <= holding(world).service_s < 2e-4


@pytest.mark.parametrize("action", ["", "infer"])
def test_only_actions_that_run_the_model_are_timed(action):
    world = lone()
    before_s = holding(world).service_s
    world.ask(action=action)
    world.wait(0.5)
    world.open[0].answer()
    assert (holding(world).service_s != before_s) == (action == "infer")


@pytest.mark.parametrize("status", [200, 204, 304, 400])
def test_an_answer_without_a_load_report_is_not_the_endpoints(status):
    world = World(names=("eu.a", "eu.b"))
    client = world.ask(required_regions=frozenset({"eu"}))
    (impostor,) = world.open
    site = world.ledger.site(impostor.to)
    assert site is not None
    heard_s = site.heard_s
    world.wait(0.05)
    impostor.reports = False
    impostor.answer(status, b"{}")
    assert site.heard_s == heard_s
    assert site in world.ledger.due(world.now_s, 60.0)
    world.open[0].answer()
    assert client.status == 200
    tried = world.ended[0].attempts[0]
    assert tried.outcome == f"answered {status} without a load report"


def test_an_impostors_answers_do_not_make_up_for_missed_probes():
    world = World(names=("eu.a",))
    (site,) = world.ledger.sites()
    world.ledger.probe_missed(site, world.now_s)
    client = world.ask()
    world.open[0].reports = False
    world.open[0].answer(200, b"{}")
    assert (client.status, client.code) == (502, "unusable_answer")
    assert site.health.missed == 1
    assert world.ledger.probe_missed(site, world.now_s)
    assert site.out == "2 probes missed"


@pytest.mark.parametrize("report", ["eu.b eu", "eu.a us"], ids=["another name", "another region"])
def test_a_report_of_another_is_none(report):
    world = World(names=("eu.a",))
    client = world.ask()
    name, region = report.split()
    world.open[0].report = encode_call_report(
        structs.replace(NOTHING_NEW, name=name, region=region)
    )
    world.open[0].answer(200)
    assert client.status == 502


@pytest.mark.parametrize("leave", [True, False])
def test_sending_again_on_a_lost_connection_needs_leave_and_is_counted(leave):
    world = World(retries=1.0 if leave else 0.0)
    client = world.ask()
    assert world.open[0].again() is leave
    world.open[0].answer()
    assert client.status == 200
    assert world.ended[0].repeats == leave
    once = world.ask(repeatable=False)
    assert world.open[0].again() is False
    assert once.status is None
