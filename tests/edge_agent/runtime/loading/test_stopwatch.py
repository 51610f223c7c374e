"""How long a model's own work takes."""

from typing import Any

import pytest

from isochrone.edge_agent.runtime.loading.stopwatch import Stopwatch, Timed, medians_s


class _Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


class _Model:
    """Takes as long as its list says, call by call; the last stands for all that follow."""

    def __init__(self, clock, stopwatch, calls_s, order):
        self.clock, self.stopwatch, self.order = clock, stopwatch, order
        self.calls_s = list(calls_s)

    async def request(self, request):
        self.clock.now_s += 100  # on the way to the work: not counted
        self.order.append(request)
        took_s = self.calls_s.pop(0) if len(self.calls_s) > 1 else self.calls_s[0]
        self.stopwatch.submit(self._work, took_s).result()
        yield None

    def _work(self, took_s):
        self.clock.now_s += took_s


@pytest.fixture
def order() -> list[str]:
    """The names of models in the order in which they were asked."""
    return []


@pytest.fixture
def timed(order):
    clock = _Clock()

    def made(name, *calls_s):
        stopwatch = Stopwatch(clock)
        model: Any = _Model(clock, stopwatch, calls_s, order)
        return Timed(model, [name], stopwatch)

    return made


def test_only_the_work_itself_is_counted(timed):
    assert medians_s([timed("a", 2.0), timed("b", 3.0)], rounds=5, most_s=100) == [2.0, 3.0]


def test_models_take_turns_and_begin_in_turn(timed, order):
    medians_s([timed("a", 1.0), timed("b", 1.0)], rounds=3, most_s=100)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_one_slow_call_does_not_make_a_slow_model(timed):
    assert medians_s([timed("a", 50.0, 1.0)], rounds=5, most_s=100) == [1.0]


def test_it_ends_with_the_round_that_uses_the_time_up(timed, order):
    medians_s([timed("a", 1.0), timed("b", 1.0)], rounds=99, most_s=3.0)
    assert len(order) == 4


def test_nobody_at_all_takes_no_time():
    assert medians_s([], rounds=2, most_s=1.0) == []


def test_what_goes_wrong_is_told_like_that_of_a_thread():
    with pytest.raises(ZeroDivisionError):
        Stopwatch(_Clock()).submit(lambda: 1 // 0).result()
