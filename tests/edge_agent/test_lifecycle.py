"""The life of an agent as transcripts."""

import pytest

from isochrone.edge_agent.lifecycle import Drain, Idle, Lifecycle, Listening, Phase, Settled


@pytest.mark.parametrize(
    ("keep_warm", "events", "phases"),
    [
        pytest.param(
            ["a", "b"],
            [Listening(), Settled("a"), Settled("b"), Drain(), Idle()],
            [Phase.WARMING, Phase.WARMING, Phase.READY, Phase.DRAINING, Phase.STOPPED],
            id="a_whole_life",
        ),
        pytest.param([], [Listening()], [Phase.READY], id="nothing_to_warm"),
        pytest.param(
            ["a"], [Settled("a"), Listening()], [Phase.STARTING, Phase.READY], id="warm_early"
        ),
        pytest.param(
            ["a"],
            [Listening(), Drain(), Settled("a")],
            [Phase.WARMING, Phase.DRAINING, Phase.DRAINING],
            id="drained_while_warming",
        ),
        pytest.param([], [Idle(), Drain()], ["starting", "draining"], id="idle_before_draining"),
        pytest.param(
            [], [Drain(), Idle(), Listening()], ["draining", "stopped", "stopped"], id="no_return"
        ),
    ],
)
def test_events_lead_from_phase_to_phase(keep_warm, events, phases):
    life = Lifecycle(keep_warm)
    assert [life.on(event) for event in events] == phases


def test_only_a_ready_agent_is_ready():
    life = Lifecycle(["a"])
    seen = [life.ready]
    for event in (Listening(), Settled("a"), Drain(), Idle()):
        life.on(event)
        seen.append(life.ready)
    assert seen == [False, False, True, False, False]
    assert life.draining
