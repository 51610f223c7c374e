"""Whether a variant is better, by a package's own rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.deploy.packages.verdict import Comparison, Side, against, told
from isochrone.edge_agent.runtime.package.manifest import KeepIf


def _found(*, size=100, seconds=1.0, right=0.9, deviation=0.0, lost=0.0, limit=None):
    """Beside 100 bytes, 1 s and 0.9 right."""
    before, after = Side("old", 100, 1.0, 0.9), Side("new", size, seconds, right)
    return Comparison(before, after, deviation, lost, limit)


@pytest.mark.parametrize(
    ("found", "rule", "says"),
    [
        pytest.param(_found(seconds=0.5), {}, [], id="faster and as large is kept"),
        pytest.param(_found(size=25), {}, ["speed_up 1.1"], id="smaller alone is not enough"),
        pytest.param(
            _found(size=25, seconds=1.05), {"speed_up": 0.9}, [], id="unless the rule says so"
        ),
        pytest.param(
            _found(size=125, seconds=2.0),
            {},
            ["2.00 times slower", "1.25 times larger"],
            id="larger and slower: both reasons",
        ),
        pytest.param(_found(seconds=0.5, right=0.89), {}, [], id="one in a hundred may be lost"),
        pytest.param(_found(seconds=0.5, right=0.88), {}, ["loses 2.00%"], id="two may not"),
        pytest.param(
            _found(seconds=0.5, right=0.895, lost=0.008),
            {},
            ["loses 1.30%"],
            id="what the source lost before counts",
        ),
        pytest.param(_found(seconds=0.5, right=0.95), {"accuracy_loss": 0}, [], id="more is well"),
        pytest.param(
            _found(seconds=0.5, deviation=float("inf")), {}, ["no numbers"], id="not a number"
        ),
        pytest.param(
            _found(seconds=0.5, deviation=0.1, limit=0.01), {}, ["deviate"], id="beyond the limit"
        ),
        pytest.param(_found(seconds=0.5, deviation=0.1), {}, [], id="no limit but the rule"),
    ],
)
def test_a_variant_is_kept_where_nothing_speaks_against_it(found, rule, says):
    reasons = against(found, KeepIf(**rule))
    assert len(reasons) == len(says)
    for reason, text in zip(reasons, says, strict=True):
        assert text in reason


@given(
    st.integers(1, 1000),
    st.floats(0.01, 100),
    st.floats(0, 1),
    st.builds(
        KeepIf,
        accuracy_loss=st.floats(0, 1),
        speed_up=st.floats(0, 10),
        compression=st.floats(0, 10),
    ),
)
def test_better_in_everything_is_never_refused_for_it(size, seconds, right, rule):
    worse = _found(size=size, seconds=seconds, right=right)
    better = _found(size=max(1, size - 1), seconds=seconds / 2, right=min(1.0, right + 0.1))
    assert len(against(better, rule)) <= len(against(worse, rule))


def test_the_table_names_both():
    lines = told(_found(size=25, seconds=0.5), "accuracy")
    assert lines[0].split()[-1] == "accuracy"
    assert [line.split()[0] for line in lines[1:3]] == ["old", "new"]
    assert lines[3].startswith("4.00 times smaller, 2.00 times faster")
