"""What the ledger makes of models that fall cold, and of waiting for them to load."""

import pytest

from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.wire.report import HeldModel, ModelState, Waking
from tests.router.fleet.test_ledger import CLOUD, EDGE, call_report, only, own, proven, report

LOAD_S = 2.0
CALL_S = 0.004
EDGE_S = 0.05


def turns_at(holding):
    return holding.site.curve.turns[holding.site.occupancy.place]


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


def test_a_model_whose_unload_was_watched_counts_as_unloaded():
    ledger = proven(EDGE)
    told(ModelState.DRAINING, ledger, 2, 1.0)
    told(ModelState.COLD, ledger, 3, 2.0)
    assert only(ledger).falls_cold


def test_an_answer_from_before_an_unload_does_not_make_the_model_warm():
    ledger = proven(EDGE)
    told(ModelState.DRAINING, ledger, 2, 1.0)
    serve(ledger, 3)
    assert only(ledger).state is ModelState.DRAINING


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


def at(ledger: Ledger, name: str):
    """The model at one of two endpoints."""
    return next(c for c in ledger.candidates("digits", None) if c.endpoint.name == name)


def edge_and_cloud(state: ModelState) -> Ledger:
    """The model is slow at the edge, which is nearer; at the cloud it is in this state."""
    ledger = proven(EDGE, CLOUD)
    cloud = ledger.site("cloud")
    assert cloud is not None
    held = HeldModel("digits", "1", state, load_s=LOAD_S)
    ledger.probe_answered(cloud, report(2, models=[held], **own(CLOUD)), 0.02, 1.0)
    for number in range(50):
        lease = ledger.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        ledger.answered(lease, call_report(number + 2, infer_s=EDGE_S), 1.0 + 0.01 + EDGE_S)
        ledger.close(lease, Outcome.ANSWERED, 2.0)
    return ledger


def call_cloud(ledger: Ledger, **told) -> None:
    """A call that waited there for the model to start."""
    lease = ledger.sent(CLOUD, "digits", "1", 2.0)
    assert lease is not None
    answer = call_report(3, instance="c", wait_s=LOAD_S, infer_s=CALL_S, **told)
    ledger.answered(lease, answer, 2.0 + 0.02 + LOAD_S + CALL_S)
    ledger.close(lease, Outcome.ANSWERED, 5.0)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        pytest.param(ModelState.COLD, {}, id="known to be cold"),
        pytest.param(ModelState.WARM, {"load_s": LOAD_S - 0.01}, id="the answer tells"),
    ],
)
def test_a_cold_start_in_the_cloud_is_a_load_and_no_service(state, told):
    ledger = edge_and_cloud(state)
    turns = turns_at(at(ledger, "cloud"))
    call_cloud(ledger, **told)
    assert at(ledger, "cloud").service_s == pytest.approx(CALL_S)
    assert turns_at(at(ledger, "cloud")) == turns
    assert at(ledger, "cloud").rank_s < at(ledger, "edge").rank_s


def test_what_a_sample_contradicts_is_corrected_though_nobody_uses_it():
    ledger = edge_and_cloud(ModelState.WARM)
    call_cloud(ledger)  # which does not tell that it waited for a start
    cloud = at(ledger, "cloud")
    assert cloud.rank_s > at(ledger, "edge").rank_s
    ledger.shortlist("digits", None, None)
    assert ledger.unused(12.0, 10.0) == []
    assert ledger.unused(20.0, 10.0) == [cloud]
    sample = call_report(9, instance="c", wait_s=0.002, infer_s=CALL_S)
    ledger.sampled(cloud, sample, 20.0)
    assert cloud.service_s == pytest.approx(CALL_S + 0.002)
    assert cloud.rank_s < at(ledger, "edge").rank_s


def test_one_sample_is_enough_where_nothing_else_was_seen_for_long():
    ledger = edge_and_cloud(ModelState.WARM)
    cloud = at(ledger, "cloud")
    cloud.served(0.002, 1.8, 0, 3.0)
    ledger.sampled(cloud, call_report(9, instance="c", infer_s=CALL_S), 14.0)
    assert cloud.service_s == pytest.approx(CALL_S, abs=1e-6)


def test_who_cannot_win_even_with_a_model_that_takes_no_time_is_not_sampled():
    ledger = edge_and_cloud(ModelState.WARM)
    cloud = ledger.site("cloud")
    assert cloud is not None
    for second in range(3, 60):
        report_of = report(second, models=[HeldModel("digits", "1", ModelState.WARM)], **own(CLOUD))
        ledger.probe_answered(cloud, report_of, 0.2, float(second))
    ledger.shortlist("digits", None, None)
    assert ledger.unused(1000.0, 10.0) == []
