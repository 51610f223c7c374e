"""The moves of a model's life, and that no other exists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.runtime.package.state import IllegalMove, Step, after
from isochrone.router.wire.report import ModelState as State

LEGAL = {
    (State.ABSENT, Step.STORE): State.COLD,
    (State.COLD, Step.LOAD): State.LOADING,
    (State.LOADING, Step.LOADED): State.WARMING,
    (State.LOADING, Step.FAILED): State.COLD,
    (State.WARMING, Step.ANSWERED): State.WARM,
    (State.WARMING, Step.FAILED): State.COLD,
    (State.WARM, Step.DRAIN): State.DRAINING,
    (State.WARM, Step.CRASHED): State.COLD,
    (State.DRAINING, Step.RECALL): State.WARM,
    (State.DRAINING, Step.DRAINED): State.COLD,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_every_pair_of_state_and_step(state, step):
    if (state, step) in LEGAL:
        assert after(state, step) is LEGAL[state, step]
    else:
        with pytest.raises(IllegalMove, match=f"{step} cannot happen to a model that is {state}"):
            after(state, step)


@given(st.lists(st.sampled_from(Step), max_size=60))
def test_a_warm_model_has_just_answered_or_was_recalled(steps):
    state, last = State.ABSENT, None
    for step in steps:
        try:
            state, last = after(state, step), step
        except IllegalMove:
            continue
        assert (state is State.WARM) == (last in (Step.ANSWERED, Step.RECALL))
