"""Explaining a decision changes nothing; refusing costs no more than serving."""

import gc
import json
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from isochrone.router.dispatch.chooser import QUICKEST_COUNT
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.frontend.decisions import KEPT, RECORD_BYTES, TRIED_BYTES, Decisions
from isochrone.router.policy.explain import OTHERS, REASONS_COUNT, considered
from isochrone.router.policy.query import Query
from isochrone.router.wire.report import CallReport, ModelState
from tests.router.dispatch.test_dispatcher import play
from tests.router.dispatch.world import Client, World

NAMES = ("eu.a", "eu.b", "us.c", "us.d")
WHAT = st.sampled_from(
    ["ask"] * 4 + ["answer"] * 4 + ["full", "failed", "lost", "refused", "leave", "wait", "explore"]
)


class Watched(World):
    """A world that notes what is asked beside the requests, as the prober would."""

    def __init__(self, *, explain: bool, **changes) -> None:
        super().__init__(**changes)
        self.explain = explain
        self.beside: list[tuple[str, list[str]]] = []
        self.clients: list[Client] = []

    def note(self) -> None:
        """Whom the prober would ask now, and whom it would sample: this moves its turns on."""
        now_s = self.now_s
        for what, found in {
            "due": self.ledger.due(now_s, 1.0),
            "rivals": self.ledger.rivals(now_s, 0.25, 2),
            "suspects": [h.site for h in self.ledger.suspects(now_s, 1.0)],
        }.items():
            self.beside.append((what, [site.endpoint.name for site in found]))
        unused = self.ledger.unused(now_s, 10.0)[:1]
        self.beside.append(("unused", [holding.endpoint.name for holding in unused]))
        for holding in unused:
            holding.sampled_s = now_s
            self.ledger.sampled(holding, said(len(self.beside)), now_s)

    def knows(self) -> list[tuple]:
        return [
            (h.endpoint.name, h.model, h.rank_s, h.service_s, h.net_s, h.state, h.missed_s, h.held)
            for site in self.ledger.sites()
            for h in site.holdings.values()
        ]


def said(sequence: int) -> CallReport:
    return CallReport(
        instance="i1",
        sequence=sequence,
        in_flight=0,
        slots=1,
        latency_s=0.01,
        wait_s=0.0,
        infer_s=0.01,
        models_generation=1,
    )


def happens(world: Watched, what: str, number: int) -> None:
    if what == "ask":
        # with and without a law, with time and in a hurry: each way of a decision
        law = frozenset({"eu"}) if number % 3 == 0 else None
        client = world.ask(
            timeout_s=0.02 if number == 7 else 5.0,
            priority=max(1, number),
            required_regions=law,
            explain=world.explain,
        )
        world.clients.append(client)
    elif what == "wait":
        world.wait(0.05 * number)
    elif what == "explore":
        world.now_s += 11.0
        world.dispatcher.sweep(world.now_s)
        world.ledger.sweep(world.now_s)
    elif what == "leave" and world.clients:
        client = world.clients[number % len(world.clients)]
        if client.status is None and not client.gone:
            client.leave()
    elif world.open:
        play(world.open[number % len(world.open)], what)
    world.note()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(WHAT, st.integers(0, 9)), max_size=60),
    st.sampled_from([ModelState.WARM, ModelState.COLD]),
)
def test_explaining_changes_no_choice_no_probe_and_nothing_that_is_known(script, state):
    asked, always = (
        Watched(explain=explain, names=NAMES, state=state, capacity=3) for explain in (False, True)
    )
    for what, number in script:
        for world in (asked, always):
            happens(world, what, number)
    assert [sent.to for sent in always.sent] == [sent.to for sent in asked.sent]
    assert always.wakes == asked.wakes
    assert always.beside == asked.beside
    assert always.knows() == asked.knows()
    assert [c.status for c in always.clients] == [c.status for c in asked.clients]
    for record in always.ended:
        if record.explained is not None:
            told = considered(record.told)
            assert len(told) == len({one["endpoint"] for one in told})
            assert [*record.told.order[: len(record.plan.order)]] == [*record.plan.order]


def test_an_endpoint_that_was_slow_once_is_explored_though_every_decision_is_explained():
    """A warm cloud was not used for 100 s after its cold call: its sample was never run."""
    world = Watched(explain=True, names=("eu.a", "us.b"))
    site = world.ledger.site("eu.a")
    assert site is not None
    site.holdings["digits", "1"].served(0.0, 2.0, 0, world.now_s)
    world.ask(explain=True)
    assert [sent.to for sent in world.open] == ["us.b"]
    world.open[0].answer()
    world.now_s += 11.0
    world.note()
    assert ("unused", ["eu.a"]) in world.beside


