"""Whom an endpoint remembers of those that have sent it requests, and for how long."""

import pytest

from isochrone.edge_agent.runtime.calls.gate import OpenGate
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.residence.pool import Pool


class Told:
    def __init__(self):
        self.now_s = 0.0
        self.load = Load("edge-1", "eu", "one", OpenGate(1), Pool([]), lambda: self.now_s)

    def note(self, value):
        self.load.note(value)
        return self.seen

    @property
    def seen(self):
        return self.load.endpoint_report(ready=True, draining=False).seen


@pytest.fixture
def told():
    return Told()


def test_the_highest_number_of_each_sender_is_kept(told):
    for value in (b"eu.1=7", b"us.2=3", b"eu.1=5"):
        told.note(value)
    assert told.seen == {"eu.1": 7, "us.2": 3}
    assert [told.load.highest(value) for value in (b"eu.1=1", b"eu.2=9", None)] == [7, 0, 0]


def test_asking_for_the_highest_number_notes_nothing(told):
    assert told.load.highest(b"eu.1=7") == 0
    assert told.seen == {}


def test_the_longest_name_of_a_router_fits(told):
    sender = "r" * 63 + ".0123abcd"
    assert told.note(f"{sender}={2**53}".encode()) == {sender: 2**53}


def test_who_is_silent_for_a_minute_is_forgotten(told):
    told.note(b"eu.1=7")
    told.now_s = 59.0
    told.note(b"us.2=3")
    assert set(told.seen) == {"eu.1", "us.2"}
    told.now_s = 61.0
    assert told.seen == {"us.2": 3}


def test_of_too_many_senders_the_newest_are_kept(told):
    told.note(b"eu.1=7")
    for number in range(64):
        told.note(b"fake-%d=1" % number)
    assert len(told.seen) == 64
    assert "eu.1" not in told.seen
    assert told.note(b"eu.1=8")["eu.1"] == 8
