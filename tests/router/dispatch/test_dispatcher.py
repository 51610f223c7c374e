"""The way of a request from query to end, in virtual time."""

import json
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.router.dispatch.budget import HedgeBudget
from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.law.region_file import Rate
from isochrone.router.policy.policy import Policy
from isochrone.router.policy.query import Query
from isochrone.router.upstream.event import Cause
from isochrone.router.wire.http import first
from isochrone.router.wire.report import HeldModel, ModelState
from tests.router.dispatch.world import WARM, Client, Sent, World, full


def test_nobody_to_wait_for_is_told_at_once():
    world = World()
    refused = world.ask(required_regions=frozenset({"us"}), requirement="us")
    assert (refused.status, refused.code) == (503, "no_endpoint")
    assert json.loads(refused.body)["reasons"] == {"eu.a": "region eu is outside us"}


def test_a_quota_says_exactly_when_to_come_back():
    world = World(slots=9, quotas={"acme": Rate(requests_per_s=0.1, burst=2)})
    assert [world.ask(tenant="acme").status for _ in range(2)] == [None, None]
    refused = world.ask(tenant="acme")
    assert (refused.status, refused.code, refused.retry_after_s) == (429, "quota_exceeded", 10)
    assert world.ask().status is None, "others have none"
    world.now_s += 10
    assert world.ask(tenant="acme").status is None


def test_more_than_the_router_takes_at_once_is_refused():
    world = World(slots=9, in_flight=2)
    world.ask(), world.ask()
    assert world.ask().code == "overloaded"


def test_what_nobody_could_make_in_time_is_refused_at_once_and_not_asked_back():
    world = World()
    refused = world.ask(timeout_s=0.001)
    assert (refused.status, refused.code) == (504, "deadline_exceeded")
    assert first(refused.headers, b"retry-after") is None
    assert not world.sent


def test_the_lowest_class_must_be_the_surest_of_its_deadline():
    world = World()
    scored = Chooser(Policy(), world.ledger, Random(1)).best(Query("q", "digits", 100.0, 130.0))
    predicted = scored.order[0].seconds
    assert predicted.sigma > 0
    timeout_s = predicted.total + 0.5 * predicted.sigma
    assert world.ask(timeout_s=timeout_s, priority=9).code == "overloaded"
    assert world.ask(timeout_s=timeout_s, priority=5).status is None


def test_a_deadline_that_only_a_warm_model_can_make_warms_it_for_the_next():
    world = World(state=ModelState.COLD, load_s=5.0)
    refused = world.ask(timeout_s=1.0)
    assert (refused.code, world.wakes) == ("overloaded", ["eu.a"])
    assert 4 <= refused.retry_after_s <= 6


def test_a_cold_model_that_is_believed_slow_is_woken_so_that_it_can_be_tested():
    world = World(load_s=2.0)
    (site,) = world.ledger.sites()
    holding = site.holdings["digits", "1"]
    holding.served(0.0, 1.8, 0, world.now_s)
    holding.saw(ModelState.COLD, world.now_s)
    holding.settle(world.now_s)
    assert world.ask(timeout_s=1.0).code == "deadline_exceeded"
    assert world.wakes == ["eu.a"]


def test_who_is_refused_for_a_queue_has_the_cold_model_elsewhere_woken():
    world = World(names=("eu.a", "us.b"), load_s=5.0)
    queue, cold = world.ledger.site("eu.a"), world.ledger.site("us.b")
    assert queue is not None
    assert cold is not None
    queue.occupancy.turn_s = 0.5
    queue.occupancy.hears("i1", 2, 100, world.now_s)
    queue.settle(world.now_s)
    holding = cold.holdings["digits", "1"]
    holding.state = ModelState.COLD
    holding.settle(world.now_s)
    assert world.ask(timeout_s=1.0).code == "overloaded"
    assert world.wakes == ["us.b"]


def test_no_model_is_woken_for_a_deadline_that_its_endpoint_is_too_far_away_for():
    world = World(state=ModelState.COLD)
    assert world.ask(timeout_s=0.001).code == "deadline_exceeded"
    assert world.wakes == []


def test_a_fallback_is_decided_with_the_fleet_as_it_is_then():
    world = World(names=("eu.a", "eu.b", "us.c"))
    world.ask()
    (begun,) = world.sent
    other = {"eu.a": "eu.b", "eu.b": "eu.a"}[begun.to]
    world.kill(other)
    begun.answer(500)
    assert [s.to for s in world.open] == ["us.c"], "the other has died meanwhile"