# What a refusal costs.


def fleet(**changes) -> World:
    names = tuple(f"{'eu' if n % 2 else 'us'}.{n}" for n in range(300))
    world = World(names=names, slots=2, **changes)
    world.ledger.sweep(world.now_s)
    return world


def calls_of(act) -> int:
    """How many Python functions are entered."""
    count = 0

    def heard(_frame, event, _argument) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(heard)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def served(world: World) -> None:
    world.ask()
    world.open[0].answer()


def nobody_lives(world: World) -> dict:
    for site in world.ledger.sites():
        world.kill(site.endpoint.name)
    return {}


def nobody_is_lawful(_world: World) -> dict:
    return {"required_regions": frozenset({"atlantis"}), "requirement": "atlantis"}


def all_are_full(world: World) -> dict:
    for site in world.ledger.sites():
        site.holdings["digits", "1"].full_until_s = world.now_s + 60
        site.settle(world.now_s)
    return {"timeout_s": 0.001}


def nobody_is_in_time(_world: World) -> dict:
    return {"timeout_s": 0.001}


REFUSALS = [nobody_lives, nobody_is_lawful, all_are_full, nobody_is_in_time]


UPSTREAM_CALLS = 21
"""Not counted here: what serving costs on a real connection to the endpoint."""


@pytest.mark.parametrize("make", REFUSALS, ids=lambda make: make.__name__)
def test_refusing_enters_no_more_functions_than_serving(make):
    serving = fleet()
    served(serving)
    most = calls_of(lambda: served(serving)) + UPSTREAM_CALLS
    world = fleet()
    served(world)
    changes = make(world)
    refused = world.ask(**changes)
    assert refused.status in (503, 504)
    assert calls_of(lambda: world.ask(**changes)) <= most


def test_a_refusal_under_a_law_names_sixteen_and_counts_the_others():
    world = fleet()
    refused = world.ask(required_regions=frozenset({"atlantis"}), requirement="atlantis")
    told = json.loads(refused.body)["reasons"]
    assert len(told) == REASONS_COUNT + 1
    assert told.pop(OTHERS) == "284 outside atlantis"
    assert {reason.partition(" is ")[2] for reason in told.values()} == {"outside atlantis"}


def test_a_refusal_that_the_law_has_no_part_in_gives_reasons_to_who_asks_only():
    world = World(names=("eu.a", "eu.b"))
    for name in ("eu.a", "eu.b"):
        world.kill(name)
    assert "reasons" not in json.loads(world.ask().body)
    told = json.loads(world.ask(explain=True).body)["reasons"]
    assert told == {"eu.a": "2 probes missed", "eu.b": "2 probes missed"}


# What is kept of decisions.


@pytest.mark.parametrize("explain", [False, True])
def test_what_is_kept_of_decisions_is_bounded_in_bytes(explain):
    world = fleet()
    world.ask(explain=explain)
    world.open[0].answer()
    record = world.ended[-1]
    most = 1 << 20
    decisions = Decisions("policy", most)
    for number in range(2 * KEPT):
        query = replace(record.query, request_id=f"q{number}")
        copy = RoutedRequest(world.runner, Client(), query, record.plan)
        copy.explained, copy.attempts = record.explained, list(record.attempts)
        decisions.keep(copy, 0.0)
        assert decisions.held_bytes <= most
    assert decisions.tell("q0") is None
    newest = decisions.tell(f"q{2 * KEPT - 1}")
    assert newest is not None
    assert newest["considered"][0]["endpoint"] == record.attempts[0].endpoint


def test_a_refused_decision_takes_no_more_than_is_reckoned():
    world = fleet()
    nobody_lives(world)
    decisions = Decisions("policy")
    gc.collect()
    tracemalloc.start()
    count = 200
    for _ in range(count):
        world.ask()
        decisions.keep(world.ended.pop(), 0.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / count <= RECORD_BYTES + TRIED_BYTES
    assert decisions.held_bytes == count * RECORD_BYTES


def test_the_quickest_are_few():
    world = fleet()
    query = Query("q", "digits", world.now_s, world.now_s + 30)
    assert len(world.chooser.quickest(query)) == QUICKEST_COUNT
