"""What runs take in memory, by the size of their inputs: learned, bounded, extrapolated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.memory.footprint import LIGHT_BYTES, STEP, Footprint

MIB = 1 << 20


def learned(points, **more):
    footprint = Footprint(**more)
    for input_bytes, taken_bytes in points:
        footprint.learn(input_bytes, taken_bytes)
    return footprint


@pytest.mark.parametrize(
    ("points", "asked", "expected"),
    [
        pytest.param([(MIB, 20 * MIB)], MIB, 20 * MIB, id="as it was measured"),
        pytest.param([(MIB, 20 * MIB)], MIB - 1, 20 * MIB, id="less takes no more"),
        pytest.param([(MIB, 20 * MIB)], 2 * MIB, 80 * MIB, id="quadratic, while nothing is known"),
        pytest.param(
            [(MIB, 20 * MIB), (2 * MIB, 40 * MIB)], 4 * MIB, 80 * MIB, id="linear, as pictures are"
        ),
        pytest.param(
            [(MIB, 20 * MIB), (2 * MIB, 80 * MIB)], 4 * MIB, 320 * MIB, id="quadratic, as texts are"
        ),
        pytest.param([(100, 0)], 100 << 10, LIGHT_BYTES, id="small inputs are presumed light"),
    ],
)
def test_what_is_expected(points, asked, expected):
    assert learned(points).expected_bytes(asked) == expected


def test_a_measurement_that_held_something_else_fades():
    footprint = learned([(MIB, 400 * MIB), (MIB, 20 * MIB)])
    assert footprint.expected_bytes(MIB) == 200 * MIB
    for _ in range(4):
        footprint.learn(MIB, 20 * MIB)
    assert footprint.expected_bytes(MIB) == 20 * MIB
    footprint.learn(MIB, 25 * MIB)
    assert footprint.expected_bytes(MIB) == 25 * MIB, "more counts at once"


def test_runs_are_light_until_one_was_not():
    footprint = Footprint()
    assert footprint.light_bytes == 512 << 10
    footprint.learn(512 << 10, MIB)
    assert footprint.light_bytes == STEP * (512 << 10)
    footprint.learn(MIB, 2 * LIGHT_BYTES)
    assert footprint.light_bytes == MIB // 2
    assert Footprint(ids=True).light_bytes < 512 << 10


_POINTS = st.lists(st.tuples(st.integers(1, 1 << 30), st.integers(0, 1 << 36)), max_size=100)


@given(_POINTS, st.integers(1, 1 << 30))
def test_the_way_to_any_size_goes_in_steps(points, asked):
    footprint = learned(points)
    steps = 0
    while not footprint.knows(asked):
        step = footprint.step_bytes(asked)
        assert step <= asked
        footprint.learn(step, step)
        steps += 1
    assert steps <= 32
    assert footprint.expected_bytes(asked) >= 0


@given(_POINTS)
def test_what_is_light_is_below_all_that_was_not(points):
    footprint = learned(points)
    heavy = [one for one in footprint._inputs if footprint._taken[one] > LIGHT_BYTES]
    assert footprint.light_bytes < min(heavy, default=sum(map(max, points)) + (1 << 30) + 1)
