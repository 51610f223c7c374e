"""Clients that know every answer: what came is right, a lawful refusal, or a fault."""

import asyncio
import json
import struct
from collections import Counter
from random import Random
from typing import Any

import aiohttp

from tests.soak.agent import MODELS, SoakedAgent

DEADLINE_S = 5.0
HUNG_S = DEADLINE_S + 5.0
"""Beyond its deadline, and the longest freeze, no request may be without an answer."""
PAUSE_S = 0.01
_LAWFUL = {501, 503, 504}
"""501: the file of its model is spoilt."""
_HEADERS = {"x-request-timeout-seconds": f"{DEADLINE_S:g}"}
_RUBBISH = (b"", b"{", b"\xff" * 50, b"[" * 5000, b'{"inputs": [{"name": "x"}]}')
_LETTERS = "abcdefghij"


class Tally:
    """What came of all requests; `faults` says what should not have been."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def fault(self, kind: str, agent: str, what: str) -> None:
        """Something that should not have been: `kind` is `wrong` or `hung`."""
        self.counts[kind] += 1
        self.faults.append(f"{kind}: {agent}: {what}")


async def client(
    agent: SoakedAgent, session: aiohttp.ClientSession, tally: Tally, rng: Random, end_s: float
) -> None:
    """Ask one thing after the other until `end_s`, on the event loop's clock."""
    loop = asyncio.get_running_loop()
    while loop.time() < end_s:
        if agent.serves:
            await ask(agent, session, tally, rng)
        await asyncio.sleep(rng.uniform(0, 2 * PAUSE_S))


async def ask(
    agent: SoakedAgent, session: aiohttp.ClientSession, tally: Tally, rng: Random
) -> None:
    """One request, and what it came to."""
    life, model = agent.life, rng.choice(MODELS)
    try:
        async with asyncio.timeout(HUNG_S):
            if rng.random() < 0.02:
                await _ask_rubbish(agent, session, tally, rng)
            else:
                await _ask(agent, session, tally, rng, model)
    except TimeoutError:
        tally.fault("hung", agent.name, f"{model} gave no answer within {HUNG_S:g} s")
    except (aiohttp.ClientError, OSError) as error:
        if agent.life == life:
            tally.fault("wrong", agent.name, f"{model}: {error!r} from an agent that lives")
        else:
            tally.counts["cut by a kill"] += 1


async def _ask_rubbish(
    agent: SoakedAgent, session: aiohttp.ClientSession, tally: Tally, rng: Random
) -> None:
    url, body = f"{agent.url}/v2/models/double/infer", rng.choice(_RUBBISH)
    async with session.post(url, data=body, headers=_HEADERS) as answer:
        await answer.read()
    if answer.status in _LAWFUL or 400 <= answer.status < 500:
        tally.counts["rubbish refused"] += 1
    else:
        tally.fault("wrong", agent.name, f"{body[:20]!r} got {answer.status}")


async def _ask(
    agent: SoakedAgent,
    session: aiohttp.ClientSession,
    tally: Tally,
    rng: Random,
    model: str,
) -> None:
    path, body, headers, wanted = _question(model, rng)
    url = f"{agent.url}/v2/models/{model}/{path}"
    async with session.post(url, data=body, headers={**_HEADERS, **headers}) as answer:
        text = await answer.read()
    if answer.status in _LAWFUL:
        tally.counts[str(answer.status)] += 1
    elif answer.status != 200:
        tally.fault("wrong", agent.name, f"{model}: {answer.status} {text[:200]!r}")
    elif (found := _found(model, text)) == wanted:
        tally.counts["right"] += 1
    else:
        tally.fault("wrong", agent.name, f"{model}: {found!r} instead of {wanted!r}")


def _question(model: str, rng: Random) -> tuple[str, bytes, dict[str, str], Any]:
    """Path, body and headers of a request, and its right answer."""
    if model == "talk":
        begun = rng.randrange(5)
        asked = {"text_input": _LETTERS[begun], "parameters": {"temperature": 0, "max_tokens": 4}}
        return "generate", json.dumps(asked).encode(), {}, _LETTERS[begun + 1 : begun + 5]
    if model == "words":
        words = [f"{rng.getrandbits(64):x}" for _ in range(rng.randint(1, 5))]
        tensor = {"name": "text", "shape": [len(words)], "datatype": "BYTES", "data": words}
        return "infer", json.dumps({"inputs": [tensor]}).encode(), {}, words
    rows = rng.choice([1, 1, 1, 8, 64])
    numbers = [float(rng.randrange(1 << 20)) for _ in range(2 * rows)]
    tensor = {"name": "x", "shape": [rows, 2], "datatype": "FP32"}
    wanted = [2 * number for number in numbers]
    if rng.random() < 0.5:
        body = json.dumps({"inputs": [{**tensor, "data": numbers}]}).encode()
        return "infer", body, {}, wanted
    data = struct.pack(f"<{2 * rows}f", *numbers)
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]})
    return (
        "infer",
        head.encode() + data,
        {"inference-header-content-length": str(len(head))},
        wanted,
    )


def _found(model: str, text: bytes) -> Any:
    answer = json.loads(text)
    return answer["text_output"] if model == "talk" else answer["outputs"][0]["data"]
