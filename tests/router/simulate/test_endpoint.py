"""A simulated endpoint: its slots and line, its model, its reports, and each thing that goes wrong.

The way is 20 ms there and back, and service takes 100 ms, so that an answer is there after 120 ms.
"""

import pytest

from isochrone.router.simulate.visit import Loss
from isochrone.router.wire.report import ModelState
from tests.router.simulate.stages import Bench


def test_an_answer_takes_the_way_and_the_service():
    bench = Bench()
    bench.send()
    assert bench.run() == [(0.12, 200)]


def test_slots_run_at_once_the_line_waits_and_who_finds_it_full_is_refused():
    bench = Bench(slots=2, queue=1)
    visits = [bench.send() for _ in range(4)]
    assert bench.run() == [(0.02, 503), (0.12, 200), (0.12, 200), (0.22, 200)]
    assert visits[3].retry_after_s is not None
    assert visits[2].wait_s == pytest.approx(0.1)


def test_the_most_urgent_in_line_goes_first():
    bench = Bench(slots=1)
    first, second, urgent = (bench.send(priority=priority) for priority in (5, 5, 1))
    bench.run()
    waits_s = [round(visit.wait_s, 6) for visit in (first, urgent, second)]
    assert waits_s == [0.0, 0.1, 0.2]


def test_what_expires_in_line_never_starts():
    bench = Bench(slots=1)
    bench.send()
    late = bench.send(deadline_s=0.05)
    bench.run()
    assert late.status == 504
    assert bench.endpoint.busy_s == pytest.approx(0.1)


def test_who_is_cancelled_in_line_takes_no_slot_and_what_runs_runs_on():
    bench = Bench(slots=1)
    running, waiting = bench.send(), bench.send()
    bench.engine.at(0.05, bench.way.cancel, running)
    bench.engine.at(0.05, bench.way.cancel, waiting)
    assert bench.run() == []
    assert bench.endpoint.busy_s == pytest.approx(0.1)
    assert bench.endpoint.in_flight == 0


def test_a_report_tells_of_its_load_without_the_call_that_it_comes_with():
    bench = Bench(slots=1)
    first, second = bench.send(), bench.send()
    bench.probe()
    bench.run()
    assert (first.report.in_flight, second.report.in_flight) == (1, 0)
    assert (second.report.wait_s, second.report.infer_s) == (pytest.approx(0.1), pytest.approx(0.1))
    assert second.report.sequence > first.report.sequence
    (told,) = bench.probes
    assert (told.in_flight, told.queued, told.seen) == (2, 1, {"r1": 2})


class TestItsModel:
    def test_one_load_however_many_ask(self):
        bench = Bench(starts="cold", load_s=1.0, slots=2)
        visits = [bench.send() for _ in range(2)]
        assert bench.run() == [(1.12, 200), (1.12, 200)]
        assert bench.endpoint.warmth.loads == 1
        assert visits[0].cold_s == pytest.approx(1.0)

    def test_a_wake_loads_it_and_who_comes_later_waits_less(self):
        bench = Bench(starts="cold", load_s=1.0)
        bench.way.ask(bench.endpoint.wake, lambda _: None)
        bench.engine.at(0.5, bench.send)
        assert bench.run() == [(1.12, 200)]

    def test_it_falls_cold_when_nothing_was_there_for_its_keep_alive(self):
        bench = Bench(load_s=1.0, keep_alive_s=5.0)
        bench.engine.at(4.0, bench.send)
        states = []
        for until_s in (9.1, 9.2):  # it was done at 4.11
            bench.run(until_s)
            states.append(bench.endpoint.warmth.state)
        assert states == [ModelState.WARM, ModelState.COLD]

    def test_it_costs_while_it_loads_and_is_warm(self):
        bench = Bench(starts="cold", load_s=1.0, keep_alive_s=5.0, slots=2, price=3.0)
        bench.send()
        bench.run()
        assert bench.endpoint.cost == pytest.approx(3.0 * 2 * (1.0 + 0.1 + 5.0))

    def test_a_sample_runs_where_it_is_warm_and_loads_nothing(self):
        warm, cold = Bench(), Bench(starts="cold", load_s=1.0)
        for bench in (warm, cold):
            bench.sample()
        assert warm.run() == [(0.12, 200)]
        assert cold.run() == [(0.02, 503)]
        assert cold.endpoint.warmth.state is ModelState.COLD


class TestWhatGoesWrong:
    def test_a_killed_one_loses_what_is_there_and_refuses_what_comes(self):
        bench = Bench(slots=1)
        for _ in range(2):
            bench.send()
        bench.engine.at(0.05, bench.endpoint.kill)
        bench.engine.at(0.1, bench.send)
        bench.engine.at(0.1, bench.probe)
        assert bench.run() == [(0.06, Loss.RESET), (0.06, Loss.RESET), (0.12, Loss.REFUSED)]
        assert bench.probes == [None]
        assert bench.endpoint.in_flight == 0

    def test_a_revived_one_is_another_process_and_loads_its_model_again(self):
        bench = Bench(load_s=1.0)
        bench.send()
        bench.run(0.5)
        before = bench.endpoint.telling.full()
        bench.endpoint.kill()
        bench.engine.at(2.0, bench.endpoint.revive)
        bench.engine.at(2.5, bench.send)
        bench.run()
        after = bench.endpoint.telling.full()
        assert bench.ends[-1] == (3.11, 200)  # warm at 3.0
        assert after.instance != before.instance

    def test_a_frozen_one_answers_nothing_until_it_thaws_and_then_all(self):
        bench = Bench(slots=1)
        bench.send()
        bench.engine.at(0.05, bench.endpoint.freeze, 5.05)
        bench.engine.at(5.05, bench.endpoint.thaw)
        bench.engine.at(1.0, bench.send)
        bench.engine.at(1.0, bench.probe)
        bench.run(5.0)
        assert (bench.ends, bench.probes) == ([], [])
        assert bench.run() == [(5.12, 200), (5.22, 200)]
        assert bench.probes[0] is not None

    def test_one_frozen_for_good_answers_never_and_kills_lose_what_was_held(self):
        bench = Bench()
        bench.endpoint.freeze(float("inf"))
        bench.send()
        assert bench.run(100.0) == []
        bench.endpoint.kill()
        assert bench.run() == [(100.01, Loss.RESET)]

    def test_slowdowns_multiply_and_end_one_by_one(self):
        bench = Bench(slots=9)
        for at_s, act, factor in [
            (0.0, bench.endpoint.slow, 2.0),
            (1.0, bench.endpoint.slow, 3.0),
            (2.0, bench.endpoint.quicken, 2.0),
            (3.0, bench.endpoint.quicken, 3.0),
        ]:
            bench.engine.at(at_s, act, factor)
            bench.engine.at(at_s + 0.1, bench.send)
        assert bench.run() == [(0.32, 200), (1.72, 200), (2.42, 200), (3.22, 200)]

    def test_one_that_fails_fast_looks_well_when_it_is_probed(self):
        bench = Bench()
        bench.endpoint.break_down()
        bench.send()
        bench.sample()
        bench.probe()
        assert bench.run() == [(0.021, 500), (0.021, 500)]
        assert bench.probes[0].in_flight == 0
        bench.endpoint.recover()
        bench.send()
        assert bench.run()[-1][1] == 200
