"""Entries for a gate, for tests."""

import asyncio
import time

FAR_S = 1e6


class Call:
    """An entry that notes when it starts; its slot is released by whoever holds the note."""

    hungry = False

    def __init__(self, begun, tenant="", priority=5, deadline_s=FAR_S, cost_s=1.0, lane="one"):
        self.begun = begun
        self.tenant = tenant
        self.priority = priority
        self.deadline_s = time.monotonic() + deadline_s
        self.cost_s = cost_s
        self.lane = lane
        self.joined_s = time.monotonic()
        self.ticket = None
        self.refusal: Exception | None = None

    def pause_s(self, behind):  # noqa: ARG002 - an entry's
        return 0.0

    def batch(self):
        return self

    def joins(self, other, behind, now_s):  # noqa: ARG002 - a batch's
        return False

    def begin(self, slot):
        self.begun.append((self, slot))

    def refuse(self, error):
        self.refusal = error


async def turns(count=1):
    for _ in range(3 * count):
        await asyncio.sleep(0)
