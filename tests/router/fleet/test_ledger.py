"""The ledger: what it makes of observations, with time as an argument."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.fleet.site import Lease
from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.members.membership import Member, Membership
from isochrone.router.wire.report import (
    CallReport,
    EndpointReport,
    Enrolment,
    HeldModel,
    ModelState,
    Pressure,
    Waking,
)
from isochrone.router.wire.report import Lease as Term

EDGE = Endpoint("edge", "http://127.0.0.1:1", "eu-west")
CLOUD = Endpoint("cloud", "http://127.0.0.1:2", "us-east", tier=Tier.CLOUD)
HELD = HeldModel("digits", "1", ModelState.WARM, load_s=0.5)


def report(sequence: int, *, in_flight: int = 0, models=(HELD,), **other) -> EndpointReport:
    return EndpointReport(
        wire_version=1,
        name=other.pop("name", "edge"),
        region=other.pop("region", "eu-west"),
        instance=other.pop("instance", "i1"),
        sequence=sequence,
        in_flight=in_flight,
        slots=2,
        ready=True,
        draining=other.pop("draining", False),
        models_generation=1,
        models=tuple(models),
        **other,
    )


def call_report(sequence: int, **other) -> CallReport:
    defaults = {"in_flight": 0, "slots": 2, "latency_s": 0.02, "wait_s": 0.0, "infer_s": 0.02}
    merged = {"instance": "i1", "models_generation": 1, **defaults, **other}
    return CallReport(sequence=sequence, **merged)


def ledger_of(*endpoints: Endpoint) -> Ledger:
    members = [Member(e, slots=2, models=(HELD,)) for e in endpoints]
    membership = Membership(members, ["eu-west", "us-east"], Term())
    ledger = Ledger({"eu-west": 0.015, "us-east": 0.09}, "r1")
    ledger.follow(membership, 0.0)
    return ledger


def proven(*endpoints: Endpoint) -> Ledger:
    ledger = ledger_of(*endpoints)
    for site in ledger.sites():
        ledger.probe_sent(site, 0.0)
        ledger.probe_answered(site, report(1, **own(site.endpoint)), 0.01, 0.01)
    return ledger


def send(ledger: Ledger, endpoint: Endpoint) -> Lease:
    lease = ledger.sent(endpoint, "digits", "1", 1.0)
    assert lease is not None
    return lease


def own(endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "region": endpoint.region}


def test_a_probe_that_is_answered_after_its_endpoint_has_left_brings_nobody_back():
    members = [Member(EDGE, slots=2, models=(HELD,), expires_s=100.0)]
    membership = Membership(members, ["eu-west"], Term())
    ledger = Ledger({"eu-west": 0.015}, "r1")
    ledger.follow(membership, 0.0)
    (site,) = ledger.sites()
    ledger.probe_sent(site, 0.0)
    membership.leave("edge")
    ledger.follow(membership, 0.5)
    ledger.probe_answered(site, report(1), 0.01, 1.0)
    ledger.probe_ready(site, 0.01, 1.0)
    assert list(ledger.models()) == []
    assert list(ledger.candidates("digits", None)) == []


def test_who_was_late_and_has_begun_to_answer_is_late_no_more():
    ledger = proven(EDGE)
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    ledger.sweep(61.0)
    before_s = only(ledger).service_s
    ledger.answered(lease, call_report(2), 61.0)
    assert only(ledger).service_s < before_s / 10, "it streams on, and is as quick as it was"


def only(ledger: Ledger):
    (candidate,) = ledger.candidates("digits", None)
    return candidate


def test_a_new_endpoint_is_asked_before_it_is_trusted():
    ledger = ledger_of(EDGE)
    assert only(ledger).out == "not heard from yet"
    assert only(ledger).net_s == 0.015, "the prior of its region"
    (site,) = ledger.due(0.0, 1.0)
    ledger.probe_sent(site, 0.0)
    assert ledger.due(0.01, 1.0) == [], "one probe at a time"
    ledger.probe_answered(site, report(1), 0.01, 0.02)
    assert only(ledger).out is None
    assert only(ledger).net_s == 0.01, "measured"
    assert ledger.due(0.5, 1.0) == []
    assert ledger.due(1.03, 1.0) == [], "nobody uses it"
    assert ledger.due(5.1, 1.0) == [site]


def test_who_is_in_use_or_out_is_watched_closely_and_who_comes_into_use_is_asked_at_once():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.due(0.0, 1.0)
    assert ledger.due(3.0, 1.0) == []
    assert ledger.sent(EDGE, "digits", "1", 3.0) is not None
    asked_s = []
    for tick in range(300, 600):
        if ledger.due(tick / 100, 1.0):
            ledger.probe_sent(site, tick / 100)
            site.probing = False
            asked_s.append(tick / 100)
    assert asked_s == pytest.approx([3.0, 4.0, 5.0], abs=0.03)
    for _ in range(2):
        ledger.probe_missed(site, 20.0)
    assert len(ledger.due(20.0, 1.0)) == 1
    assert len(ledger.due(21.1, 1.0)) == 1


@pytest.mark.parametrize(("endpoint", "asked"), [(EDGE, 0), (CLOUD, 9)], ids=["edge", "cloud"])
def test_a_cloud_region_under_steady_load_is_asked_for_its_report(endpoint, asked):
    """An agent's answers tell when its models change; those of a region do not."""
    ledger = proven(endpoint)
    (site,) = ledger.sites()
    ledger.due(0.0, 1.0)
    probes = 0
    for tick in range(1, 100):
        now_s = tick / 10
        lease = ledger.sent(endpoint, "digits", "1", now_s)
        assert lease is not None
        ledger.answered(lease, call_report(tick + 1), now_s)
        ledger.close(lease, Outcome.ANSWERED, now_s)
        for due in ledger.due(now_s, 1.0):
            ledger.probe_sent(due, now_s)
            site.probing = False
            probes += 1
    assert probes == asked


