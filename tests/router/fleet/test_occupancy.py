"""How many are expected at an endpoint, of what reports said and of what is usual there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.fleet.occupancy import Occupancy

TURN_S = 0.1
NEAR_S, FAR_S = 0.001, 0.5


def heard(reports: list[int], trip_s: float) -> Occupancy:
    """An agent that has told of so many requests of others, one report after the other."""
    occupancy = Occupancy(one_process=True)
    occupancy.turn_s = TURN_S
    for sequence, in_flight in enumerate(reports):
        occupancy.hears("i1", sequence, in_flight, 0.0)
        occupancy.count({}, trip_s)
    return occupancy


@pytest.mark.parametrize(
    ("trip_s", "least", "most"),
    [
        pytest.param(NEAR_S, 0.0, 0.0, id="near: nobody is there, as it says"),
        pytest.param(FAR_S, 3.0, 4.0, id="far: the usual ones will have come by then"),
    ],
)
def test_a_report_counts_the_less_the_further_away_it_comes_from(trip_s, least, most):
    occupancy = heard([4] * 100 + [0], trip_s)
    assert occupancy.in_flight == 0
    assert least <= occupancy.expected <= most


def test_a_queue_that_is_unusual_will_have_gone_far_away_only():
    near, far = (heard([0] * 100 + [4], trip_s) for trip_s in (NEAR_S, FAR_S))
    assert near.in_flight == far.in_flight == 4
    assert near.expected == 4.0
    assert far.expected < 1.0
    assert far.congestion_s < near.congestion_s


def test_our_own_requests_are_not_taken_for_those_of_others():
    occupancy = heard([0], FAR_S)
    occupancy.hears("i1", 1, 3, 0.0)
    occupancy.seen_sequence = 9
    own = dict.fromkeys([6, 7, 8, 9, 10])
    occupancy.count(own, FAR_S, 1)  # 6 has just been answered, 10 was not seen yet
    del own[6]
    occupancy.count(own)
    assert occupancy.expected == occupancy.in_flight == 4


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.floats(1e-4, 2))
def test_what_is_expected_lies_within_what_was_ever_told(reports, trip_s):
    occupancy = heard(reports, trip_s)
    assert 0 <= occupancy.expected <= max(reports)
    assert occupancy.congestion_s >= 0


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.sets(st.integers(1, 99)))
def test_our_own_requests_are_always_expected(reports, sequences):
    occupancy = heard(reports, FAR_S)
    own = dict.fromkeys(sorted(sequences))
    occupancy.seen_sequence = 50
    occupancy.count(own, FAR_S)
    assert occupancy.expected >= min(len(own), occupancy.in_flight) - 1e-9