def test_a_fast_504_is_a_failure_and_is_tried_elsewhere():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask()
    world.open[0].answer(504)
    world.open[0].answer()
    assert client.status == 200
    assert [t.outcome for t in world.ended[0].attempts] == ["answered 504", "answered"]


def test_who_answers_504_at_once_again_and_again_is_held_back():
    world = World(names=("eu.a", "eu.b"), slots=9)
    for _ in range(6):
        world.ask()
        if world.open[0].to == "eu.a":
            world.open[0].answer(504)
        world.open[0].answer()
    held = {c.endpoint.name: c.held for c in world.ledger.candidates("digits", None)}
    assert held["eu.a"] is not None
    assert held["eu.b"] is None


def test_a_504_at_the_deadline_is_the_deadline():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask(timeout_s=1.0)
    world.now_s += 0.95
    world.open[0].answer(504)
    assert (client.status, client.code, len(world.sent)) == (504, "deadline_exceeded", 1)


def test_who_is_refused_for_what_was_expected_has_it_tested():
    world = World()
    (site,) = world.ledger.sites()
    site.holdings["digits", "1"].served(0.0, 9.0, 0, world.now_s)
    assert world.ledger.suspects(world.now_s, 1.0) == []
    assert world.ask(timeout_s=1.0).code == "deadline_exceeded"
    assert world.ledger.suspects(world.now_s, 1.0) == [site.holdings["digits", "1"]]


def test_a_stream_that_flows_is_not_cut_for_missed_probes():
    world = World()
    client = world.ask()
    sent = world.open[0]
    sent.begin()
    world.runner.condemn("eu.a", "2 probes missed")
    assert not sent.over
    sent.end()
    assert client.body == b"part"
    assert [t.outcome for t in world.ended[0].attempts] == ["answered"]


def test_what_waits_at_a_silent_endpoint_moves_where_another_can_take_it():
    world = World(names=("eu.a", "us.b"))
    moved, once = world.ask(), world.ask(repeatable=False, required_regions=frozenset({"eu"}))
    assert [sent.to for sent in world.open] == ["eu.a", "eu.a"]
    world.runner.condemn("eu.a", "2 probes missed")
    assert [sent.to for sent in world.open] == ["eu.a", "us.b"], "nobody else may take the second"
    for sent in world.open:
        sent.answer()
    assert (moved.status, once.status) == (200, 200)


def silence(world: World, name: str) -> None:
    site = world.ledger.site(name)
    assert site is not None
    for _ in range(2):
        world.ledger.probe_missed(site, world.now_s, silent=True)


def test_the_last_lawful_endpoint_is_not_given_up_while_there_is_time():
    world = World()
    client = world.ask(timeout_s=28.0)
    silence(world, "eu.a")
    world.runner.condemn("eu.a", "2 probes missed")
    waits = world.ask(timeout_s=28.0)
    world.wait(1.5)
    assert [asked.status for asked in (client, waits)] == [None, None]
    held = (HeldModel("digits", "1", WARM, load_s=0.5),)
    world.report(held, sequence=2)
    world.wait(0.5)
    assert world.waiting == 1, "one answer more, and it is back"
    world.report(held, sequence=3)
    for _ in range(3):
        world.wait(0.1)
        for sent in world.open:
            sent.answer()
    assert (client.status, waits.status) == (200, 200)


def test_what_was_silent_for_long_or_refuses_is_not_waited_for():
    world = World()
    silence(world, "eu.a")
    waits = world.ask(timeout_s=60.0)
    world.wait(5.0)
    assert world.waiting == 1
    world.now_s += 26.0
    world.ledger.sweep(world.now_s)
    world.wait(0.2)
    assert waits.code == "no_endpoint"
    dead = World()
    dead.kill("eu.a")
    assert dead.ask().code == "no_endpoint"


def test_the_code_of_a_stream_that_was_cut_is_a_code():
    world = World()
    world.ask()
    world.open[0].begin()
    world.open[0].lose()
    assert [r.code for r in world.ended] == ["unusable_answer"]


def test_one_that_cannot_be_told_its_end_takes_nobody_with_it(caplog):
    world = World()
    full(world)
    world.ask(timeout_s=1.0), world.ask(timeout_s=1.0)
    world.ended_raises = True
    world.wait(1.1)
    assert len(world.ended) == 2
    assert "cannot be told" in caplog.text
    world.ended_raises, world.refuse_raises = False, True
    gone = world.ask(timeout_s=1.0)
    world.wait(1.1)
    assert (gone.gone, world.ended[-1].code) == (True, "internal")


def test_a_crash_of_two_is_poison():
    world = World(names=("eu.a", "eu.b", "us.c"))
    client = world.ask()
    world.open[0].lose()
    world.open[0].lose()
    assert (client.status, client.code, len(world.sent)) == (502, "poison", 2)


