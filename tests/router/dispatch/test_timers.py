"""A timing wheel against the plain list that it replaces."""

from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.dispatch.timers import Timers

INSTANTS = st.floats(0, 2)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 9), INSTANTS),
            st.tuples(st.just("clear"), st.integers(0, 9), INSTANTS),
            st.tuples(st.just("wait"), st.just(0), st.floats(0, 0.3)),
        ),
        max_size=60,
    )
)
def test_each_is_told_once_when_it_is_due_unless_it_was_cleared(script):
    timers: Timers[int] = Timers()
    plain: dict[int, float] = {}
    now_s = 0.0
    for what, thing, at_s in script:
        if what == "set" and thing not in plain:
            timers.set(thing, at_s)
            plain[thing] = at_s
        elif what == "clear":
            timers.clear(thing)
            plain.pop(thing, None)
        elif what == "wait":
            now_s += at_s
            due = {t for t, s in plain.items() if s <= now_s}
            told = timers.due(now_s)
            assert (set(told), len(told)) == (due, len(due))
            plain = {t: s for t, s in plain.items() if t not in due}
        assert (set(timers), len(timers)) == (set(plain), len(plain))


def test_what_is_cleared_leaves_nothing_behind():
    timers: Timers[int] = Timers()
    for number in range(1000):
        timers.set(number, number / 10)
        timers.clear(number)
    assert not timers._spokes
