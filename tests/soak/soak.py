"""Agents under random harm for a time: no wrong answer, no hung request, no growing memory.

`python -m tests.soak.soak --seconds 1800 --seed 1`; `--small`: the agents on one core with 512 MB,
the load outside. Prints one JSON object; its exit code is 1 where something was not as it should.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import aiohttp

from tests.soak.agent import MODELS, SoakedAgent
from tests.soak.group import Group, small_group
from tests.soak.harm import Harm
from tests.soak.traffic import Tally, client

SMALL_BYTES = 512 << 20
RSS_GROWTH = 1.05
_CLIENTS = 4
_FIRST_SHARE = 0.25
_FIRST_MOST_S = 60.0
"""What was allocated once by then counts as the start: engines, pools, caches."""


async def soak(
    folder: Path, seconds: float, seed: int, group: Group | None = None
) -> dict[str, Any]:
    """Two agents, one of which is killed and frozen, too; what came of it."""
    steady, rough = (SoakedAgent(folder / name, group) for name in ("steady", "rough"))
    tally, done = Tally(), {}
    try:
        await asyncio.gather(steady.start(), rough.start())
        async with aiohttp.ClientSession() as session:
            first_s = min(_FIRST_MOST_S, seconds * _FIRST_SHARE)
            await _harmed([steady, rough], session, tally, seed, first_s)
            before = await _settled_rss(steady, session)
            done = await _harmed([steady, rough], session, tally, seed + 1, seconds - first_s)
            after = await _settled_rss(steady, session)
    finally:
        codes = [agent.end() for agent in (steady, rough)]
    grown = after / before
    ok = not tally.faults and grown <= RSS_GROWTH and codes == [0, 0]
    return {
        "schema": "isochrone.soak/1",
        "ok": ok,
        "seconds": seconds,
        "seed": seed,
        "requests": dict(tally.counts),
        "wrong": tally.counts["wrong"],
        "hung": tally.counts["hung"],
        "faults": tally.faults[:20],
        "harm": done,
        "rss_bytes": [before, after],
        "rss_growth": grown,
        "exit_codes": codes,
        "median_start_s": median(steady.starts_s + rough.starts_s),
        "group": None
        if group is None
        else {"most_bytes": group.most_bytes, "killed": group.killed},
    }


async def _harmed(
    agents: Sequence[SoakedAgent],
    session: aiohttp.ClientSession,
    tally: Tally,
    seed: int,
    seconds: float,
) -> dict[str, dict[str, int]]:
    """Traffic and harm at once; how often what was done to whom."""
    end_s = asyncio.get_running_loop().time() + seconds
    harms = []
    async with asyncio.TaskGroup() as tasks:
        for number, agent in enumerate(agents):
            harm = Harm(agent, session, Random(f"{seed} {agent.name}"), rough=number > 0)
            harms.append(harm)
            tasks.create_task(harm.until(end_s))
            for one in range(_CLIENTS):
                rng = Random(f"{seed} {agent.name} {one}")
                tasks.create_task(client(agent, session, tally, rng, end_s))
    return {agent.name: dict(harm.done) for agent, harm in zip(agents, harms, strict=True)}


async def _settled_rss(agent: SoakedAgent, session: aiohttp.ClientSession) -> int:
    """Resident memory with every model loaded, once; a spoilt one is loaded when it may be."""
    for model in MODELS:
        url = f"{agent.admin}/v2/repository/models/{model}/load"
        async with asyncio.timeout(90):
            while True:
                async with session.post(url) as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.2)
    return agent.rss_bytes()


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="one core, 512 MB")
    args = parser.parse_args()
    grouped = small_group(SMALL_BYTES) if args.small else nullcontext()
    with tempfile.TemporaryDirectory() as folder, grouped as group:
        result = asyncio.run(soak(Path(folder), args.seconds, args.seed, group))
    print(json.dumps(result, indent=2))
    return int(not result["ok"])


if __name__ == "__main__":
    sys.exit(main())