def test_own_requests_that_a_report_cannot_have_seen_are_added():
    ledger = proven(EDGE)
    leases = [ledger.sent(EDGE, "digits", "1", 1.0) for _ in range(3)]
    assert (only(ledger).in_flight, only(ledger).unseen) == (3, 3)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, in_flight=4, seen={"r1": 2}), 0.01, 1.1)
    assert (only(ledger).in_flight, only(ledger).unseen) == (5, 1), "four seen there, one not yet"
    for lease in leases:
        assert lease is not None
        ledger.close(lease, Outcome.ANSWERED, 1.2)
        ledger.close(lease, Outcome.FAILED, 1.2)  # a second close is none
    assert (only(ledger).in_flight, only(ledger).unseen) == (4, 0)
    assert only(ledger).out is None


def test_round_trip_and_service_time_come_from_answers():
    ledger = proven(CLOUD)
    for sequence, wait_s in [(5, 0.002), (6, 0.1)]:
        lease = ledger.sent(CLOUD, "digits", "1", 1.0)
        assert lease is not None
        ledger.answered(lease, call_report(sequence, wait_s=wait_s, infer_s=0.03), 1.035 + wait_s)
    assert only(ledger).net_s == pytest.approx(0.02 / 3), "10 ms by probe, 5 and 5"
    assert only(ledger).service_s == pytest.approx(0.032), "the least wait is no queue"


def test_an_old_report_changes_nothing():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(9, in_flight=1), 0.01, 1.0)
    ledger.probe_answered(site, report(8, in_flight=7), 0.01, 1.1)
    assert only(ledger).in_flight == 1


def test_a_restarted_agent_begins_anew():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(900, in_flight=7), 0.01, 1.0)
    ledger.probe_answered(site, report(1, in_flight=0, instance="i2"), 0.01, 2.0)
    assert only(ledger).in_flight == 0


def test_a_cloud_region_is_the_sum_of_its_newest_reports():
    ledger = proven(CLOUD)
    (site,) = ledger.sites()
    for instance, sequence, count in [("a", 1, 3), ("b", 1, 4), ("a", 2, 1)]:
        ledger.probe_answered(
            site, report(sequence, in_flight=count, instance=instance, **own(CLOUD)), 0.01, 1.0
        )
    assert only(ledger).in_flight == 5
    ledger.probe_answered(site, report(2, in_flight=4, instance="b", **own(CLOUD)), 0.01, 20.0)
    assert only(ledger).in_flight == 4, "a replica that is silent does not count for ever"


def test_two_missed_probes_take_it_out_and_two_good_ones_bring_it_back():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_missed(site, 2.0)
    assert only(ledger).out is None
    ledger.probe_missed(site, 2.0)
    assert only(ledger).out == "2 probes missed"
    ledger.probe_answered(site, report(2), 0.01, 3.0)
    assert only(ledger).out is not None
    ledger.probe_answered(site, report(3), 0.01, 4.0)
    assert only(ledger).out is None


