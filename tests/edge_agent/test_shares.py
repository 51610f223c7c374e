"""Laws of a full queue: who gets a place, what shares come of it, and who never loses one."""

import asyncio
from collections import Counter
from contextlib import suppress
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import Overloaded
from tests.edge_agent.waiting import Call, turns

COST_S = 1e-3
"""So little that nobody waits for as long as lifts it into a higher band."""
WEIGHTS = st.dictionaries(
    st.sampled_from("abc"), st.integers(1, 4).map(float), min_size=2, max_size=3
)


class Played:
    """A gate with one slot, on a clock of its own."""

    def __init__(self, queue, weights=None):
        self.now_s = 0.0
        self.begun: list = []
        self.gate = SlotGate(1, queue, lambda: self.now_s, lambda: COST_S, weights)

    def join(self, tenant="a", priority=5):
        """The call, once it is in; None where it is refused."""
        call = Call(self.begun, tenant, priority, cost_s=COST_S)
        with suppress(Overloaded):
            self.gate.join(call)
            return call
        return None

    async def run(self):
        """One run, from its start to its end."""
        await turns()
        self.now_s += COST_S
        self.begun[-1][1].release()

    async def occupied(self):
        """Somebody runs."""
        self.join("z", 1)
        await turns()
        return self


def left_free(queue):
    return max(1, queue // 8)


@settings(max_examples=20)
@given(weights=WEIGHTS, more=st.integers(0, 40), greed=st.integers(1, 9), random=st.randoms())
def test_tenants_share_by_weight_whoever_asks_first_and_most(weights, more, greed, random):
    async def play():
        queue = ceil(2 * sum(weights.values()) / min(weights.values())) + more
        play, first = Played(queue, weights), min(weights)
        for _ in range(queue):  # it was alone before
            play.join(first)
        for _ in range(queue + 300):
            asked = [*weights, *[first] * greed]
            random.shuffle(asked)
            for tenant in asked:
                play.join(tenant)
            await play.run()
        return Counter(call.tenant for call, _ in play.begun[queue:])

    served = asyncio.run(play())
    for tenant, weight in weights.items():
        share = served[tenant] / served.total()
        assert share == pytest.approx(weight / sum(weights.values()), rel=0.1)


@given(queue=st.integers(1, 100), priority=st.integers(1, 5), weight=st.floats(0.01, 100))
def test_a_tenant_alone_fills_the_queue_but_for_an_eighth(queue, priority, weight):
    async def play():
        play = await Played(queue, {"a": weight}).occupied()
        return sum(play.join("a", priority) is not None for _ in range(queue + 1))

    assert asyncio.run(play()) == queue - (left_free(queue) if queue > 1 else 0)


@given(queue=st.integers(2, 100), others=st.integers(1, 9))
def test_who_has_nothing_in_the_queue_finds_a_place_in_its_last_eighth(queue, others):
    async def play():
        play = await Played(queue).occupied()
        while play.join("greedy"):
            pass
        return [play.join(f"modest {number}") for number in range(others)]

    came = asyncio.run(play())
    assert all(came[: left_free(queue)])


ASKED = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", ""]), st.integers(1, 9)), min_size=1, max_size=60
)


@settings(max_examples=200)
@given(queue=st.integers(0, 24), asked=ASKED, ends=st.randoms())
def test_nobody_who_was_let_in_leaves_but_for_one_of_a_higher_class(queue, asked, ends):
    async def play():
        play = await Played(queue, {"b": 2.0, "c": 0.1}).occupied()
        inside: list[Call] = []
        for tenant, priority in asked:
            came = play.join(tenant, priority)
            gone = [call for call in inside if call.refusal is not None]
            assert not gone or (came is not None and len(gone) == 1)
            assert all(call.priority > priority for call in gone)
            inside = [call for call in [*inside, came] if call is not None and call not in gone]
            assert play.gate.queued + play.gate.in_flight <= queue + 1
            if ends.random() < 0.2:
                await play.run()

    asyncio.run(play())


@settings(max_examples=200)
@given(queue=st.integers(1, 24), asked=ASKED)
def test_the_most_urgent_call_of_a_tenant_gets_in_whatever_waits(queue, asked):
    async def play():
        play = await Played(queue).occupied()
        for tenant, priority in asked:
            play.join(tenant, max(2, priority))
        assert play.join("urgent", 1)

    asyncio.run(play())


@settings(max_examples=200)
@given(queue=st.integers(0, 24), asked=ASKED)
def test_only_who_could_not_join_is_turned_away_before(queue, asked):
    async def play():
        play = await Played(queue, {"b": 2.0}).occupied()
        for tenant, priority in asked:
            try:
                play.gate.turn_away(tenant, priority)
            except Overloaded:
                assert play.join(tenant, priority) is None
            else:
                play.join(tenant, priority)

    asyncio.run(play())


async def test_a_long_queue_that_is_full_turns_away_who_has_its_share_and_nobody_else():
    play = await Played(64).occupied()
    while play.join("greedy"):
        pass
    with pytest.raises(Overloaded):
        play.gate.turn_away("greedy", 5)
    play.gate.turn_away("greedy", 4)
    play.gate.turn_away("modest", 5)
    assert play.join("modest")
    with pytest.raises(Overloaded):
        play.gate.turn_away("greedy", 5)
    play.gate.turn_away("modest", 5)
