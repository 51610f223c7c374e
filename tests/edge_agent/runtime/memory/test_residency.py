"""Greedy-dual eviction under a budget: who leaves, who stays, and what a refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.memory.residency import NoRoomNow, Residency
from isochrone.router.errors import NoSpace


def _with(budget, *residents, **options):
    residency: Residency[str] = Residency(budget, **options)
    for name, size_bytes, load_s in residents:
        residency.enter(name, size_bytes, load_s)
    return residency


@pytest.mark.parametrize(
    ("residents", "used", "need", "leaves"),
    [
        pytest.param([("a", 40, 1), ("b", 40, 1)], "", 20, [], id="there is room"),
        pytest.param([("a", 40, 1), ("b", 40, 2)], "", 30, ["a"], id="the one quick to load again"),
        pytest.param([("a", 20, 1), ("b", 60, 1)], "", 40, ["b"], id="the large one of two alike"),
        pytest.param([("a", 40, 1), ("b", 40, 1)], "a", 30, ["b"], id="the one less called"),
        pytest.param([("a", 40, 1), ("b", 40, 1)], "", 100, ["a", "b"], id="as many as it takes"),
        pytest.param(
            [("a", 10, 0.1), ("b", 80, 1)], "", 80, ["b"], id="nobody who need not after all"
        ),
    ],
)
def test_who_leaves(residents, used, need, leaves):
    residency = _with(100, *residents)
    for name in used:
        residency.used(name)
    assert residency.make_room("new", need, ["a", "b"]) == leaves
    assert residency.sizes().keys() == {"a", "b"} - set(leaves)


def test_old_merit_fades():
    residency = _with(100, ("once loved", 50, 1), ("b", 50, 1))
    for _ in range(5):
        residency.used("once loved")
    left = []
    for number in range(20):
        left += residency.make_room(f"n{number}", 50, list(residency.sizes()))
        residency.enter(f"n{number}", 50, 1)
    assert "once loved" in left


def test_a_refusal_says_what_was_needed_and_who_is_in_the_way():
    residency = _with(100, ("busy", 70, 1), ("idle", 20, 1))
    with pytest.raises(NoRoomNow) as caught:
        residency.make_room("new", 40, ["idle"])
    assert caught.value.message == (
        "new takes 40 bytes of memory; models may take 100, of which 70 are in use"
        " (90 with idle models)"
    )
    assert caught.value.reasons == {"busy": "in use: 70 bytes"}
    assert caught.value.retry_after_s == 1.0
    assert residency.taken_bytes == 90, "nobody left for nothing"


def test_what_never_fits_is_not_asked_to_come_again():
    with pytest.raises(NoSpace) as caught:
        _with(100).make_room("new", 101, [])
    assert caught.value.retry_after_s is None


def test_overcommit_refuses_nothing_but_makes_what_room_it_can():
    residency = _with(100, ("busy", 70, 1), ("idle", 20, 1), overcommit=True)
    assert residency.make_room("new", 500, ["idle"]) == ["idle"]


def test_a_size_known_better_replaces_the_first():
    residency = _with(100, ("a", 40, 1))
    assert residency.make_room("a", 90, []) == []
    residency.enter("a", 90, 1)
    assert residency.taken_bytes == 90


_STEPS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.integers(1, 120),
        st.floats(0, 10),
        st.sets(st.integers(0, 9)),
        st.booleans(),
    ),
    max_size=40,
)


@given(_STEPS)
def test_the_budget_is_never_passed_and_nobody_in_use_leaves(steps):
    residency: Residency[str] = Residency(100)
    for number, size_bytes, load_s, idle, is_used in steps:
        name, idle_names = str(number), [str(one) for one in idle]
        before = residency.sizes()
        try:
            leaving = residency.make_room(name, size_bytes, idle_names)
        except (NoSpace, NoRoomNow):
            assert residency.sizes() == before
            fixed = sum(size for one, size in before.items() if one not in {name, *idle_names})
            assert fixed + size_bytes > 100
            continue
        assert set(leaving) <= set(idle_names) - {name}
        residency.enter(name, size_bytes, load_s)
        assert residency.taken_bytes <= 100
        if is_used:
            residency.used(name)
