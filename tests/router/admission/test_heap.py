"""A heap with dead entries gives the least living one, and does not keep the dead."""

from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.admission.heap import Heap

STEPS = st.lists(st.tuples(st.sampled_from(["push", "die", "pop"]), st.integers(0, 1000)))


@given(STEPS)
def test_the_top_is_the_least_that_lives_and_the_dead_are_forgotten(steps):
    living: set[tuple[int, int]] = set()
    heap = Heap(living.__contains__)
    for number, (action, value) in enumerate(steps):
        if action == "push":
            living.add((value, number))
            heap.push((value, number))
        elif action == "die" and living:
            living.remove(sorted(living)[value % len(living)])
            heap.died()
        elif action == "pop" and living:
            top = heap.top()
            heap.pop()
            assert top == min(living)
            living.remove(top)
        assert heap.top() == min(living, default=None)
        assert heap.live_count == len(living)


def test_memory_follows_the_living():
    living = {0}
    heap: Heap[tuple[int]] = Heap(lambda entry: entry[0] in living)
    heap.push((0,))
    for number in range(1, 10_000):
        living.add(number)
        heap.push((number,))
        living.remove(number)
        heap.died()
        assert len(heap._entries) <= 20