FAILURES = {
    "refused": (Outcome.REFUSED, 1, "refuses connections"),
    "failed": (Outcome.FAILED, 3, "3 calls failed in a row (failed)"),
    "crashed": (Outcome.CRASHED, 3, "3 calls failed in a row (crashed)"),
    "busy": (Outcome.BUSY, None, None),
    "unable": (Outcome.UNABLE, None, None),
    "late": (Outcome.LATE, None, None),
    "cancelled": (Outcome.CANCELLED, None, None),
}


@pytest.mark.parametrize(("outcome", "enough", "why"), FAILURES.values(), ids=FAILURES)
def test_how_many_failures_hold_it_back(outcome, enough, why):
    ledger = proven(EDGE)
    held_after = None
    for count in range(1, 6):
        lease = ledger.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        ledger.close(lease, outcome, 1.1)
        if only(ledger).held is not None and held_after is None:
            held_after = count
    assert held_after == enough
    assert only(ledger).held == why
    assert only(ledger).out is None, "single trials may always go there"


def test_an_answer_between_failures_starts_the_count_again():
    ledger = proven(EDGE)
    for outcome in [Outcome.FAILED, Outcome.FAILED, Outcome.ANSWERED] * 3:
        lease = ledger.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        ledger.close(lease, outcome, 1.1)
    assert only(ledger).held is None


def call(ledger: Ledger, outcome: Outcome, now_s: float, model: str = "digits") -> Lease:
    lease = ledger.sent(EDGE, model, "1", now_s)
    assert lease is not None
    ledger.close(lease, outcome, now_s)
    return lease


def test_one_models_failures_are_its_own_matter_and_several_condemn_the_endpoint():
    other = HeldModel("other", "1", ModelState.WARM)
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, models=[HELD, other]), 0.01, 1.0)
    for _ in range(3):
        call(ledger, Outcome.FAILED, 2.0)
    (held,), (free,) = ledger.candidates("digits", None), ledger.candidates("other", None)
    assert (held.held, free.held) == ("3 calls failed in a row (failed)", None)
    for _ in range(3):
        call(ledger, Outcome.FAILED, 3.0, "other")
    assert held.held == free.held == "several of its models fail"


def test_after_a_good_sample_one_request_may_bring_a_failing_model_back():
    ledger = proven(EDGE)
    for _ in range(3):
        call(ledger, Outcome.FAILED, 2.0)
    assert only(ledger).held_until_s == math.inf, "we can test it ourselves"
    assert ledger.suspects(2.5, 1.0) == [], "not at once"
    (holding,) = ledger.suspects(3.0, 1.0)
    holding.sampled_s = 3.0
    ledger.sampled(holding, None, 3.0)
    assert ledger.suspects(3.5, 1.0) == []
    assert ledger.suspects(4.0, 1.0) == [holding]
    ledger.sampled(holding, call_report(9), 5.0)
    assert only(ledger).held_until_s == 3.0, "a request may be a trial"
    call(ledger, Outcome.ANSWERED, 5.1)
    assert only(ledger).held is None
    assert ledger.suspects(9.0, 1.0) == []
    assert only(ledger).ramp_from_s == 5.1, "it comes back step by step"


def failing(ledger: Ledger):
    for _ in range(3):
        call(ledger, Outcome.FAILED, 2.0)
    (site,) = ledger.sites()
    return site.holdings["digits", "1"]


def sampled(ledger: Ledger, holding, now_s: float, *, good: bool) -> None:
    assert ledger.suspects(now_s, 1.0) == [holding]
    holding.sampled_s = now_s
    ledger.sampled(holding, call_report(100 + int(now_s)) if good else None, now_s)


def test_samples_are_run_every_second_however_often_they_fail():
    ledger = proven(EDGE)
    holding = failing(ledger)
    for second in range(3, 63):
        assert ledger.suspects(second - 0.1, 1.0) == []
        sampled(ledger, holding, float(second), good=False)
    assert holding.held_until_s == math.inf


def test_two_good_samples_bring_it_back_where_no_request_may_be_a_trial():
    ledger = proven(EDGE)
    holding = failing(ledger)
    for second in range(3, 33):
        sampled(ledger, holding, float(second), good=False)
    sampled(ledger, holding, 33.0, good=True)
    assert holding.held is not None
    sampled(ledger, holding, 34.0, good=False)
    sampled(ledger, holding, 35.0, good=True)
    assert holding.held is not None, "two in a row"
    sampled(ledger, holding, 36.0, good=True)
    assert holding.held is None
    assert holding.ramp_from_s == 36.0


