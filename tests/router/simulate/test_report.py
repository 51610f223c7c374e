"""Figures of runs: what counts, quantiles, intervals over seeds, and pairing with a baseline."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import ConfigError
from isochrone.router.simulate.report import picture, run_of, summaries
from isochrone.router.simulate.statistics import interval, quantile, ratio_interval, student_t_975
from isochrone.router.simulate.tables import prediction_table, slice_table, table
from isochrone.router.simulate.tally import Ending, Expected, Tally


def ending(latency_s=0.1, *, served=True, region="eu", requirement="any", **more):
    return Ending(
        client_region=region,
        requirement=requirement,
        served=served,
        latency_s=latency_s,
        endpoint="e" if served else None,
        **more,
    )


def tallied(*endings):
    tally = Tally(objective_s=0.4, deadline_s=10.0)
    for one in endings:
        tally.add(one)
    return tally


def run(*endings, algorithm="ours", load=0.6, seed=1, cost=5.0):
    return run_of(algorithm, load, seed, tallied(*endings), cost=cost)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_that_so_many_do_not_exceed(values, share):
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert found in ordered
    assert sum(one <= found for one in ordered) >= share * len(ordered) - 1e-9


def test_a_quantile_by_nearest_rank():
    assert quantile(list(range(1, 101)), 0.99) == 99
    assert math.isnan(quantile([], 0.5))


def test_an_interval_is_students():
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3
    assert found.hi - 3 == pytest.approx(2.776 * math.sqrt(2.5) / math.sqrt(5))
    assert interval([7.0]).lo == interval([7.0]).hi == 7


@pytest.mark.parametrize(("freedom", "t"), [(4, 2.776), (40, 2.021), (120, 1.980), (10**6, 1.960)])
def test_students_t_is_that_of_the_tables(freedom, t):
    assert student_t_975(freedom) == pytest.approx(t, abs=6e-4)


def test_pairing_takes_out_what_the_seeds_share():
    found = ratio_interval([(0.8 * x, x) for x in (100.0, 500.0, 900.0)])
    assert found is not None
    assert (found.mean, found.lo, found.hi) == pytest.approx((0.8, 0.8, 0.8))
    assert ratio_interval([(1.0, 0.0)]) is None


def test_what_was_not_served_counts_as_slow_as_its_deadline():
    found = run(*[ending(0.1)] * 98, *[ending(0.001, served=False)] * 2)
    assert (found.p50_ms, found.p99_ms) == pytest.approx((100, 10_000))
    assert found.failed_share == 0.02
    assert found.within_objective_share == 0.98


def test_the_objective_is_met_at_its_very_second():
    assert run(ending(0.4), ending(0.4000001)).within_objective_share == 0.5


def test_a_request_outside_its_law_is_counted_though_it_was_served():
    assert run(ending(), ending(lawful=False)).outside_requirement == 1


def test_figures_are_by_client_region_and_requirement():
    found = run(*[ending(0.1)] * 3, ending(0.9, region="au", requirement="eu"))
    assert [(one.client_region, one.requirement, one.requests) for one in found.by] == [
        ("au", "eu", 1),
        ("eu", "any", 3),
    ]
    assert found.by[0].p99_ms == pytest.approx(900)
    assert found.served_share == {"e": 1.0}


def test_margins_are_by_requirement_all_that_is_pinned_and_by_region():
    found = run(
        ending(0.1),
        ending(0.2, region="au"),
        ending(0.3, region="au", requirement="eu"),
        ending(0.4, requirement="us"),
    )
    told = {(one.client_region, one.requirement): one.requests for one in found.margins}
    assert told == {
        ("all", "any"): 2,
        ("all", "eu"): 1,
        ("all", "us"): 1,
        ("all", "pinned"): 2,
        ("au", "all"): 2,
        ("eu", "all"): 2,
    }
    assert [one.p99_ms for one in found.margins if one.requirement == "pinned"] == [400]


def test_predictions_are_judged_by_term_and_by_load():
    def expected(busy, service_s):
        return Expected(
            predicted_s={"net": 0.1, "service": 0.3},
            observed_s={"net": 0.1, "service": service_s},
            low_s=0.2,
            high_s=0.5,
            busy=busy,
        )

    found = run(
        ending(expected=expected(0.0, 0.1)),
        ending(expected=expected(0.2, 0.3)),
        ending(expected=expected(3.0, 0.9)),
        ending(),
    )
    every, idle, full = found.predictions
    assert (every.busy, every.requests) == ("all", 3)
    assert every.bias_ms["service"] == pytest.approx((300 * 3 - 1300) / 3)
    assert (idle.busy, idle.requests, idle.coverage90) == ("<0.5", 2, 1.0)
    assert idle.bias_ms == pytest.approx({"net": 0, "service": 100})
    assert idle.bias_share == pytest.approx((0.8 - 0.6) / 0.6)
    assert (full.busy, full.coverage90) == (">=2", 0.0)
    assert full.bias_ms["service"] == pytest.approx(-600)
    assert found.coverage90 == pytest.approx(2 / 3)


def test_the_predictions_of_all_seeds_stand_in_one_row():
    def predicted(service_s):
        terms = {"service": service_s}
        return Expected(predicted_s={"service": 0.3}, observed_s=terms, low_s=0, high_s=1, busy=0)

    alone = run(ending(expected=predicted(0.1)), seed=1)
    twice = run(*[ending(expected=predicted(0.25))] * 2, seed=2)
    rows = prediction_table([alone, twice])
    assert rows[1][:4] == ["0.6", "ours", "all", "3"]
    assert rows[1][4:] == ["100.0", "+50.0", "200.0 +100.0"]


def test_without_predictions_there_is_no_coverage():
    assert run(ending()).coverage90 is None


def test_regret_is_of_the_decisions_that_were_looked_at():
    found = run(ending(regret_s=0.0), ending(regret_s=0.2), ending()).regret
    assert found is not None
    assert (found.mean_ms, found.p99_ms) == pytest.approx((100, 200))


def test_a_run_without_requests_is_refused():
    with pytest.raises(ConfigError, match=r"no request came after the warm-up at load 0\.6"):
        run()


def runs():
    return [
        run(ending(base + seed / 100), algorithm=name, load=load, seed=seed)
        for load in (0.6, 0.8)
        for seed in (1, 2, 3)
        for name, base in (("ours", 0.1), ("c3", 0.2))
    ]


def test_a_summary_is_over_the_seeds_and_paired_with_the_baseline():
    found = summaries(runs(), "c3")
    assert [(one.algorithm, one.load) for one in found] == [
        ("ours", 0.6),
        ("ours", 0.8),
        ("c3", 0.6),
        ("c3", 0.8),
    ]
    ours, c3 = found[0], found[2]
    assert ours.p99_ms.mean == pytest.approx(120)
    assert c3.against is None
    assert ours.against is not None
    ratio = ours.against.p99_ratio
    assert ratio is not None
    expected = (110 / 210 * 120 / 220 * 130 / 230) ** (1 / 3)
    assert ratio.mean == pytest.approx(expected)
    assert ratio.lo < ratio.mean < ratio.hi < 1
    assert ours.by[0].p99_ratio == ours.margins[0].p99_ratio == ratio
    assert c3.by[0].p99_ratio is None


def test_tables_have_a_row_for_everything_and_the_picture_a_line():
    found = summaries(runs(), "c3")
    rows = table(found)
    assert len(rows) == 1 + 4
    assert len({len(row) for row in rows}) == 1
    assert rows[0][-2] == "p99 / c3"
    assert len(slice_table(found)) == 1 + 4 * 2  # one requirement, one region
    assert {len(row) for row in slice_table(found)} == {9}
    assert "<title>c3</title>" in picture("t", found, 0.4, "ours")


def test_a_run_goes_through_json_unchanged():
    one = run(ending(regret_s=0.1))
    assert msgspec.json.decode(msgspec.json.encode(one), type=type(one)) == one
