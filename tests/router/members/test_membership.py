"""Joining, renewing and leaving."""

import pytest

from isochrone.router.errors import BadRequest, Forbidden
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import KNOWN_FOR_S, Member, Membership
from isochrone.router.wire.report import Enrolment, HeldModel, Lease, ModelState

URL = "http://127.0.0.1:9001"
HELD = HeldModel("digits", "1", ModelState.WARM)


def enrolment(**changes) -> Enrolment:
    fields = {
        "wire_version": 1,
        "name": "shop-1",
        "instance": "i1",
        "boot_id": "b1",
        "sequence": 1,
        "url": URL,
        "region": "eu-west",
        "slots": 2,
        "models": (HELD,),
    }
    return Enrolment(**{**fields, **changes})


@pytest.fixture
def membership() -> Membership:
    fixed = Member(Endpoint("cloud", "http://127.0.0.1:8000", "us-east"), 4, ())
    return Membership([fixed], ["eu-west", "us-east"], Lease(lease_s=15, renew_s=5))


def test_joining_renewing_and_running_out(membership):
    assert membership.enrol(enrolment(), URL, 0.0) == Lease(15, 5)
    seen = membership.generation
    membership.enrol(enrolment(sequence=2), URL, 10.0)
    assert [c.name for c in membership.since(seen)] == ["shop-1"]
    assert membership.expire(24.9) == []
    assert membership.expire(25.0) == ["shop-1"]
    assert membership.since(seen)[-1].member is None


CHANGES = {
    "a model turned cold": {"models": (HeldModel("digits", "1", ModelState.COLD),)},
    "a model came": {"models": (HELD, HeldModel("words", "1", ModelState.LOADING))},
    "slots were lost": {"slots": 1},
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_a_renewal_that_tells_of_a_change_is_in_the_feed(membership, changed):
    membership.enrol(enrolment(), URL, 0.0)
    seen = membership.generation
    membership.enrol(enrolment(sequence=2, **changed), URL, 0.1)
    (change,) = membership.since(seen)
    assert change.generation > seen
    assert change.member is not None
    asked = enrolment(**changed)
    assert (change.member.models, change.member.slots) == (asked.models, asked.slots)


def test_a_configured_endpoint_never_runs_out(membership):
    assert membership.expire(1e9) == []
    assert not membership.leave("cloud")


def test_leaving(membership):
    membership.enrol(enrolment(), URL, 0.0)
    assert membership.leave("shop-1")
    assert not membership.leave("shop-1")
    assert membership.get("shop-1") is None


def test_models_stay_known_for_a_day(membership):
    membership.enrol(enrolment(), URL, 0.0)
    membership.leave("shop-1")
    membership.expire(KNOWN_FOR_S - 1)
    assert membership.knows("digits")
    membership.expire(KNOWN_FOR_S)
    assert not membership.knows("digits")


REFUSED = {
    "unknown region": (enrolment(region="atlantis"), URL, BadRequest, "known: eu-west, us-east"),
    "unknown tier": (enrolment(tier="fog"), URL, BadRequest, "edge or cloud"),
    "a configured name": (enrolment(name="cloud"), URL, Forbidden, "configured"),
    "replayed": (enrolment(sequence=1), URL, BadRequest, "not newer"),
    "moving to another region": (
        enrolment(sequence=2, region="us-east"),
        URL,
        Forbidden,
        "let its lease run out",
    ),
    "another agent's name": (
        enrolment(instance="i2", sequence=1),
        "http://127.0.0.1:9002",
        Forbidden,
        "choose a new name",
    ),
}


@pytest.mark.parametrize(("asked", "url", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(membership, asked, url, error, text):
    membership.enrol(enrolment(), URL, 0.0)
    before = membership.generation
    with pytest.raises(error, match=text):
        membership.enrol(asked, url, 1.0)
    assert membership.generation == before


def test_a_restarted_agent_takes_its_own_name_again(membership):
    membership.enrol(enrolment(sequence=900), URL, 0.0)
    membership.enrol(enrolment(instance="i2", sequence=1), URL, 1.0)
    member = membership.get("shop-1")
    assert member is not None
    assert member.instance == "i2"


def test_a_name_is_free_once_its_lease_has_run_out(membership):
    membership.enrol(enrolment(), URL, 0.0)
    membership.enrol(enrolment(instance="i2"), "http://127.0.0.1:9002", 15.0)
    member = membership.get("shop-1")
    assert member is not None
    assert member.endpoint.url == "http://127.0.0.1:9002"