def test_good_samples_of_what_fails_requests_bring_it_back_later_and_later():
    ledger = proven(EDGE)
    holding = failing(ledger)
    sampled(ledger, holding, 3.0, good=True)
    call(ledger, Outcome.FAILED, 3.5)  # the trial
    assert holding.held_until_s == math.inf
    for second in (4, 5):
        sampled(ledger, holding, float(second), good=True)
    assert holding.held is not None, "a failed trial doubles the time"
    sampled(ledger, holding, 6.0, good=True)
    assert holding.held is None


def test_one_sample_at_a_time_and_none_of_what_is_not_warm():
    ledger = proven(EDGE)
    for _ in range(3):
        call(ledger, Outcome.FAILED, 2.0)
    (holding,) = ledger.suspects(3.0, 1.0)
    holding.sampling = True
    assert ledger.suspects(30.0, 1.0) == []
    holding.sampling = False
    (site,) = ledger.sites()
    cold = HeldModel("digits", "1", ModelState.COLD)
    ledger.probe_answered(site, report(2, models=[cold]), 0.01, 4.0)
    assert ledger.suspects(30.0, 1.0) == []
    assert only(ledger).held_until_s == 3.0, "a request has to load it, so a request is the trial"


def enrolment(instance: str, sequence: int, *models: HeldModel) -> Enrolment:
    return Enrolment(
        wire_version=1,
        name=EDGE.name,
        instance=instance,
        boot_id="b",
        sequence=sequence,
        url=EDGE.url,
        region=EDGE.region,
        slots=2,
        models=models,
    )


def test_a_restarted_agent_is_not_held_back_for_what_the_old_process_did():
    membership, ledger = Membership([], ["eu-west"], Term()), Ledger({"eu-west": 0.01}, "r1")
    membership.enrol(enrolment("i1", 1, HELD), EDGE.url, 0.0)
    ledger.follow(membership, 0.0)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(1), 0.01, 0.0)
    for _ in range(3):
        call(ledger, Outcome.FAILED, 2.0)
    assert only(ledger).held is not None
    membership.enrol(enrolment("i1", 2, HELD), EDGE.url, 2.5)
    ledger.follow(membership, 2.5)
    assert only(ledger).held is not None, "it has only renewed"
    membership.enrol(enrolment("i2", 1, HELD), EDGE.url, 3.0)
    ledger.follow(membership, 3.0)
    assert only(ledger).held is None
    assert ledger.suspects(60.0, 1.0) == []


def test_an_idle_agent_whose_renewal_tells_of_other_models_is_asked_at_once():
    membership, ledger = Membership([], ["eu-west"], Term()), Ledger({"eu-west": 0.01}, "r1")
    membership.enrol(enrolment("i1", 1, HELD), EDGE.url, 0.0)
    ledger.follow(membership, 0.0)
    (site,) = ledger.due(0.0, 1.0)
    ledger.probe_sent(site, 0.0)
    ledger.probe_answered(site, report(1), 0.01, 0.01)
    membership.enrol(enrolment("i1", 2, HELD), EDGE.url, 1.5)
    ledger.follow(membership, 1.5)
    assert ledger.due(1.5, 1.0) == [], "nothing is new"
    membership.enrol(
        enrolment("i1", 3, structs.replace(HELD, state=ModelState.COLD)), EDGE.url, 1.6
    )
    ledger.follow(membership, 1.6)
    assert ledger.due(1.6, 1.0) == [site]


def test_only_the_model_that_recovers_starts_slowly():
    other = HeldModel("other", "1", ModelState.WARM)
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, models=[HELD, other]), 0.01, 1.0)
    for _ in range(3):
        call(ledger, Outcome.FAILED, 2.0)
    call(ledger, Outcome.ANSWERED, 4.0)
    (recovered,), (well,) = ledger.candidates("digits", None), ledger.candidates("other", None)
    assert (recovered.ramp_from_s, well.ramp_from_s) == (4.0, -math.inf)


def test_a_model_that_hangs_while_its_agent_is_well_is_held_back():
    ledger = proven(EDGE)
    for _ in range(3):
        lease = ledger.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        ledger.close(lease, Outcome.LATE, 6.0)
    assert only(ledger).held == "3 calls failed in a row (late)"
    hasty = proven(EDGE)
    for _ in range(9):
        lease = hasty.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        hasty.close(lease, Outcome.LATE, 1.02)
    assert only(hasty).held is None, "it had no time"


def test_a_reader_that_is_slow_does_not_make_the_endpoint_slow():
    ledger = proven(EDGE)
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    ledger.answered(lease, call_report(2), 1.03)
    ledger.sweep(60.0)
    assert only(ledger).service_s == pytest.approx(0.02)


