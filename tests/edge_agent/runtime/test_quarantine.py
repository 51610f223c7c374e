"""Requests that were there when a process died."""

import pytest

from edge_agent.runtime.quarantine import Quarantine
from router.errors import Quarantined


def test_two_crashes_condemn_a_request_and_no_other():
    told: list[str] = []
    quarantine = Quarantine(lambda: told.append("condemned"))
    quarantine.crashed([b"bad", b"beside"])
    quarantine.check(b"bad")
    assert not told
    quarantine.crashed([b"bad"])
    assert told == ["condemned"]
    with pytest.raises(Quarantined, match="died"):
        quarantine.check(b"bad")
    quarantine.check(b"beside")


def test_an_answer_clears_a_request():
    quarantine = Quarantine()
    quarantine.crashed([b"beside"])
    quarantine.answered(b"beside")
    quarantine.crashed([b"beside"])
    quarantine.check(b"beside")


def test_memory_is_bounded_and_the_newest_are_remembered():
    quarantine = Quarantine()
    for number in range(5000):
        quarantine.crashed([b"%d" % number] * 2)
    assert len(quarantine) == 1024
    with pytest.raises(Quarantined):
        quarantine.check(b"4999")
    quarantine.check(b"0")
