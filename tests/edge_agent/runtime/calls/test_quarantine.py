"""Requests that were there when a process died."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.calls.quarantine import CRASHES, EXPIRY_S, Quarantine
from isochrone.router.errors import Quarantined


class Hand:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def is_refused(quarantine, digest):
    try:
        quarantine.check(digest)
    except Quarantined:
        return True
    return False


def test_two_crashes_condemn_a_request_and_no_other():
    told: list[str] = []
    quarantine = Quarantine(Hand(), lambda: told.append("condemned"))
    quarantine.crashed(b"bad", 1)
    quarantine.crashed(b"beside", 1)
    quarantine.check(b"bad")
    assert not told
    quarantine.crashed(b"bad", 2)
    assert told == ["condemned"]
    with pytest.raises(Quarantined, match="died"):
        quarantine.check(b"bad")
    quarantine.check(b"beside")


def test_equal_requests_at_one_crash_count_once():
    quarantine = Quarantine(Hand())
    quarantine.crashed(b"twin", 1)
    quarantine.crashed(b"twin", 1)
    quarantine.check(b"twin")


def test_an_answer_clears_a_request():
    quarantine = Quarantine(Hand())
    quarantine.crashed(b"beside", 1)
    quarantine.answered(b"beside")
    quarantine.crashed(b"beside", 2)
    quarantine.check(b"beside")


def test_it_may_be_asked_again_after_a_while():
    clock = Hand()
    quarantine = Quarantine(clock)
    quarantine.crashed(b"bad", 1)
    quarantine.crashed(b"bad", 2)
    clock.now_s += EXPIRY_S - 1
    with pytest.raises(Quarantined, match="for 1 s"):
        quarantine.check(b"bad")
    clock.now_s += 1
    quarantine.check(b"bad")
    quarantine.crashed(b"bad", 3)
    quarantine.check(b"bad")


def test_memory_is_bounded_and_the_newest_are_remembered():
    quarantine = Quarantine(Hand())
    for number in range(5000):
        quarantine.crashed(b"%d" % number, 1)
        quarantine.crashed(b"%d" % number, 2)
    assert len(quarantine) == 1024
    with pytest.raises(Quarantined):
        quarantine.check(b"4999")
    quarantine.check(b"0")


DIGESTS = st.sampled_from([b"one", b"two", b"three"])
DEEDS = st.one_of(
    st.tuples(st.just("crash"), st.lists(DIGESTS, max_size=5)),
    st.tuples(st.just("answer"), DIGESTS),
    st.tuples(st.just("wait"), st.floats(0, EXPIRY_S)),
)


@given(st.lists(DEEDS, max_size=40))
def test_a_request_is_refused_after_two_crashes_since_its_last_answer(deeds):
    """Whatever the order: each crash counts once, however many equal requests were inside."""
    clock = Hand()
    quarantine = Quarantine(clock)
    seen_s: defaultdict[bytes, list[float]] = defaultdict(list)
    for number, (deed, what) in enumerate(deeds):
        if deed == "wait":
            clock.now_s += what
        elif deed == "answer":
            quarantine.answered(what)
            seen_s[what].clear()
        else:
            for digest in what:
                quarantine.crashed(digest, number)
            for digest in set(what):
                if seen_s[digest] and clock.now_s >= seen_s[digest][-1] + EXPIRY_S:
                    seen_s[digest].clear()
                seen_s[digest].append(clock.now_s)
        for digest, crashes_s in seen_s.items():
            lately = bool(crashes_s) and clock.now_s < crashes_s[-1] + EXPIRY_S
            assert is_refused(quarantine, digest) == (lately and len(crashes_s) >= CRASHES)