def test_a_crash_is_no_sign_of_life():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    for _ in range(2):
        ledger.probe_missed(site, 2.0)
        call(ledger, Outcome.CRASHED, 2.0)
    assert only(ledger).out == "2 probes missed"


def test_no_endpoint_can_spoil_what_is_expected_of_the_others():
    ledger = proven(EDGE)
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    ledger.answered(lease, call_report(2, wait_s=1.0, infer_s=1e-300), 1.5)
    wait_s, variance = only(ledger).wait
    turn_s = only(ledger).turn_s
    assert turn_s > 0
    assert 0 <= wait_s < 2 * turn_s
    assert variance < (16 * turn_s) ** 2


class TestExploration:
    """The near one was slow when it was last asked, the middle one is the best, one is far."""

    @pytest.fixture
    def ledger(self):
        middle = replace(EDGE, name="middle", url="http://127.0.0.1:6")
        far = replace(EDGE, name="far", url="http://127.0.0.1:7", region="us-east")
        rtt_s = {EDGE: 0.001, middle: 0.05, far: 0.5}
        ledger = ledger_of(EDGE, middle, far)
        for site in ledger.sites():
            ledger.probe_answered(site, report(1, **own(site.endpoint)), rtt_s[site.endpoint], 1.0)
        lease = ledger.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        ledger.answered(lease, call_report(2, infer_s=1.0), 2.0)
        ledger.close(lease, Outcome.ANSWERED, 2.0)
        ledger.shortlist("digits", None, None)
        return ledger

    def test_asks_who_is_near_and_unused_and_may_have_become_the_best(self, ledger):
        assert ledger.unused(11.0, 10.0) == []
        assert [holding.endpoint for holding in ledger.unused(20.0, 10.0)] == [EDGE]

    def test_waits_twice_as_long_after_each_sample_that_makes_no_difference(self, ledger):
        (holding,) = ledger.unused(20.0, 10.0)
        holding.sampled_s = 20.0
        assert ledger.unused(38.0, 10.0) == []
        assert ledger.unused(39.5, 10.0) == [holding]


def test_a_wake_has_the_endpoint_asked_soon_and_again():
    cold = HeldModel("digits", "1", ModelState.COLD, load_s=0.5)
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.due(0.0, 1.0)
    ledger.probe_answered(site, report(2, models=[cold]), 0.01, 1.0)
    ledger.woken(EDGE, "digits", "1", 2.0)
    assert ledger.due(2.0, 1.0) == [site]
    assert ledger.due(3.02, 1.0) == [site]


def test_who_is_woken_says_how_long_it_takes():
    cold = HeldModel("digits", "1", ModelState.COLD)
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, models=[cold]), 0.01, 1.0)
    ledger.woken(EDGE, "digits", "1", 2.0)
    ledger.waking(EDGE, "digits", "1", Waking("digits", "1", ModelState.LOADING, 3.0), 2.1)
    assert only(ledger).state is ModelState.LOADING
    assert only(ledger).warm_at_s == pytest.approx(5.1)


def test_what_is_expected_is_tested_where_requests_are_refused_for_it():
    ledger = proven(EDGE)
    assert ledger.suspects(1.0, 1.0) == []
    ledger.doubt(EDGE, "digits", "1")
    (holding,) = ledger.suspects(1.0, 1.0)
    holding.sampled_s = 1.0
    ledger.doubt(EDGE, "digits", "1")
    assert ledger.suspects(1.5, 1.0) == [], "not so soon again"
    assert ledger.sent(EDGE, "digits", "1", 2.0) is not None
    ledger.doubt(EDGE, "digits", "1")
    assert ledger.suspects(3.0, 1.0) == [], "the request will tell"


def test_who_does_not_report_is_not_taken_to_lack_a_model():
    ledger = ledger_of(replace(EDGE, reports=False))
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    ledger.lacks(lease, 1.1)
    assert only(ledger).state is ModelState.WARM


def test_where_it_cannot_be_sampled_one_request_at_a_time_is_a_trial():
    ledger = ledger_of(replace(EDGE, reports=False))
    (site,) = ledger.sites()
    ledger.probe_ready(site, 0.01, 0.0)
    for _ in range(3):
        call(ledger, Outcome.FAILED, 2.0)
    assert only(ledger).held_until_s == 3.0
    trial = ledger.sent(EDGE, "digits", "1", 3.0)
    assert trial is not None
    assert trial.trial
    assert only(ledger).trial
    ledger.close(trial, Outcome.FAILED, 3.5)
    assert only(ledger).held_until_s == 5.5, "each failed trial doubles the pause"
    call(ledger, Outcome.ANSWERED, 6.0)
    assert only(ledger).held is None


