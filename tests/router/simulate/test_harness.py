"""A run as a whole: every request ends once, nothing is left, chance comes from the seed only."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.law.permit import permit
from isochrone.router.simulate.plugged import plugged
from isochrone.router.simulate.rules import RULES
from isochrone.router.simulate.scenario import Antagonists, Fault, Network, TenantEntry
from tests.router.simulate.stages import entry, run_of, scenario

WEST, EAST = entry("w", "west"), entry("e", "east")


class Scripted:
    """A rule that asks in the order of the names, or as it is told; it writes everything down."""

    def __init__(self, chooses=lambda sites: min(sites, key=lambda site: site.name)):
        self.chooses = chooses
        self.told = []
        self.probes = []

    def __call__(self, sites, *_):
        self.first = [site.name for site in sites]
        return self

    def choose(self, _call, sites, _now_s):
        return self.chooses(sites)

    def sent(self, call, site, _now_s):
        self.told.append((call.number, site.name, "sent"))

    def answered(self, call, site, *_):
        self.told.append((call.number, site.name, Outcome.ANSWERED))

    def failed(self, call, site, outcome, _now_s):
        self.told.append((call.number, site.name, outcome))

    def due(self, _call, sites, _now_s):
        return sites[:1]

    def probed(self, _site, reply, _now_s):
        self.probes.append(reply)


ROUGH = scenario(
    entry("w", "west", slots=2, queue=3, distribution="exponential"),
    entry("e", "east", slots=2, queue=3, distribution="exponential", load_s=0.3),
    entry("cold", "west", starts="cold", load_s=0.5, keep_alive_s=1.0),
    entry("late", "east", joins_s=4.0, tier="cloud", queue=2),
    tenants=(TenantEntry(name="free"), TenantEntry(name="bound", require=("west",))),
    network=Network(jitter_share=0.2),
    antagonists=Antagonists(share=0.5, factor=3, slow_s=1, quiet_s=1),
    deadline_s=3.0,
    seconds=12.0,
    faults=(
        Fault(kind="kill", where=("e",), at_s=2.0, for_s=3.0),
        Fault(kind="freeze", where=("w",), at_s=3.0, for_s=1.0),
        Fault(kind="fast_fail", where=("cold",), at_s=5.0, for_s=1.0),
        Fault(kind="slow", where=("w",), at_s=6.0, for_s=1.0, factor=5.0),
        Fault(kind="region_loss", where=("east",), at_s=8.0, for_s=1.0),
        Fault(kind="scale_to_zero", where=("cold",), at_s=9.0),
    ),
)
"""Everything that can go wrong, in twelve seconds."""


@pytest.mark.parametrize("name", list(RULES))
def test_every_request_ends_once_and_nothing_is_left_whatever_goes_wrong(name):
    run, played, endings = run_of(RULES[name].build(1, 2), ROUGH, load=1.2, regret_every=5)
    numbers = [request.number for request, _ in endings]
    assert sorted(numbers) == list(range(played.requests))
    assert all(ending.lawful for _, ending in endings)
    run.stage.engine.run(run.stage.engine.now_s + 100)
    assert run.stage.in_flight == 0


@pytest.mark.parametrize("name", ["isochrone", "c3", "clairvoyant"])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(name):
    def played(seed):
        _, came_to, endings = run_of(RULES[name].build(seed, 2), ROUGH, seed=seed)
        return came_to, [(request.number, ending) for request, ending in endings]

    assert played(3) == played(3)
    assert played(3) != played(4)


def test_latency_is_counted_at_the_router_and_has_the_way_and_the_service():
    asked = scenario(entry("w", "west", slots=50))
    run, _, endings = run_of(plugged(Scripted(), 1), asked, load=0.05)
    ways = [run.stage.ways(router)["w"].rtt_s for router in (0, 1)]
    assert {request.router for request, _ in endings} == {0, 1}
    for request, ending in endings:
        body_s = request.body_bytes / asked.network.bandwidth_bytes_s
        assert ending.latency_s == pytest.approx(0.1 + ways[request.router] + body_s)


def test_every_sent_is_followed_by_one_end_and_never_twice_to_one_endpoint():
    rule = Scripted()
    run_of(plugged(rule, 1), ROUGH, load=1.0)
    sent = Counter((n, name) for n, name, what in rule.told if what == "sent")
    assert max(Counter(n for n, _ in sent).values()) == ROUGH.tries
    ended = Counter((n, name) for n, name, what in rule.told if what != "sent")
    assert set(sent.values()) == {1}
    assert sent == ended


def test_a_rule_is_asked_among_the_lawful_ones_only():
    seen = set()

    def chooses(sites):
        seen.add(frozenset(site.name for site in sites))
        return sites[0]

    asked = scenario(WEST, EAST, tenants=(TenantEntry(name="bound", require=("east",)),))
    run_of(plugged(Scripted(chooses), 1), asked, load=0.3)
    assert seen == {frozenset({"e"})}


def test_the_judge_sees_a_try_outside_the_law(monkeypatch):
    asked = scenario(WEST, EAST, tenants=(TenantEntry(name="bound", require=("east",)),))

    def everybody(router, _lane):
        return list(router._known.values())

    def any_permit(query, candidate):
        return permit(msgspec.structs.replace(query, required_regions=None), candidate)

    monkeypatch.setattr("isochrone.router.simulate.plugged.PluggedRouter.lawful", everybody)
    monkeypatch.setattr("isochrone.router.simulate.plugged.permit", any_permit)
    rule = Scripted(lambda sites: next(site for site in sites if site.name == "w"))
    _, _, endings = run_of(plugged(rule, 1), asked, load=0.3)
    assert endings
    assert not any(ending.lawful for _, ending in endings)


def test_who_joins_later_is_not_known_before():
    rule = Scripted(lambda sites: max(sites, key=lambda site: site.name == "new"))
    asked = scenario(WEST, entry("new", "west", joins_s=10.0))
    _, _, endings = run_of(plugged(rule, 1), asked, load=0.2)
    assert rule.first == ["w"]
    used = {(ending.endpoint, request.at_s >= 10.0) for request, ending in endings}
    assert used == {("w", False), ("new", True)}


def test_a_call_waits_at_the_router_until_something_changes_or_its_deadline():
    out: Counter[str] = Counter()

    def one_at_a_time(sites):
        return sites[0] if not out["w"] else None

    class OneAtATime(Scripted):
        def sent(self, *_):
            out["w"] += 1

        def answered(self, *_):
            out["w"] -= 1

        def due(self, *_):
            return ()

    asked = scenario(entry("w", "west", slots=8), routers=(scenario().routers[0],))
    _, _, endings = run_of(plugged(OneAtATime(one_at_a_time), 1), asked, load=0.05)
    assert all(ending.served for _, ending in endings)
    assert max(ending.latency_s for _, ending in endings) > 0.15
    slow = scenario(
        entry("w", "west", mean_s=30.0), routers=(scenario().routers[0],), deadline_s=2.0
    )
    out.clear()
    _, _, endings = run_of(plugged(OneAtATime(one_at_a_time), 1), slow, load=8)
    assert {round(ending.latency_s, 6) for _, ending in endings} == {2.0}
    assert not any(ending.served for _, ending in endings)


@settings(max_examples=8)
@given(st.floats(0.1, 0.9), st.integers(0, 99))
def test_the_truth_foretells_a_deterministic_world(load, seed):
    """With one router in no way delayed, the greedy rule never regrets and waits as foretold."""
    asked = scenario(WEST, EAST, seconds=4.0, deadline_s=30.0, routers=(scenario().routers[0],))
    _, _, endings = run_of(RULES["clairvoyant"].build(seed, 1), asked, load=load, regret_every=1)
    assert all(ending.regret_s == pytest.approx(0.0, abs=1e-9) for _, ending in endings)


def test_a_request_that_never_ends_is_an_error():
    class Mute:
        probes = 0

        def join(self, index):
            pass

        def ask(self, asked):
            pass

    with pytest.raises(RuntimeError, match="not ended"):
        run_of(lambda *_: Mute(), scenario(), load=0.1)
