"""When requests come and what they hold: rates, traces, the sun, and common random numbers."""

import math
from collections import Counter
from itertools import pairwise
from statistics import fmean, pstdev

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import ConfigError
from isochrone.router.simulate.arrivals import factor, read_trace, requests, service_s
from isochrone.router.simulate.faults import disturbances
from isochrone.router.simulate.scenario import (
    Antagonists,
    Arrivals,
    Body,
    Diurnal,
    EndpointEntry,
    Fault,
    PlaceEntry,
    RouterEntry,
    Scenario,
    Service,
    TenantEntry,
    Work,
)
from isochrone.router.simulate.world import placed

SERVICE = Service(mean_s=0.1)


def scenario(**more):
    return Scenario(
        places={
            "West": PlaceEntry(latitude=0, longitude=-90, population=3),
            "East": PlaceEntry(latitude=0, longitude=90),
        },
        routers=(
            RouterEntry(name="r1", city="West", region="west"),
            RouterEntry(name="r2", city="East", region="east"),
        ),
        endpoints=tuple(
            EndpointEntry(name=f"e{n}", city="West", region="west", slots=5, service=SERVICE)
            for n in range(4)
        ),
        **{"seconds": 50.0, **more},
    )


def played(load=0.5, seed=1, trace=None, **more):
    return list(requests(placed(scenario(**more)), load, seed, trace))


def test_the_rate_is_the_load_times_what_the_slots_can_do():
    assert len(played()) == pytest.approx(0.5 * 200 * 50, rel=0.05)


def test_poisson_arrivals_have_gaps_as_long_as_they_vary():
    gaps = [later.at_s - sooner.at_s for sooner, later in pairwise(played())]
    assert pstdev(gaps) == pytest.approx(fmean(gaps), rel=0.05)


def test_a_seed_gives_the_same_requests_and_another_seed_gives_others():
    assert played() == played()
    assert played() != played(seed=2)


def test_the_nth_request_holds_the_same_at_every_load():
    def contents(one):
        return one.client, one.tenant, one.work, one.chance, one.body_bytes

    light, heavy = played(load=0.2), played(load=0.9)
    assert len(heavy) > 4 * len(light)
    assert [contents(one) for one in heavy[: len(light)]] == [contents(one) for one in light]


def test_clients_ask_by_their_number_and_at_their_own_router():
    asked = Counter((one.client, one.router) for one in played())
    assert set(asked) == {(0, 0), (1, 1)}
    assert asked[0, 0] / asked.total() == pytest.approx(0.75, abs=0.02)


def test_tenants_ask_by_their_share_and_from_their_regions():
    tenants = (TenantEntry(name="all", share=3), TenantEntry(name="far", clients=("east",)))
    asked = Counter((one.tenant, one.router) for one in played(tenants=tenants))
    assert asked[1, 0] == 0
    assert asked[1, 1] / asked.total() == pytest.approx(0.25, abs=0.02)


def test_a_tenant_without_clients_is_refused():
    places = {name: PlaceEntry(latitude=0, longitude=0, population=0) for name in ("West", "East")}
    places["West"] = PlaceEntry(latitude=0, longitude=0)
    far = (TenantEntry(name="far", clients=("east",)),)
    world = placed(msgspec.structs.replace(scenario(tenants=far), places=places))
    with pytest.raises(ConfigError, match="far: no client asks from there"):
        next(requests(world, 0.5, 1))


def test_demand_follows_the_sun_and_stays_as_much_as_it_was():
    sun = Diurnal(day_s=50, swing=1.0, peak_hour=12)
    asked = played(arrivals=Arrivals(diurnal=sun))
    west_noon = [one for one in asked if 0.65 < one.at_s / 50 < 0.85]  # 18:00 at 0 degrees
    east_noon = [one for one in asked if 0.15 < one.at_s / 50 < 0.35]
    assert len(asked) == pytest.approx(0.5 * 200 * 50, rel=0.05)
    assert fmean(one.client == 0 for one in west_noon) > 0.97
    assert fmean(one.client == 1 for one in east_noon) > 0.75


