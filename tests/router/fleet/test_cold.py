"""What the ledger makes of models that fall cold, and of waiting for them to load."""

import pytest

from router.fleet.ledger import Ledger
from router.fleet.outcome import Outcome
from router.wire.report import HeldModel, ModelState, Waking
from tests.router.fleet.test_ledger import EDGE, call_report, only, proven, report

LOAD_S = 2.0


def turns_at(holding):
    return holding.site.curve.turns(holding.site.occupancy.place)


def told(state: ModelState, ledger: Ledger, sequence: int, now_s: float) -> None:
    """A probe finds the model in this state."""
    (site,) = ledger.sites()
    held = HeldModel("digits", "1", state, load_s=LOAD_S)
    ledger.probe_answered(site, report(sequence, models=[held]), 0.01, now_s)


@pytest.fixture
def unloaded() -> Ledger:
    """It was warm at first, and is cold."""
    ledger = proven(EDGE)
    told(ModelState.COLD, ledger, 2, 1.0)
    return ledger


def serve(ledger: Ledger, sequence: int, **more) -> None:
    """One request there, from the second second on."""
    lease = ledger.sent(EDGE, "digits", "1", 2.0)
    assert lease is not None
    ledger.answered(lease, call_report(sequence, **more), 5.0)
    ledger.close(lease, Outcome.ANSWERED, 5.0)


def test_a_load_is_not_taken_for_a_queue(unloaded):
    turns = turns_at(only(unloaded))
    serve(unloaded, 3, wait_s=LOAD_S)
    assert turns_at(only(unloaded)) == turns


def test_nor_is_one_that_the_router_did_not_know_of():
    ledger = proven(EDGE)
    turns = turns_at(only(ledger))
    serve(ledger, 3, wait_s=LOAD_S, models_generation=3)
    assert turns_at(only(ledger)) == turns


def test_a_wait_where_nothing_was_loaded_is_a_queue():
    ledger = proven(EDGE)
    turns = turns_at(only(ledger))
    serve(ledger, 3, wait_s=LOAD_S)
    assert turns_at(only(ledger)) > turns


def test_who_waits_for_a_load_is_not_late(unloaded):
    service_s = only(unloaded).service_s
    unloaded.sent(EDGE, "digits", "1", 2.0)
    unloaded.sweep(2.0 + LOAD_S)
    assert only(unloaded).service_s == service_s
    unloaded.sweep(2.0 + 10 * LOAD_S)
    assert only(unloaded).service_s > service_s


def test_what_was_never_warm_is_worth_a_wake_at_once():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    site.hold([], 1.0)
    told(ModelState.COLD, ledger, 2, 1.0)
    assert ledger.missed(EDGE, "digits", "1", 0.001)


def test_what_was_unloaded_is_worth_one_when_requests_have_lost_as_much_as_a_load(unloaded):
    worth = [unloaded.missed(EDGE, "digits", "1", 0.5) for _ in range(5)]
    assert worth == [False, False, False, True, True]
    told(ModelState.WARM, unloaded, 3, 3.0)
    told(ModelState.COLD, unloaded, 4, 4.0)
    assert not unloaded.missed(EDGE, "digits", "1", 0.5), "it begins anew"


def test_who_has_left_is_not_missed(unloaded):
    assert not unloaded.missed(EDGE, "letters", "1", 1000.0)


def test_what_may_fall_cold_is_watched_as_closely_as_what_is_in_use(unloaded):
    (site,) = unloaded.sites()
    told(ModelState.WARM, unloaded, 3, 3.0)
    unloaded.due(3.0, 1.0)
    assert unloaded.due(4.1, 1.0) == [site]


def test_who_is_warm_when_it_is_woken_says_nothing_of_how_long_a_load_takes(unloaded):
    unloaded.woken(EDGE, "digits", "1", 2.0)
    unloaded.waking(EDGE, "digits", "1", Waking("digits", "1", ModelState.WARM, 0.0), 2.1)
    assert only(unloaded).load_s == LOAD_S
