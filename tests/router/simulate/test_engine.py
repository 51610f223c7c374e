"""Virtual time: in order, equal instants as they were said, nothing before now."""

from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.simulate.engine import Engine

instants = st.lists(st.floats(0, 10) | st.sampled_from([1.0, 2.0]), max_size=50)


@given(instants)
def test_what_happens_is_in_order_of_time_and_then_of_saying(whens):
    engine = Engine()
    seen: list[object] = []
    for number, when_s in enumerate(whens):
        engine.at(when_s, lambda n: seen.append((engine.now_s, n)), number)
    engine.run()
    assert seen == sorted((when_s, number) for number, when_s in enumerate(whens))
    assert engine.events == len(whens)


def test_what_is_late_happens_now_and_time_never_goes_back():
    engine = Engine()
    seen: list[object] = []
    engine.at(5.0, lambda: engine.at(1.0, lambda: seen.append(engine.now_s)))
    engine.run()
    assert seen == [5.0]


def test_a_run_ends_at_its_instant_and_goes_on_from_there():
    engine = Engine()
    seen: list[object] = []
    for when_s in (1.0, 2.0, 3.0):
        engine.at(when_s, seen.append, when_s)
    engine.run(2.0)
    assert (seen, engine.clock()) == ([1.0, 2.0], 2.0)
    engine.after(0.5, seen.append, 2.5)
    engine.run()
    assert seen == [1.0, 2.0, 2.5, 3.0]


def test_stopping_leaves_the_rest_for_later():
    engine = Engine()
    seen: list[object] = []
    engine.at(1.0, engine.stop)
    engine.at(1.0, seen.append, "rest")
    engine.run()
    assert seen == []
    engine.run()
    assert seen == ["rest"]
