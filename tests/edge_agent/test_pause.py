"""Waits before another try: longer each time, bounded, and no two agents alike."""

from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.pause import Pause

FIRST_S, LONGEST_S = 0.5, 60.0


def after(attempt: int, seed: int) -> float:
    state: Any = SimpleNamespace(attempt_number=attempt)
    return Pause(Random(seed), FIRST_S, LONGEST_S)(state)


@given(st.integers(1, 10**6), st.integers())
def test_a_pause_lies_between_half_the_first_and_the_longest(attempt, seed):
    most_s = min(LONGEST_S, FIRST_S * 2.0 ** min(attempt, 100))
    assert FIRST_S / 2 <= after(attempt, seed) <= most_s


def test_pauses_grow_and_differ():
    early, late = ({after(attempt, seed) for seed in range(100)} for attempt in (1, 10))
    assert max(early) <= 2 * FIRST_S < LONGEST_S / 2 < max(late)
    assert len(early) == len(late) == 100
