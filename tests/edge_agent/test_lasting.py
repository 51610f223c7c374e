"""Work in the background outlives its own mistakes, and nothing else dies of them."""

import asyncio
import logging

import pytest

from isochrone.edge_agent.lasting import lasting


async def test_what_fails_is_begun_again_until_it_ends(caplog):
    rounds: list[int] = []

    async def work():
        rounds.append(len(rounds))
        if len(rounds) < 3:
            raise KeyError("a mistake")

    with caplog.at_level(logging.ERROR):
        async with asyncio.TaskGroup() as tasks:  # an error that got out would end it
            tasks.create_task(lasting(work, "the work", again_s=0.0))
    assert rounds == [0, 1, 2]
    assert caplog.text.count("the work failed") == 2


async def test_who_is_cancelled_ends():
    begun = asyncio.Event()

    async def work():
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(lasting(work, "the work"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