def test_a_trace_is_scaled_looped_and_begun_where_the_seed_says(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,Tokens\n"
        "2023-11-16 18:17:03.9799600,1\n2023-11-16 18:17:04.9799600,1\n"
        "2023-11-16 18:17:06.9799600,1\n"
    )
    trace = read_trace(path)
    assert trace == pytest.approx((0, 1, 3))
    follow = Arrivals(process="trace")
    asked = played(trace=trace, arrivals=follow)
    assert len(asked) == pytest.approx(0.5 * 200 * 50, abs=3)
    scale = 3 / 3 / 100  # three requests in three seconds, at 100 per second
    gaps = {round((later.at_s - sooner.at_s) / scale, 6) for sooner, later in pairwise(asked)}
    assert gaps == {0, 1, 2}
    starts = {played(seed=seed, trace=trace, arrivals=follow)[0].at_s for seed in range(5)}
    assert len(starts) == 5


def test_a_wanted_trace_must_be_given():
    with pytest.raises(ConfigError, match="--trace"):
        played(arrivals=Arrivals(process="trace"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("WHEN\n1\n", "lacks the column TIMESTAMP"),
        ("TIMESTAMP\n1\nsoon\n", "trace.csv:3: Invalid isoformat"),
        ("TIMESTAMP\n1\nnan\n", "trace.csv:3: nan is no instant"),
        ("TIMESTAMP\n1\n1\n", "two instants at least"),
        ("TIMESTAMP\n", "two instants at least"),
    ],
)
def test_a_bad_trace_is_told_with_its_line(tmp_path, content, told):
    (tmp_path / "trace.csv").write_text(content)
    with pytest.raises(ConfigError, match=told):
        read_trace(tmp_path / "trace.csv")


@pytest.mark.parametrize(
    ("kind", "cv", "deviation"),
    [("deterministic", 0.5, 0.0), ("exponential", 0.5, 1.0), ("lognormal", 0.7, 0.7)],
)
def test_a_distribution_has_mean_one_and_its_own_deviation(kind, cv, deviation):
    drawn = [factor(kind, cv, (n + 0.5) / 20_000) for n in range(20_000)]
    assert fmean(drawn) == pytest.approx(1, rel=0.01)
    assert pstdev(drawn) == pytest.approx(deviation, rel=0.03, abs=1e-12)


@given(
    st.sampled_from(["deterministic", "exponential", "lognormal"]),
    st.floats(0, 3),
    st.floats(1e-12, 1 - 1e-12),
)
def test_a_quantile_is_a_positive_number(kind, cv, chance):
    assert 0 < factor(kind, cv, chance) < math.inf


def test_a_request_is_as_heavy_everywhere():
    one = played(work=Work(distribution="lognormal"), body=Body(distribution="exponential"))[7]
    twice = msgspec.structs.replace(SERVICE, mean_s=0.2)
    assert service_s(twice, one) == pytest.approx(2 * service_s(SERVICE, one))


def test_antagonists_slow_their_share_of_the_time_and_are_the_seeds():
    noisy = scenario(
        seconds=20_000.0,
        antagonists=Antagonists(share=0.5, factor=3, slow_s=2, quiet_s=6),
    )
    found = disturbances(noisy, 1)
    assert found == disturbances(noisy, 1)
    assert len({one.endpoint for one in found}) == 2
    slow_s = sum(min(one.until_s, 20_000) - one.from_s for one in found)
    assert slow_s / (2 * 20_000) == pytest.approx(0.25, rel=0.1)


def test_a_lost_region_is_every_endpoint_there():
    loss = Fault(kind="region_loss", where=("west",), at_s=3, for_s=4)
    cold = Fault(kind="scale_to_zero", where=("e1",), at_s=9)
    found = disturbances(scenario(faults=(cold, loss)), 1)
    assert [(one.what, one.endpoint, one.from_s) for one in found] == [
        *(("kill", n, 3) for n in range(4)),
        ("unload", 1, 9),
    ]
    assert {one.until_s for one in found[:4]} == {7}
