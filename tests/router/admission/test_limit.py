"""Laws of the limit: never too many leases, and each place comes back once."""

from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.admission.limit import Lease, Limit


@given(
    st.integers(1, 5), st.lists(st.tuples(st.sampled_from(["take", "give"]), st.integers(0, 20)))
)
def test_there_are_never_more_leases_than_slots(slots, steps):
    freed = []
    limit = Limit(slots, lambda: freed.append(1))
    ever: list[Lease] = []
    for action, which in steps:
        if action == "take" and (lease := limit.acquire()):
            ever.append(lease)
        elif action == "give" and ever:
            ever[which % len(ever)].release()
        assert 0 <= limit.in_flight <= slots
    assert limit.in_flight == len(ever) - len(freed)


def test_a_lease_that_is_released_twice_frees_one_place():
    limit = Limit(2)
    first, second = limit.acquire(), limit.acquire()
    assert first
    assert second
    assert limit.acquire() is None
    first.release()
    first.release()
    assert limit.in_flight == 1