def test_a_refused_connection_is_over_with_the_first_answer_or_two_probes():
    ledger = proven(EDGE)
    call(ledger, Outcome.REFUSED, 2.0)
    assert only(ledger).held == "refuses connections"
    call(ledger, Outcome.ANSWERED, 2.5)
    assert only(ledger).held is None
    call(ledger, Outcome.REFUSED, 3.0)
    (site,) = ledger.sites()
    for sequence in (5, 6):
        assert only(ledger).held is not None
        ledger.probe_answered(site, report(sequence), 0.01, 3.0 + sequence)
    assert only(ledger).held is None


def test_who_is_new_in_a_running_fleet_starts_slowly_and_who_was_there_before_does_not():
    ledger = proven(EDGE)
    assert only(ledger).ramp_from_s == -math.inf
    late = ledger_of(EDGE)
    (site,) = late.sites()
    late.probe_answered(site, report(1), 0.01, 60.0)
    assert only(late).ramp_from_s == 60.0
    assert only(late).rank_s == math.inf, "its rank depends on time"
    late.sweep(89.0)
    assert only(late).rank_s == math.inf
    late.sweep(90.0)
    assert only(late).rank_s < math.inf


def test_what_is_overdue_counts_before_it_has_ended():
    ledger = proven(EDGE)
    for sequence in range(2, 22):
        lease = ledger.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        ledger.answered(lease, call_report(sequence), 1.03)
        ledger.close(lease, Outcome.ANSWERED, 1.03)
    assert only(ledger).service_s == pytest.approx(0.02)
    lease = ledger.sent(EDGE, "digits", "1", 2.0)
    assert lease is not None
    ledger.sweep(2.05)
    assert only(ledger).service_s == pytest.approx(0.02), "not yet strange"
    ledger.sweep(4.0)
    assert only(ledger).service_s > 1.9
    ledger.close(lease, Outcome.LATE, 5.0)
    assert only(ledger).service_s == pytest.approx(0.02), "a lost request is no measurement"


def test_a_new_endpoint_is_expected_to_be_like_its_kind():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    for sequence in range(2, 30):
        lease = ledger.sent(EDGE, "digits", "1", 1.0)
        assert lease is not None
        ledger.answered(lease, call_report(sequence, infer_s=0.2), 1.3)
    ledger.probe_answered(site, report(99), 0.01, 2.0)
    twin = replace(EDGE, name="twin", url="http://127.0.0.1:3")
    members = [Member(EDGE, 2, (HELD,)), Member(twin, 2, (HELD,))]
    membership = Membership(members, ["eu-west"], Term())
    ledger.follow(membership, 3.0)
    (new,) = (c for c in ledger.candidates("digits", None) if c.endpoint == twin)
    assert new.service_s == pytest.approx(0.2, rel=0.01)


def test_the_load_at_which_it_refused_is_kept_for_a_while():
    ledger = proven(EDGE)
    leases = [ledger.sent(EDGE, "digits", "1", 1.0) for _ in range(6)]
    assert leases[-1] is not None
    ledger.close(leases[-1], Outcome.BUSY, 1.1, retry_after_s=0.1)
    assert only(ledger).limit == 5
    assert only(ledger).rank_s == math.inf
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(7, models=[]), 0.01, 2.0)
    ledger.probe_answered(site, report(8), 0.01, 3.0)
    ledger.sweep(11.2)
    assert only(ledger).limit > 1000


def test_a_server_that_does_not_report_is_asked_again_when_it_says():
    foreign = replace(EDGE, reports=False)
    ledger = ledger_of(foreign)
    lease = ledger.sent(foreign, "digits", "1", 1.0)
    assert lease is not None
    ledger.close(lease, Outcome.BUSY, 2.0, retry_after_s=3.0)
    assert only(ledger).full_until_s == 5.0


def test_full_for_one_service_time():
    ledger = proven(EDGE)
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    ledger.close(lease, Outcome.BUSY, 2.0)
    assert only(ledger).full_until_s == pytest.approx(2.0 + only(ledger).service_s)