def test_what_may_not_be_repeated_is_not():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask(repeatable=False)
    world.open[0].lose()
    assert (client.status, client.code, len(world.sent)) == (502, "unusable_answer", 1)
    died = world.ask(repeatable=False)
    world.open[0].answer(502, endpoint_load_metrics="JSON {}")
    assert (died.status, len(world.sent)) == (502, 2), "a region's replica died with it inside"
    second = world.ask(repeatable=False)
    world.open[0].lose(Cause.REFUSED)
    world.open[0].answer()
    assert second.status == 200, "nothing was run where no connection could be made"


def test_a_pulled_version_that_is_not_active_is_neither_used_nor_woken_unless_it_is_named():
    world = World(names=("eu.a", "us.b"), load_s=20.0)
    pulled = HeldModel("digits", "2", ModelState.COLD, load_s=20.0, active=False)
    active = HeldModel("digits", "1", WARM, load_s=20.0, active=True)
    world.report((active, pulled), sequence=2)
    client = world.ask(timeout_s=2.0)
    assert [sent.to for sent in world.open] == ["eu.a"]
    world.open[0].answer()
    assert (client.status, world.wakes) == (200, [])
    assert world.ask(timeout_s=2.0, version="2").status == 503
    assert world.wakes == ["eu.a"]


def test_a_trial_that_fails_is_answered_elsewhere_whatever_is_left_of_the_budget():
    world = World(names=("eu.a", "us.b"), retries=0.0)
    site = world.ledger.site("eu.a")
    assert site is not None
    breaker = site.holdings["digits", "1"].breaker
    breaker.trip(world.now_s - 5, "3 calls failed in a row")
    breaker.pass_test(world.now_s)
    site.settle(world.now_s)
    once = world.ask(repeatable=False)
    assert [sent.to for sent in world.open] == ["us.b"], "what may not be repeated is no trial"
    world.open[0].answer()
    client = world.ask()
    assert [sent.to for sent in world.open] == ["eu.a"]
    world.open[0].answer(500)
    world.open[0].answer()
    assert (once.status, client.status) == (200, 200)
    assert world.ended[-1].repeats == 0


def test_want_of_a_connection_here_is_blamed_on_no_endpoint():
    world = World(names=("eu.a", "eu.b"))
    client = world.ask()
    for _ in range(5):
        (lost,) = world.open
        lost.lose(Cause.LOCAL)
        world.wait(0.2)
    assert client.status is None, "it waits within its deadline"
    for candidate in world.ledger.candidates("digits", None):
        assert (candidate.out, candidate.held) == (None, None)
    world.open[0].answer()
    assert client.status == 200


def test_a_burst_of_mistakes_of_clients_opens_nothing():
    world = World(slots=50)
    for status in [400, 401, 403, 409, 413, 422] * 5:
        world.ask()
        world.open[0].answer(status)
    assert [r.status for r in world.ended[:6]] == [400, 401, 403, 409, 413, 422]
    candidate = world.ledger.candidates("digits", None)[0]
    assert (candidate.out, candidate.held) == (None, None)


ENDS = st.sampled_from(["answer", "full", "failed", "lost", "refused", "leave", "wait", "ask"])


@settings(max_examples=60)
@given(st.lists(st.tuples(ENDS, st.integers(0, 9)), max_size=60), st.integers(0, 3))
def test_every_request_ends_in_exactly_one_record(script, capacity):
    world = World(names=("eu.a", "eu.b"), capacity=capacity, hedges=HedgeBudget(0.1))
    clients: list[Client] = []
    for what, number in script:
        if what == "ask":
            clients.append(world.ask(timeout_s=1.0 + number, priority=max(1, number)))
        elif what == "wait":
            world.wait(0.05 * number)
        elif what == "leave" and clients:
            client = clients[number % len(clients)]
            if client.status is None and not client.gone:
                client.leave()
        elif world.open:
            play(world.open[number % len(world.open)], what)
    world.wait(11.0)
    assert sorted(r.query.request_id for r in world.ended) == sorted(
        f"q{n + 1}" for n in range(len(clients))
    )
    assert (world.waiting, len(world.runner.running), len(world.runner.hedging)) == (0, 0, 0)
    assert all(not site.open for site in world.ledger.sites())
    assert all(c.gone or c.status is not None for c in clients)


def play(sent: Sent, what: str) -> None:
    match what:
        case "answer":
            sent.answer()
        case "full":
            sent.answer(503)
        case "failed":
            sent.answer(500)
        case "lost":
            sent.lose()
        case "refused":
            sent.lose(Cause.REFUSED)
