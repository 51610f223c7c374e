"""The agent's gate: slots, a short line, a refusal at once; nobody's slot is ever lost."""

import asyncio
import time

import pytest

from isochrone.edge_agent.runtime.calls.knock import admitted
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import DeadlineExceeded, Overloaded
from tests.edge_agent.waiting import FAR_S, Call, turns


def gate(slots=1, queue=1, service_s=0.5):
    return SlotGate(slots, queue, time.monotonic, lambda: service_s)


def later(seconds):
    return time.monotonic() + seconds


async def test_slots_then_the_queue_then_a_refusal_at_once():
    door = gate(slots=2, queue=1)
    first, _second = [await admitted(door, later(FAR_S), 5) for _ in range(2)]
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(admitted(door, later(FAR_S), 5))
        await asyncio.sleep(0)
        assert (door.in_flight, door.queued) == (2, 1)
        with pytest.raises(Overloaded) as refused:
            admitted(door, later(FAR_S), 5).send(None)  # it does not even wait for the loop
        assert refused.value.retry_after_s == pytest.approx(3 * 0.5 / 2)
        first.release()
        (await waiting).release()
    assert (door.in_flight, door.queued) == (1, 0)


async def test_as_many_as_have_room_may_stand_aside():
    door = gate(slots=2, queue=1)
    places = [door.stand_aside(7.0) for _ in range(3)]
    assert (door.in_flight, door.queued) == (0, 3)
    with pytest.raises(Overloaded) as refused:
        door.stand_aside(7.0)
    assert refused.value.retry_after_s == 7.0
    (await admitted(door, later(FAR_S), 5)).release()
    places.pop().release()
    door.stand_aside(7.0).release()


async def test_the_deadline_passes_in_the_queue():
    door = gate()
    lease = await admitted(door, later(FAR_S), 5)
    with pytest.raises(DeadlineExceeded):
        await admitted(door, later(0.01), 5)
    assert door.queued == 0
    lease.release()
    assert door.in_flight == 0


async def test_the_more_urgent_goes_first():
    door, order = gate(queue=2), []

    async def pass_through(priority):
        lease = await admitted(door, later(FAR_S), priority)
        order.append(priority)
        lease.release()

    lease = await admitted(door, later(FAR_S), 5)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pass_through(9))
        tasks.create_task(pass_through(1))
        await asyncio.sleep(0)
        lease.release()
    assert order == [1, 9]


async def test_the_more_urgent_takes_the_place_of_the_less_urgent_when_the_queue_is_full():
    door = gate(queue=1)
    lease = await admitted(door, later(FAR_S), 5)
    loop = asyncio.get_running_loop()
    lower, higher = [loop.create_task(admitted(door, later(FAR_S), p)) for p in (6, 3)]
    async with asyncio.timeout(5):
        with pytest.raises(Overloaded) as refused:
            await lower
        assert refused.value.retry_after_s == pytest.approx(2 * 0.5)
        lease.release()
        (await higher).release()
    assert (door.in_flight, door.queued) == (0, 0)


@pytest.mark.parametrize("released", ["before", "after"])
async def test_a_waiter_that_goes_away_costs_no_slot(released):
    door = gate(queue=3)
    lease = await admitted(door, later(FAR_S), 5)
    loop = asyncio.get_running_loop()
    leaver, stayer = [loop.create_task(admitted(door, later(FAR_S), 5)) for _ in range(2)]
    await asyncio.sleep(0)
    if released == "before":  # the slot is the leaver's already when it is cancelled
        lease.release()
    leaver.cancel()
    if released == "after":
        lease.release()
    async with asyncio.timeout(5):
        (await stayer).release()
        await asyncio.wait([leaver])
    assert leaver.cancelled()
    assert (door.in_flight, door.queued) == (0, 0)


async def served(begun, count):
    """Let so many run one after the other; who they were."""
    for number in range(count):
        await turns()
        begun[number][1].release()
    await turns()
    return [call for call, _ in begun[:count]]


async def test_inside_a_tenant_the_earliest_deadline_goes_first():
    door = gate(queue=9)
    begun: list = []
    door.join(Call(begun))
    await turns()
    for deadline_s in (30.0, 10.0, 20.0):
        door.join(Call(begun, deadline_s=deadline_s, tenant="a"))
    order = await served(begun, 4)
    ends = [call.deadline_s for call in order[1:]]
    assert ends == sorted(ends)


async def test_the_deadline_of_one_among_many_alike_passes_while_a_run_goes_on():
    door = gate(queue=9)
    begun: list = []
    door.join(Call(begun))
    await turns()
    calls = [Call(begun, deadline_s=0.02 * n) for n in (1, 2, 3)]
    for call in calls:
        door.join(call)
    assert (door.in_flight, door.queued) == (1, 3)
    async with asyncio.timeout(5):
        while door.queued:  # noqa: ASYNC110 - the gate tells its entries, not us
            await asyncio.sleep(0.005)
    assert all(isinstance(call.refusal, DeadlineExceeded) for call in calls)
    assert len(begun) == 1


async def test_lower_classes_fill_a_part_of_the_queue_only():
    door = gate(queue=20)
    begun: list = []
    door.join(Call(begun))
    await turns()
    for _ in range(3):
        door.join(Call(begun, "a", priority=9))
    with pytest.raises(Overloaded):
        door.join(Call(begun, "a", priority=9))
    door.join(Call(begun, "a", priority=5))