@pytest.mark.parametrize("reports", [True, False])
def test_an_answer_of_an_endpoint_that_reports_ends_its_pause(reports):
    """A slot is free, and reports tell how many are; without them only its word is known."""
    endpoint = replace(EDGE, reports=reports)
    ledger = proven(endpoint)
    served, *refused = (send(ledger, endpoint) for _ in range(3))
    for lease in refused:
        ledger.close(lease, Outcome.BUSY, 1.1, retry_after_s=3.0)
    told_s = 3.1 if reports else 4.1
    assert only(ledger).full_until_s == pytest.approx(told_s)
    ledger.answered(served, call_report(2), 1.2)
    ledger.close(served, Outcome.ANSWERED, 1.2)
    assert only(ledger).full_until_s == pytest.approx(1.2 if reports else told_s)
    ledger.close(send(ledger, endpoint), Outcome.BUSY, 1.3)
    assert only(ledger).full_until_s <= max(1.3 + only(ledger).service_s, told_s), "the first again"


def test_a_wake_is_remembered_until_the_load_begins_or_it_came_to_nothing():
    cold = HeldModel("digits", "1", ModelState.COLD, load_s=0.5)
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, models=[cold]), 0.01, 1.0)
    ledger.woken(EDGE, "digits", "1", 1.0)
    assert only(ledger).woken
    ledger.sweep(10.9)
    assert only(ledger).woken
    ledger.sweep(11.0)
    assert not only(ledger).woken
    ledger.woken(EDGE, "digits", "1", 12.0)
    loading = HeldModel("digits", "1", ModelState.LOADING)
    ledger.probe_answered(site, report(3, models=[loading]), 0.01, 12.5)
    assert not only(ledger).woken
    assert only(ledger).warm_at_s == pytest.approx(13.0)


def test_what_an_endpoint_has_given_up_is_told():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    said = report(2, pressure=Pressure(degraded=("disk: nearly full",)))
    ledger.probe_answered(site, said, 0.01, 1.0)
    assert site.degraded == ("disk: nearly full",)


def test_draining_is_told():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, draining=True), 0.01, 1.0)
    assert only(ledger).out == "draining"


def test_without_a_version_the_newest_counts_of_an_endpoint_that_does_not_say():
    versions = [HeldModel("digits", v, ModelState.WARM) for v in ("9", "10", "1.5")]
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, models=versions), 0.01, 1.0)
    assert only(ledger).version == "10"
    (named,) = ledger.candidates("digits", "9")
    assert named.version == "9"
    assert ledger.elsewhere("digits", "7") == 1


def test_without_a_version_the_active_one_counts_where_the_endpoint_says_which():
    """A pulled version that is not active does not make a warm endpoint look cold."""
    pulled = (
        HeldModel("digits", "1", ModelState.WARM, active=True),
        HeldModel("digits", "2", ModelState.COLD, active=False),
    )
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(2, models=pulled), 0.01, 1.0)
    assert (only(ledger).version, only(ledger).state) == ("1", ModelState.WARM)
    (named,) = ledger.candidates("digits", "2")
    assert named.state is ModelState.COLD
    switched = (
        HeldModel("digits", "1", ModelState.WARM, active=False),
        HeldModel("digits", "2", ModelState.WARM, active=True),
    )
    ledger.probe_answered(site, report(3, models=switched), 0.01, 2.0)
    assert only(ledger).version == "2"


def test_an_agents_changed_models_are_asked_for_at_once():
    ledger = proven(EDGE)
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    assert len(ledger.due(0.0, 1.0)) == 1, "as everybody new is"
    assert ledger.due(0.5, 1.0) == []
    ledger.answered(lease, call_report(5, models_generation=2), 1.1)
    assert len(ledger.due(1.1, 1.0)) == 1


def test_who_has_left_is_told_and_gone():
    agent = Member(EDGE, slots=2, models=(HELD,), instance="i1", expires_s=15.0)
    membership = Membership([agent], ["eu-west"], Term())
    ledger = Ledger({"eu-west": 0.01}, "r1")
    assert ledger.follow(membership, 0.0) == []
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    membership.expire(15.0)
    assert ledger.follow(membership, 15.0) == [EDGE]
    assert ledger.candidates("digits", None) == []
    assert ledger.sent(EDGE, "digits", "1", 16.0) is None
    assert lease is not None
    ledger.close(lease, Outcome.ANSWERED, 16.0)  # what was under way ends without harm


def test_a_moved_endpoint_is_a_new_one():
    moved = replace(EDGE, url="http://127.0.0.1:9")
    membership = Membership([Member(EDGE, 2, (HELD,))], ["eu-west"], Term())
    ledger = Ledger({"eu-west": 0.01}, "r1")
    ledger.follow(membership, 0.0)
    (site,) = ledger.sites()
    ledger.probe_answered(site, report(1), 0.002, 1.0)
    again = Membership([Member(EDGE, 2, (HELD,)), Member(moved, 2, (HELD,))], ["eu-west"], Term())
    assert ledger.follow(again, 2.0) == [EDGE], "what is open to the old address is to end"
    assert only(ledger).endpoint == moved
    assert only(ledger).out == "not heard from yet"


def test_who_answers_as_another_gets_no_traffic():
    others: list[dict[str, Any]] = [{"name": "us"}, {"region": "us-east"}]
    for other in others:
        ledger = proven(EDGE)
        (site,) = ledger.sites()
        ledger.probe_answered(site, report(2, **other), 0.01, 1.0)
        assert only(ledger).out == "answers by another name or region"
    ledger.probe_answered(site, report(3), 0.01, 2.0)
    ledger.probe_answered(site, report(4), 0.01, 3.0)
    assert only(ledger).out is None


def test_missed_probes_are_told_even_of_an_endpoint_that_is_out_already():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    ledger.close(lease, Outcome.REFUSED, 1.0)
    assert [ledger.probe_missed(site, 2.0) for _ in range(3)] == [False, True, True]
    assert only(ledger).out == "2 probes missed", "it is worse than it was"


def test_a_full_report_that_was_overtaken_by_an_answer_still_counts():
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    lease = ledger.sent(EDGE, "digits", "1", 1.0)
    assert lease is not None
    ledger.answered(lease, call_report(3, in_flight=1), 1.1)
    ledger.probe_answered(site, report(2, draining=True, in_flight=9), 0.01, 1.2)
    assert only(ledger).out == "draining"
    assert site.occupancy.reported == 1, "of the load the newer one is believed"


def test_numbers_do_not_begin_again_when_an_endpoint_comes_back():
    agent = Member(EDGE, slots=2, models=(HELD,), instance="i1", expires_s=15.0)
    membership = Membership([agent], ["eu-west"], Term())
    ledger = Ledger({"eu-west": 0.01}, "r1")
    ledger.follow(membership, 0.0)
    first = ledger.sent(EDGE, "digits", "1", 1.0)
    again = Membership([Member(replace(EDGE, url="http://127.0.0.1:9"), 2, (HELD,))], [], Term())
    ledger.follow(again, 2.0)
    second = ledger.sent(EDGE, "digits", "1", 3.0)
    assert first is not None
    assert second is not None
    assert second.sequence > first.sequence


def test_an_endpoint_that_does_not_report_is_timed_from_outside():
    foreign = replace(EDGE, reports=False)
    ledger = ledger_of(foreign)
    (site,) = ledger.sites()
    ledger.probe_ready(site, 0.01, 0.0)
    assert only(ledger).out is None
    lease = ledger.sent(foreign, "digits", "1", 1.0)
    assert lease is not None
    ledger.answered(lease, None, 1.05)
    ledger.timed(lease, 0.05, 1.06)
    ledger.close(lease, Outcome.ANSWERED, 1.06)
    assert only(ledger).service_s == pytest.approx(0.04)


STEPS = st.lists(
    st.one_of(
        st.just(("send",)),
        st.tuples(st.just("close"), st.integers(0, 20), st.sampled_from(Outcome)),
        st.tuples(st.just("report"), st.integers(0, 9), st.integers(0, 30)),
        st.just(("miss",)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_the_counts_hold(steps):
    ledger = proven(EDGE)
    (site,) = ledger.sites()
    leases: list[Lease] = []
    reported = 0
    for number, (kind, *rest) in enumerate(steps):
        if kind == "send":
            lease = ledger.sent(EDGE, "digits", "1", float(number))
            assert lease is not None
            leases.append(lease)
        elif kind == "close" and rest[0] < len(leases):
            ledger.close(leases[rest[0]], rest[1], float(number))
        elif kind == "report":
            reported = rest[0]
            told = report(number + 2, in_flight=reported, seen={"r1": rest[1]})
            ledger.probe_answered(site, told, 0.01, float(number))
        elif kind == "miss":
            ledger.probe_missed(site, 2.0)
        own = sum(lease.open for lease in leases)
        candidate = only(ledger)
        assert 0 <= candidate.unseen <= own
        assert candidate.in_flight >= max(own, reported)
    for lease in leases:
        ledger.close(lease, Outcome.ANSWERED, 100.0)
    assert only(ledger).unseen == 0
    assert only(ledger).in_flight == reported
